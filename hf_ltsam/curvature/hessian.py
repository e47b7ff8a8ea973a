"""The Hessian of a mean loss as an operator that multiplies vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from hf_ltsam.curvature.objective import MeanLoss, flat_gradient


class SymmetricOperator(Protocol):
    """A symmetric matrix (P, P) that is known by its products alone.

    Args:
        size: P.
        dtype, device: of the vectors that it takes and gives.
    """

    size: int
    dtype: torch.dtype
    device: torch.device

    def __call__(self, vector: Tensor) -> Tensor: ...  # (P,) -> (P,)


class Hessian(SymmetricOperator):
    """H = grad^2 L(w) over the trainable weights, by double backward: H v = grad (grad L . v).

    A product takes 1 forward and some 4 times the work of a backward pass, a chunk of samples at a time. Use it inside
    `fixed_for_curvature(model)`.

    Args:
        loss: L.
    """

    def __init__(self, loss: MeanLoss) -> None:
        self._loss = loss
        self._parameters = loss.weights.parameters
        self._looked_at = False
        self.size = sum(p.numel() for p in self._parameters)
        self.dtype, self.device = self._parameters[0].dtype, self._parameters[0].device

    def __call__(self, vector: Tensor) -> Tensor:
        product = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        with _second_derivatives():
            for part in self._loss.parts():
                gradient = flat_gradient(part, self._parameters, create_graph=True)
                if not self._looked_at:
                    _check_twice_differentiable(gradient)
                    self._looked_at = True
                product += flat_gradient(gradient @ vector, self._parameters)
        return product


def _check_twice_differentiable(gradient: Tensor) -> None:
    """Refuse a graph with a function marked `once_differentiable`.

    Torch puts a node that raises in its place, which no path to the weights leads through: what the function adds to the
    Hessian would be missing without a word.

    Raises:
        ValueError: there is one.
    """
    seen: set[Any] = set()
    nodes: list[Any] = [gradient.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("Error"):
            raise _without_second_derivative("a function of one of its layers", "it is marked once_differentiable")
        nodes += [following for following, _ in node.next_functions]


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """Name an operation of torch that has none."""
    try:
        yield
    except RuntimeError as error:
        said = re.search(
            r"derivative for (?:aten::)?(\w+?)(?:_backward)? is not implemented|[Dd]ouble backward", str(error)
        )
        if said is None:
            raise
        raise _without_second_derivative(said[1] or "one of its operations", str(error)) from error


def _without_second_derivative(name: str, reason: str) -> ValueError:
    return ValueError(
        f"This model has no Hessian: {name} has no second derivative ({reason}). Replace the layer that uses it, as "
        "Hardsigmoid by Sigmoid, or measure sharpness alone, which needs no Hessian."
    )
