"""SAM with a budget of loss in place of a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import TINY, WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class LESAM(Method):
    """LE-SAM: g = G(1, rho unit(G(1))) with rho = min(sigma / ||G(1)||, rho_max).

    The perturbation raises the loss by sigma to first order, however steep the loss is: the radius grows as the gradient
    shrinks. The paper lets sigma end at zero by a cosine over the last epochs, for which sigma takes a schedule.

    Args:
        sigma: the budget, >= 0, or a schedule over training progress; 0 is SGD.
        rho_max: the largest radius, >= 0.

    Cost: 2 forwards, 2 backwards.
    Source: Wang et al. 2026 (LE-SAM); its equations at second hand, the defaults ours.
    """

    title: ClassVar = "LE-SAM"
    citations: ClassVar = ("wang2026",)

    sigma: float | Schedule = 0.05
    rho_max: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, sigma=self.sigma, rho_max=self.rho_max)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        g = loss.gradient()
        rho = (value_at(self.sigma, step.progress) / (g.norm() + TINY)).clamp(max=self.rho_max)
        return loss.gradient(at=rho * g.unit())
