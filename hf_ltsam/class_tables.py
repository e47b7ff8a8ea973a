"""Per-class quantities (C,) as tensors, computed once per training set, device and floating-point type."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVarTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .class_statistics import ClassStatistics

Settings = TypeVarTuple("Settings")


def per_class(
    formula: Callable[[Tensor, *Settings], Tensor],
) -> Callable[[ClassStatistics, Tensor, *Settings], Tensor]:
    """Turn `formula(counts (C,), *settings) -> (C,)` into `(statistics, like, *settings) -> (C,)`, computed once.

    The formula sees float64 counts on the CPU; the result is rounded once, to the floating-point type of `like`, and
    stays on its device, so that no step computes or copies it again. Settings must be hashable. Every caller of the
    process shares the tensor: never write into it.
    """

    @lru_cache(maxsize=64)
    def table(
        statistics: ClassStatistics, device: torch.device, dtype: torch.dtype, settings: tuple[*Settings]
    ) -> Tensor:
        # A table made under inference mode, say by an evaluation, could not serve a later backward pass;
        # and no default device may move the float64 numbers.
        with torch.inference_mode(False):
            values = formula(torch.tensor(statistics.counts, dtype=torch.float64, device="cpu"), *settings)
            return values.to(dtype).to(device)      # in this order: Apple's MPS has no float64

    def lookup(statistics: ClassStatistics, like: Tensor, /, *settings: *Settings) -> Tensor:
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return table(statistics, like.device, dtype, settings)

    return lookup


@per_class
def counts(n: Tensor) -> Tensor:
    return n


@per_class
def prior(n: Tensor) -> Tensor:
    """pi_c = n_c / N."""
    return n / n.sum()


@per_class
def log_prior(n: Tensor) -> Tensor:
    return (n / n.sum()).log()


@per_class
def tail(n: Tensor, threshold: int) -> Tensor:
    """1 where n_c <= threshold, else 0."""
    return (n <= threshold).to(n.dtype)


@per_class
def head(n: Tensor, threshold: int) -> Tensor:
    """1 where n_c > threshold, else 0."""
    return (n > threshold).to(n.dtype)
