"""The method's vector on its way to the optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .vector import WeightVector


def accumulate(gradient: WeightVector, parameters: Sequence[Tensor], reached: list[bool]) -> None:
    """Add to `.grad` as a backward pass would: a parameter that no pass reached keeps what it has."""
    given: set[int] = set()        # storages that are some parameter's gradient: autograd may hand out one for two
    for parameter, g, has_gradient in zip(parameters, gradient.materialize(), reached, strict=True):
        if not has_gradient:
            continue
        if parameter.grad is not None:
            parameter.grad.add_(g)
        elif g.data_ptr() in given or g.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(g)
        else:
            parameter.grad = g
            given.add(g.data_ptr())
