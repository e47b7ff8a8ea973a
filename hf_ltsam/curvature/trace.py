"""Hutchinson's estimate of the trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_ltsam.curvature.hessian import SymmetricOperator
from hf_ltsam.hyperparameters import COUNT, require


@dataclass(frozen=True)
class Estimate:
    """A mean over random vectors and its standard error; NaN from a single vector."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Traces:
    """tr H, and tr H^2, which costs nothing more."""

    trace: Estimate
    trace_of_square: Estimate


def hutchinson(
    operator: SymmetricOperator, probes: int = 10, seed: int = 0, on_product: Callable[[], None] = lambda: None
) -> Traces:
    """tr H = E v^T H v and tr H^2 = E |H v|^2 for v of independent random signs.

    Cost: one product for each probe.
    Source: Hutchinson 1990.
    """
    require(COUNT, "hutchinson", probes=probes)
    generator = torch.Generator().manual_seed(seed)
    traces, squares = [], []
    for _ in range(probes):
        signs = torch.randint(0, 2, (operator.size,), generator=generator) * 2.0 - 1
        signs = signs.to(operator.device, operator.dtype)
        product = operator(signs).double()
        traces.append(float(signs.double() @ product))
        squares.append(float(product @ product))
        on_product()
    return Traces(_estimate(traces), _estimate(squares))


def _estimate(values: list[float]) -> Estimate:
    sample: Tensor = torch.tensor(values, dtype=torch.float64)
    error = float(sample.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return Estimate(float(sample.mean()), error)
