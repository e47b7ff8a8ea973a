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
from hf_ltsam.metrics.decisions import Decisions
from hf_ltsam.models.logits import averaged_logits, logits_of

# Two leading logits closer than this share of the largest are a tie within rounding. In float32 the same image's logits
# differ between batch sizes by some 1e-6 of the largest, so the margin is wide; what falls into it is computed alone.
TIE = 1e-4


class Samples(Protocol):
    """Test images: sample i is its views (V, channels, height, width), as `Preprocessing.views` makes them.

    Or texts: sample i is what a model takes by name, of any length; `collate` makes batches of them, where it is there.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


Alone = Callable[[int], Any]  # row of a batch -> the batch of that sample alone


def predict_classes(
    model: nn.Module, images: Samples, batch_size: int = 64, num_workers: int = 0, progress: str | None = None
) -> Tensor:
    """The class of every image (N,), int64 on the CPU, in every process; -1 where a logit is NaN.

    Each process of `accelerate launch` takes whole batches, in turn, so no image is seen twice and none is made up to
    fill a batch: with one batch size the logits are the same bits for any number of processes. Between batch sizes
    logits differ in their last bits; an image whose two leading logits are that close is predicted alone, which is the
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
    predicted = torch.zeros(len(images), dtype=torch.long, device=device)
    return _filled(model, predicted, partial(_classes, model), images, batch_size, num_workers, progress)


def predict_decisions(
    model: nn.Module, images: Samples, batch_size: int = 64, num_workers: int = 0, progress: str | None = None
) -> Decisions:
    """What is kept of the logits of every image, means over its views, in every process.

    Batches, precision and arguments as in `predict_classes`.
    """

    def columns(batch: Any, _: Alone) -> Tensor:
        decisions = Decisions.of(_logits(model, batch))
        return torch.stack([torch.from_numpy(column).double() for column in decisions.columns], dim=1)

    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    # MPS has no float64, nor several processes
    kept = torch.zeros(len(images), 3, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
    predicted, probable, confidence = _filled(model, kept, columns, images, batch_size, num_workers, progress).unbind(1)
    return Decisions(predicted.long().numpy(), probable.long().numpy(), confidence.numpy())


def _filled(
    model: nn.Module,
    values: Tensor,
    of_batch: Callable[[Any, Alone], Tensor],
    images: Samples,
    batch_size: int,
    num_workers: int,
    progress: str | None,
) -> Tensor:
    """Zeros (N, ...), filled with what is made of every sample on the device of the model."""
    device = next((weights.device for weights in model.parameters()), values.device)
    require(COUNT, "prediction", batch_size=batch_size)
    require(NON_NEGATIVE, "prediction", num_workers=num_workers)
    state = PartialState()
    batches = torch.arange(len(images)).split(batch_size)[state.process_index :: state.num_processes]
    bar = tqdm(batches, desc=progress, unit="batch", leave=False, disable=None if progress else True)
    with torch.no_grad(), full_precision():
        for rows, batch in zip(bar, _load(images, batches, num_workers)):
            alone = partial(_alone, images, rows, batch, device)
            values[rows.to(values.device)] = of_batch(_on(device, batch), alone).to(values.device, values.dtype)
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


def _alone(images: Samples, rows: Tensor, batch: Any, device: torch.device, row: int) -> Any:
    """One sample of a batch; a text is not filled up to the longest of the others."""
    if isinstance(batch, Tensor):
        return _on(device, batch[row : row + 1])
    return _on(device, images.collate([images[int(rows[row])]]))  # type: ignore[attr-defined]


def _logits(model: nn.Module, batch: Any) -> Tensor:
    """Of a batch (n, C), in float32 or wider: means over the views of images, or of texts."""
    if isinstance(batch, Tensor):
        return averaged_logits(model, batch)
    logits = logits_of(model(**batch))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _classes(model: nn.Module, batch: Any, alone: Alone) -> Tensor:
    """Predicted classes (n,) of a batch."""
    logits = _logits(model, batch)
    ties = [_logits(model, alone(row))[0] for row in near_ties(logits).nonzero()[:, 0].tolist()]
    if ties:
        logits[near_ties(logits)] = torch.stack(ties)
    return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))


def near_ties(logits: Tensor) -> Tensor:
    """Whether the two leading logits of a row (n, C) may change places by rounding (n,)."""
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second <= TIE * logits.abs().amax(dim=1)
