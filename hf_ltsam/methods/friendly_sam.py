"""SAM without the part of the gradient that all batches share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.hyperparameters import BELOW_ONE, require
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

M = "friendly_sam.m"


@dataclass(frozen=True)
class FriendlySAM(Method):
    """Friendly-SAM: m <- beta m + (1 - beta) g with g = G(1), then G(1, rho unit(g - sigma m)); m starts at zero.

    Each micro-batch of an accumulated step moves m, and each process keeps its own.

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress.
        sigma: how much of the full gradient's estimate m is taken off, >= 0; 0 is SAM.
        beta: memory of m, in [0, 1).

    Cost: 2 forwards, 2 backwards.
    Source: Li et al. 2024 (Friendly SAM), Alg. 1.
    Differs from the published code: it takes off the m of the step before and starts m at the first gradient.
    """

    citations: ClassVar = ("li2024",)

    rho: float | Schedule = 0.05
    sigma: float = 1.0
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, sigma=self.sigma)
        require(BELOW_ONE, self, beta=self.beta)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        g = loss.gradient()
        before = step.recall(M, like=g)
        m = (1 - self.beta) * g if before is None else self.beta * before + (1 - self.beta) * g
        step.remember(M, m)
        return loss.gradient(at=value_at(self.rho, step.progress) * (g - self.sigma * m).unit())
