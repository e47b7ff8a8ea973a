"""SAM that also closes the gap between the perturbed loss and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class GSAM(Method):
    """Surrogate-gap SAM: g_s - alpha (g - (g . u_s) u_s) with g = G(1), g_s = G(1, rho unit(g)), u_s = unit(g_s).

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress.
        alpha: weight of the part of g that is orthogonal to g_s, >= 0; 0 is SAM.

    Cost: 2 forwards, 2 backwards.
    Source: Zhuang et al. 2022, Alg. 1.
    Differs from the published code: it ties rho to the learning rate; give rho a schedule for the same.
    """

    title: ClassVar = "GSAM"
    citations: ClassVar = ("zhuang2022",)

    rho: float | Schedule = 0.05
    alpha: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, alpha=self.alpha)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho = value_at(self.rho, step.progress)
        g = loss.gradient()
        g_s = loss.gradient(at=rho * g.unit())
        u_s = g_s.unit()
        return g_s - self.alpha * (g - g.dot(u_s) * u_s)
