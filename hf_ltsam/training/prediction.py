"""Predictions that depend on the model and the images alone, not on batch size or number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_ltsam.hyperparameters import COUNT, NON_NEGATIVE, require
from hf_ltsam.metrics.long_tail import TOP
from hf_ltsam.models.logits import averaged_logits

# Leading logits closer than this share of the largest are a tie within rounding. In float32 the same image's logits
# differ between batch sizes by some 1e-6 of the largest, so the margin is wide; what falls into it is computed alone.
TIE = 1e-4


class Views(Protocol):
    """Test images: sample i is its views (V, channels, height, width), as `Preprocessing.views` makes them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


def predict_logits(
    model: nn.Module, images: Views, batch_size: int = 64, num_workers: int = 0, progress: str | None = None
) -> Tensor:
    """The logits of every image, means over its views (N, C), float32 on the CPU, in every process.

    Each process of `accelerate launch` takes whole batches, in turn, so no image is seen twice and none is made up to
    fill a batch: with one batch size the logits are the same bits for any number of processes. Between batch sizes
    logits differ in their last bits; an image whose leading logits are that close is predicted alone, which is the
    same computation whatever the batch was. On an accelerator float32 is float32 (no TF32) and kernels deterministic.

    Args:
        model: called with `pixel_values=`, in evaluation mode; of a process group, on the device of its process.
        images: all processes have the same.
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
        num_classes = averaged_logits(model, images[0][None].to(device)).shape[1] if state.num_processes > 1 else 0
        values = torch.zeros(len(images), num_classes, device=device)
        for rows, views in zip(bar, _load(images, batches, num_workers)):
            logits = _logits(model, views.to(device)).float()
            values = values if values.shape[1] else values.new_zeros(len(images), logits.shape[1])
            values[rows.to(device)] = logits
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


def _load(images: Views, batches: Sequence[Tensor], num_workers: int) -> Any:
    workers = min(num_workers, len(batches))
    return DataLoader(images, batch_sampler=[rows.tolist() for rows in batches], num_workers=workers)  # type: ignore[arg-type]


def _logits(model: nn.Module, views: Tensor) -> Tensor:
    """Logits (n, C) of views (n, V, channels, height, width)."""
    logits = averaged_logits(model, views)
    rows = near_ties(logits).nonzero()[:, 0]
    for row in rows.tolist():
        logits[row] = averaged_logits(model, views[row : row + 1])[0]
    return logits


def near_ties(logits: Tensor) -> Tensor:
    """Whether rounding may change the leading class of a row (n, C), or which classes are the leading five (n,)."""
    leading = logits.topk(min(TOP + 1, logits.shape[1]), dim=1).values
    gaps = leading[:, :-1] - leading[:, 1:]  # between neighbours
    decisive = gaps[:, [0, TOP - 1]] if logits.shape[1] > 2 * TOP else gaps[:, :1]
    return (decisive <= TIE * logits.abs().amax(dim=1, keepdim=True)).any(dim=1)
