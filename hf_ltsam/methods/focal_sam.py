"""SAM whose sharpness term is weighted class by class."""

from __future__ import annotations

from dataclasses import dataclass

from ..context import StepContext
from ..landscape import LossLandscape
from ..schedules import Schedule, value_at
from ..vector import WeightVector
from .protocol import Method, require_non_negative


@dataclass(frozen=True)
class FocalSAM(Method):
    """Focal-SAM: g = G(1 - lam f) + lam G(f, rho unit(G(f))) with f_i = (1 - pi_{y_i})^gamma.

    Args:
        rho: radius of the perturbation, >= 0, or a schedule of the progress.
        gamma: the larger, the more the sharpness term skews to rare classes, >= 0; 0 with lam = 1 is SAM.
        lam: weight of the focal sharpness against the loss, >= 0; 0 is SGD.

    Cost: 2 forwards, 3 backwards.
    Source: 002 Eq. 5 to 8, Alg. 1.
    Differs from the published code: nothing but its coefficients in float32.
    """

    rho: float | Schedule = 0.05
    gamma: float = 1.0
    lam: float = 1.0

    def __post_init__(self) -> None:
        require_non_negative(self, rho=self.rho, gamma=self.gamma, lam=self.lam)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho = value_at(self.rho, step.progress)
        f = (1 - step.prior) ** self.gamma        # (n,)  002 Eq. 5
        g_plain, g_focal = loss.gradients([1 - self.lam * f, f])
        return g_plain + self.lam * loss.gradient(f, at=rho * g_focal.unit())        # 002 Eq. 7 and 8
