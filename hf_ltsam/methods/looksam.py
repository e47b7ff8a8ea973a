"""SAM that looks ahead on every k-th step only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.hyperparameters import COUNT, require
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

V, STEP = "looksam.v", "looksam.step"  # the kept direction, and the step it was found on


@dataclass(frozen=True)
class LookSAM(Method):
    """LookSAM: every k steps g_s = G(1, rho unit(g)), keeping v = g_s - (g_s . u) u; otherwise g + alpha ||g|| unit(v).

    Here g = G(1) and u = unit(g). SAM's gradient is taken where v is missing or `every` optimizer steps old, so the
    count goes on over steps that `interval`, `start` or `stop` leave to SGD. With gradient accumulation, all
    micro-batches of such a step take it and the last one's v is kept.

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress.
        every: steps from one SAM gradient to the next, >= 1; 1 is SAM.
        alpha: length of the reused direction relative to ||g||, >= 0.

    Cost: 1 + 1/every forwards and as many backwards.
    Source: Liu et al. 2022, Alg. 1.
    """

    citations: ClassVar = ("liu2022",)

    rho: float | Schedule = 0.05
    every: int = 5
    alpha: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, alpha=self.alpha)
        require(COUNT, self, every=self.every)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        g = loss.gradient()
        v = step.recall(V, like=g)
        if v is not None and 0 < step.step - step.memory[STEP] < self.every:
            return g + (self.alpha * g.norm()) * v.unit()
        g_s = loss.gradient(at=value_at(self.rho, step.progress) * g.unit())
        u = g.unit()
        step.remember(V, g_s - g_s.dot(u) * u)
        step.memory[STEP] = step.step
        return g_s
