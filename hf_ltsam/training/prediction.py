"""Predictions that depend on the model and the images alone, not on batch size or number of processes."""

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
from hf_ltsam.models.logits import averaged_logits

# Two leading logits closer than this share of the largest are a tie within rounding. In float32 the same image's logits
# differ between batch sizes by some 1e-6 of the largest, so the margin is wide; what falls into it is computed alone.
TIE = 1e-4


class Views(Protocol):
    """Test images: sample i is its views (V, channels, height, width), as `Preprocessing.views` makes them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


def predict_classes(
    model: nn.Module, images: Views, batch_size: int = 64, num_workers: int = 0, progress: str | None = None
) -> Tensor:
    """The class of every image (N,), int64 on the CPU, in every process; -1 where a logit is NaN.

    Each process of `accelerate launch` takes whole batches, in turn, so no image is seen twice and none is made up to
    fill a batch: with one batch size the logits are the same bits for any number of processes. Between batch sizes
    logits differ in their last bits; an image whose two leading logits are that close is predicted alone, which is the
    same computation whatever the batch was. On an accelerator float32 is float32 (no TF32) and kernels deterministic.

    Args:
        model: called with `pixel_values=`, in evaluation mode; of a process group, on the device of its process.
        images: all processes have the same.
        batch_size: of every process; memory and speed only.
        num_workers: processes that load images, for every process.
        progress: title of a progress bar; None: no bar.
    """
    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    predicted = torch.zeros(len(images), dtype=torch.long, device=device)
    return _filled(model, predicted, partial(_classes, model), images, batch_size, num_workers, progress)


def predict_decisions(
    model: nn.Module, images: Views, batch_size: int = 64, num_workers: int = 0, progress: str | None = None
) -> Decisions:
    """What is kept of the logits of every image, means over its views, in every process.

    Batches, precision and arguments as in `predict_classes`.
    """

    def columns(views: Tensor) -> Tensor:
        decisions = Decisions.of(averaged_logits(model, views))
        return torch.stack([torch.from_numpy(column).double() for column in decisions.columns], dim=1)

    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    # MPS has no float64, nor several processes
    kept = torch.zeros(len(images), 3, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
    predicted, probable, confidence = _filled(model, kept, columns, images, batch_size, num_workers, progress).unbind(1)
    return Decisions(predicted.long().numpy(), probable.long().numpy(), confidence.numpy())


def _filled(
    model: nn.Module,
    values: Tensor,
    of_views: Callable[[Tensor], Tensor],
    images: Views,
    batch_size: int,
    num_workers: int,
    progress: str | None,
) -> Tensor:
    """Zeros (N, ...), filled with what is made of every image's views on the device of the model."""
    device = next((weights.device for weights in model.parameters()), values.device)
    require(COUNT, "prediction", batch_size=batch_size)
    require(NON_NEGATIVE, "prediction", num_workers=num_workers)
    state = PartialState()
    batches = torch.arange(len(images)).split(batch_size)[state.process_index :: state.num_processes]
    bar = tqdm(batches, desc=progress, unit="batch", leave=False, disable=None if progress else True)
    with torch.no_grad(), full_precision():
        for rows, views in zip(bar, _load(images, batches, num_workers)):
            values[rows.to(values.device)] = of_views(views.to(device)).to(values.device, values.dtype)
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


def _classes(model: nn.Module, views: Tensor) -> Tensor:
    """Predicted classes (n,) of views (n, V, channels, height, width)."""
    logits = averaged_logits(model, views)
    alone = [averaged_logits(model, views[row : row + 1])[0] for row in near_ties(logits).nonzero()[:, 0].tolist()]
    if alone:
        logits[near_ties(logits)] = torch.stack(alone)
    return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))


def near_ties(logits: Tensor) -> Tensor:
    """Whether the two leading logits of a row (n, C) may change places by rounding (n,)."""
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second <= TIE * logits.abs().amax(dim=1)
