"""The Hessian of a mean loss as an operator that multiplies vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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
        self.size = sum(p.numel() for p in self._parameters)
        self.dtype, self.device = self._parameters[0].dtype, self._parameters[0].device

    def __call__(self, vector: Tensor) -> Tensor:
        product = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for part in self._loss.parts():
            gradient = flat_gradient(part, self._parameters, create_graph=True)
            with _second_derivatives():
                product += flat_gradient(gradient @ vector, self._parameters)
        return product


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """Torch's word for a missing derivative, in ours."""
    try:
        yield
    except RuntimeError as error:
        missing = re.search(r"derivative for (?:aten::)?\W?(\w+?)(?:_backward)?\W* is not implemented", str(error))
        if missing is None:
            raise
        raise ValueError(
            f"This model has no Hessian: torch has no second derivative of {missing[1]}, which one of its layers uses. "
            "Replace that layer (Hardsigmoid by Sigmoid, say), or measure sharpness alone, which needs no Hessian."
        ) from error
