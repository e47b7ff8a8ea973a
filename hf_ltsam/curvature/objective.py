"""The loss whose curvature is measured: a weighted mean over fixed images, as a smooth function of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.data import Subset as Rows
from transformers import PreTrainedModel, default_data_collator

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.sample_labels import Collator
from hf_ltsam.landscape.landscape import MicroBatch
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import Loss
from hf_ltsam.models.logits import check_logits, check_losses, logits_of

SampleLosses = Callable[[MicroBatch], Tensor]  # micro-batch -> l_i (b,), differentiable in the weights


def sample_losses_of(model: nn.Module, loss: Loss, statistics: ClassStatistics) -> SampleLosses:
    """The losses of a model's samples."""

    def sample_losses(batch: MicroBatch) -> Tensor:
        logits = logits_of(model(**batch.inputs))
        check_logits(logits, batch.labels, statistics.num_classes)
        losses = loss(logits, batch.labels, statistics)
        check_losses(losses, batch.labels)
        return losses

    return sample_losses


class Chunks:
    """Rows of a data set as micro-batches, collated anew in every pass, so that memory does not grow with their number.

    Args:
        dataset: of `{"pixel_values": ..., "labels": int}`, without random augmentation.
        rows: positions in the data set (n,); the order of the samples.
        size: samples of a chunk, those that pass through the model together.
        device: where the model is.
        collator: makes batches of samples.
    """

    def __init__(
        self,
        dataset: Any,
        rows: Tensor,
        size: int,
        device: torch.device | str = "cpu",
        collator: Collator = default_data_collator,
    ) -> None:
        self._rows: Rows[Any] = Rows(dataset, rows.tolist())
        self._size = size
        self._device = torch.device(device)
        self._collator = collator

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def __iter__(self) -> Iterator[MicroBatch]:
        # a generator of its own: a loader without one draws from the global state
        seeded = torch.Generator().manual_seed(0)
        for batch in DataLoader(self._rows, self._size, collate_fn=self._collator, generator=seeded):
            on_device = {name: value.to(self._device) for name, value in batch.items()}
            labels = on_device.pop("labels")
            yield MicroBatch(on_device, labels)


class MeanLoss:
    """L(w) = sum_i a_i l_i(w), a chunk of samples at a time.

    Args:
        weights: the trainable weights w; with adapters, those of the adapters.
        chunks: micro-batches, together n samples; they are passed through again for every value.
        sample_losses: micro-batch -> l_i (b,).
        sample_weights: a (n,), adding up to 1, in the order of the chunks; None: 1/n each.
    """

    def __init__(
        self,
        weights: TrainableWeights,
        chunks: Iterable[MicroBatch],
        sample_losses: SampleLosses,
        sample_weights: Tensor | None = None,
    ) -> None:
        self.weights = weights
        self._chunks = chunks
        self._sample_losses = sample_losses
        if sample_weights is None:
            n = sum(len(chunk) for chunk in chunks)
            sample_weights = torch.full((n,), 1 / n, dtype=torch.float64)
        self._a = sample_weights

    def parts(self) -> Iterator[Tensor]:
        """0-dimensional tensors that add up to L(w), differentiable in the weights."""
        start = 0
        for chunk in self._chunks:
            losses = self._sample_losses(chunk)
            yield self._a[start : start + len(chunk)].to(losses) @ losses
            start += len(chunk)

    @torch.no_grad()
    def value(self) -> float:
        """L(w)."""
        return sum(float(part) for part in self.parts())

    def gradient(self) -> Tensor:
        """grad L (P,), flat, in the order of the trainable parameters."""
        parameters = self.weights.parameters
        total = parameters[0].new_zeros(sum(p.numel() for p in parameters))
        for part in self.parts():
            total += flat_gradient(part, parameters)
        return total


def flat_gradient(objective: Tensor, parameters: list[Tensor], create_graph: bool = False) -> Tensor:
    """The gradient (P,); zeros where the objective does not depend on a parameter."""
    gradients = torch.autograd.grad(objective, parameters, create_graph=create_graph, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, gradients)]
    )


@torch.no_grad()
def class_means(chunks: Iterable[MicroBatch], sample_losses: SampleLosses, num_classes: int) -> Tensor:
    """Mean loss of every class (C,), float64, on the CPU; NaN for a class without samples."""
    sums, counts = torch.zeros(2, num_classes, dtype=torch.float64)
    for chunk in chunks:
        labels = chunk.labels.cpu()
        sums.index_add_(0, labels, sample_losses(chunk).double().cpu())
        counts.index_add_(0, labels, torch.ones(len(labels), dtype=torch.float64))
    means: Tensor = sums / counts
    return means


@contextmanager
def fixed_for_curvature(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, batch norm by its running statistics), eager attention, no TF32; then all put back.

    Fused attention kernels have no second derivative, and TF32 would drown small eigenvalues.

    Raises:
        ValueError: weights of less than 32 bits.
    """
    narrow = {p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype.itemsize < 4}
    if narrow:
        raise ValueError(f"Curvature needs weights in float32 or wider, got {narrow.pop()}: model.float() first.")
    modes = {module: module.training for module in model.modules()}
    exact = cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=True, allow_tf32=False)
    try:
        model.eval()
        with _eager_attention(model), sdpa_kernel(SDPBackend.MATH), exact:
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Of the models of transformers, by their setting; `sdpa_kernel` covers those of timm and open_clip."""
    changed: list[tuple[PreTrainedModel, str]] = []
    try:
        for module in model.modules():
            if isinstance(module, PreTrainedModel) and module.config._attn_implementation not in (None, "eager"):
                changed.append((module, module.config._attn_implementation))
                module.set_attn_implementation("eager")
        yield
    finally:
        for module, implementation in reversed(changed):
            module.set_attn_implementation(implementation)
