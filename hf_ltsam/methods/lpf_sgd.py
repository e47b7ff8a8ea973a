"""The loss smoothed by a Gaussian filter in weight space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

import torch
from torch import Tensor

from hf_ltsam.hyperparameters import COUNT, require
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class LPFSGD(Method):
    """Low-pass-filter SGD: g = sum over M disjoint shards m of G(1_m, eps_m), eps_m = gamma ||filter|| xi per filter.

    xi is standard normal; a filter is one index of a weight's first dimension, or the whole of a one-dimensional
    parameter. Noise depends on (seed, step) and the shard alone, alike in all processes: with R of them, shard m is
    the union of their m-th shards. A pass of its own serves each shard, so with batch norm each has its own batch
    statistics, as in the published code.

    Args:
        gamma: standard deviation relative to the filter's norm, >= 0, or a schedule over training progress; 0 is SGD where
            samples do not interact.
        shards: M, the number of Monte Carlo samples, >= 1; a batch of fewer samples has one shard per sample.

    Cost: 1 forward, 1 backward in all.
    Source: Bisla et al. 2022, Alg. 4.1; Rangwani et al. 2022 Table 4, with gamma and M from App. C.
    Differs from the published code: it divides a last, smaller batch by M shards that it does not have.
    """

    title: ClassVar = "LPF-SGD"
    citations: ClassVar = ("bisla2022", "rangwani2022")

    gamma: float | Schedule = 1e-3
    shards: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, gamma=self.gamma)
        require(COUNT, self, shards=self.shards)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        gamma, generator = value_at(self.gamma, step.progress), step.generator()
        norms = WeightVector([_filter_norms(w) for w in loss.weights.tensors])
        shards = loss.shards(self.shards)
        eps = (gamma * (norms * norms.normal_like(generator)) for _ in shards)
        total: WeightVector = reduce(add, (shard.gradient(at=e) for shard, e in zip(shards, eps)))
        return total


def _filter_norms(w: Tensor) -> Tensor:
    """||filter|| for every entry of w."""
    dimensions = tuple(range(1, w.ndim)) if w.ndim > 1 else None
    norms: Tensor = torch.linalg.vector_norm(w, dim=dimensions, keepdim=True)
    return norms * torch.ones_like(w)  # where w is sharded, in its shards
