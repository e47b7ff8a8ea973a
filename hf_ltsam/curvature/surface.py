"""Loss surfaces along one or two directions in weight space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor, nn

from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.landscape.weights import TrainableWeights


@dataclass(frozen=True)
class Direction:
    """Where to move.

    Args:
        offset: of the trainable weights.
        buffers: of floating-point buffers such as batch norm's running statistics, by name; the others stay. They move
            between 0 and 1 alone: a variance that is extrapolated becomes negative.
    """

    offset: WeightVector
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


def filter_normalised(weights: TrainableWeights, seed: int = 0) -> Direction:
    """A random direction whose every filter has the norm of the model's filter.

    A filter is a row of the first dimension. Parameters of one dimension (biases, batch norm) stay where they are.

    Source: Li et al. 2018 Sec. 4.
    """
    generator = torch.Generator().manual_seed(seed)
    return Direction(WeightVector([_like_filters(w, generator) for w in weights.vector.tensors]))


def towards(weights: TrainableWeights, other: Mapping[str, Tensor]) -> Direction:
    """The way to another checkpoint: 0 is here, 1 is there, batch norm's running statistics included.

    Args:
        other: its state dict.

    Raises:
        ValueError: it lacks a trainable weight, or has it in another shape.
    """
    offset = [_difference(name, p, other) for name, p in weights.model.named_parameters() if p.requires_grad]
    buffers = {
        name: _difference(name, buffer, other)
        for name, buffer in weights.model.named_buffers()
        if buffer.is_floating_point() and name in other
    }
    return Direction(WeightVector(offset), buffers)


@torch.no_grad()
def loss_surface(
    weights: TrainableWeights,
    measure: Callable[[], Tensor],
    directions: Sequence[Direction],
    coordinates: Sequence[Sequence[float]],
) -> Tensor:
    """What is measured at w + sum_k t_k d_k, for every point of a grid.

    Args:
        measure: values (S,) of the model as it stands, such as the mean loss of every class.
        directions: d_k, one or two of them.
        coordinates: the values of t_k for each direction.

    Returns:
        Values (T_1, S), or (T_1, T_2, S).
    """
    values = []
    for point in product(*coordinates):
        with _moved(weights, directions, point):
            values.append(measure())
    return torch.stack(values).reshape(*map(len, coordinates), -1)


@contextmanager
def _moved(weights: TrainableWeights, directions: Sequence[Direction], point: Sequence[float]) -> Iterator[None]:
    first, *rest = [t * direction.offset for t, direction in zip(point, directions)]
    with weights.moved(sum(rest, first)), _moved_buffers(weights.model, directions, point):
        yield


@contextmanager
def _moved_buffers(model: nn.Module, directions: Sequence[Direction], point: Sequence[float]) -> Iterator[None]:
    names = {name for direction in directions for name in direction.buffers}
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in names}
    saved = {name: buffer.clone() for name, buffer in buffers.items()}
    try:
        for t, direction in zip(point, directions):
            for name, offset in direction.buffers.items():
                buffers[name].add_(offset, alpha=min(max(t, 0.0), 1.0))
        yield
    finally:
        for name, buffer in buffers.items():
            buffer.copy_(saved[name])


def _like_filters(weight: Tensor, generator: torch.Generator) -> Tensor:
    if weight.ndim < 2:
        return torch.zeros_like(weight)
    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
    axes = tuple(range(1, weight.ndim))
    norms: Tensor = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
    noise_norms: Tensor = torch.linalg.vector_norm(noise, dim=axes, keepdim=True)
    return noise * (norms / noise_norms)


@torch.no_grad()
def _difference(name: str, here: Tensor, other: Mapping[str, Tensor]) -> Tensor:
    if name not in other or other[name].shape != here.shape:
        state = "not there" if name not in other else f"of shape {tuple(other[name].shape)}"
        raise ValueError(
            f"The other checkpoint is of another model: {name}, {tuple(here.shape)} here, is {state}. "
            "A surface towards a checkpoint needs one of the same architecture."
        )
    return other[name].to(here) - here
