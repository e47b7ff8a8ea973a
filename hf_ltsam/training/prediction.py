"""Predictions that depend on the model and the images or texts alone, not on batch size or number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_ltsam.hyperparameters import COUNT, NON_NEGATIVE, require
from hf_ltsam.losses.protocol import wide
from hf_ltsam.metrics.long_tail import TOP
from hf_ltsam.models.logits import averaged_logits, logits_of

# Leading logits closer than this share of the largest are a tie within rounding. In float32 the same image's logits
# differ between batch sizes by some 1e-6 of the largest, so the margin is wide; what falls into it is computed alone.
TIE = 1e-4


class Samples(Protocol):
    """Test images: sample i is its views (V, channels, height, width), as `Preprocessing.views` makes them.

    Or texts: sample i is what a model takes by name, of any length; `collate` makes batches of them, where it is there.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


Alone = Callable[[int], Any]  # row of a batch -> the batch of that sample alone


def predict_logits(
    model: nn.Module, images: Samples, batch_size: int = 64, num_workers: int = 0, progress: str | None = None
) -> Tensor:
    """The logits of every image, means over its views (N, C), float32 on the CPU, in every process.

    Each process of `accelerate launch` takes whole batches, in turn, so no image is seen twice and none is made up to
    fill a batch: with one batch size the logits are the same bits for any number of processes. Between batch sizes
    logits differ in their last bits; an image whose leading logits are that close is predicted alone, which is the
    same computation whatever the batch was. On an accelerator float32 is float32 (no TF32) and kernels deterministic.

    Args:
        model: called with `pixel_values=`, or with what a text has, in evaluation mode; of a process group, on the device
            of its process.
        images: or texts; all processes have the same.
        batch_size: of every process; memory and speed only.
        num_workers: processes that load images, for every process.
        progress: title of a progress bar; None: no bar.
    """
    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    require(COUNT, "prediction", batch_size=batch_size)
    require(NON_NEGATIVE, "prediction", num_workers=num_workers)
    state = PartialState()
    batches = torch.arange(len(images)).split(batch_size)[state.process_index :: state.num_processes]
    bar = tqdm(batches, desc=progress, unit="batch", leave=False, disable=None if progress else True)
    with torch.no_grad(), full_precision():
        first = _logits_of_batch(model, _on(device, _one(images, 0))) if state.num_processes > 1 else None
        values = torch.zeros(len(images), 0 if first is None else first.shape[1], device=device)
        for rows, batch in zip(bar, _load(images, batches, num_workers)):
            logits = _logits(model, _on(device, batch), partial(_alone, images, rows, device))
            values = values if values.shape[1] else values.new_zeros(len(images), logits.shape[1])
            values[rows.to(device)] = logits.float()
    if state.num_processes > 1:  # every row was written by one process, the others hold zeros
        values = reduce(values, reduction="sum")
    return values.cpu()


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 without TF32, and deterministic convolutions."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = False, True, False, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = before


def _load(images: Samples, batches: Sequence[Tensor], num_workers: int) -> Any:
    workers = min(num_workers, len(batches))
    collate = getattr(images, "collate", None)
    rows = [rows.tolist() for rows in batches]
    return DataLoader(images, batch_sampler=rows, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]


def _on(device: torch.device, batch: Any) -> Any:
    return batch.to(device) if isinstance(batch, Tensor) else {name: value.to(device) for name, value in batch.items()}


def _one(images: Samples, index: int) -> Any:
    """The batch of one sample alone: a text is not filled up to the longest of others."""
    collate = getattr(images, "collate", None)
    return images[index][None] if collate is None else collate([images[index]])


def _alone(images: Samples, rows: Tensor, device: torch.device, row: int) -> Any:
    return _on(device, _one(images, int(rows[row])))


def _logits(model: nn.Module, batch: Any, alone: Alone) -> Tensor:
    """Logits (n, C) of a batch, those of ties from passes of their own."""
    logits = _logits_of_batch(model, batch)
    rows = near_ties(logits).nonzero()[:, 0]
    for row in rows.tolist():
        one = batch[row : row + 1] if isinstance(batch, Tensor) else alone(row)
        logits[row] = _logits_of_batch(model, one)[0]
    return logits


def _logits_of_batch(model: nn.Module, batch: Any) -> Tensor:
    """Of a batch (n, C), in float32 or wider: means over the views of images, or of texts."""
    if isinstance(batch, Tensor):
        return averaged_logits(model, batch)
    return wide(logits_of(model(**batch)))


def near_ties(logits: Tensor) -> Tensor:
    """Whether rounding may change the leading class of a row (n, C), or which classes are the leading five (n,)."""
    leading = logits.topk(min(TOP + 1, logits.shape[1]), dim=1).values
    gaps = leading[:, :-1] - leading[:, 1:]  # between neighbours
    decisive = gaps[:, [0, TOP - 1]] if logits.shape[1] > 2 * TOP else gaps[:, :1]
    return (decisive <= TIE * logits.abs().amax(dim=1, keepdim=True)).any(dim=1)
