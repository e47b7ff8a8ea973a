"""The gradient-norm penalty, which mixes SAM's gradient with the plain one; also as WSAM states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.hyperparameters import BELOW_ONE, require
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class GradientNorm(Method):
    """Penalized gradient norm: g = (1 - alpha) G(1) + alpha G(1, rho unit(G(1))).

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress.
        alpha: share of SAM's gradient, >= 0; 0 is SGD, 1 is SAM, beyond 1 extrapolates.

    Cost: 2 forwards, 2 backwards.
    Source: Zhao et al. 2022; Zhou et al. 2023b Eq. 2.
    Differs from the published code: it mixes the normalized plain gradient by default, adds L2 to both gradients and
        clips at norm 5.
    """

    title: ClassVar = "Gradient norm"
    citations: ClassVar = ("zhao2022", "zhou2023b")

    rho: float | Schedule = 0.1
    alpha: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, alpha=self.alpha)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho = value_at(self.rho, step.progress)
        g = loss.gradient()
        return (1 - self.alpha) * g + self.alpha * loss.gradient(at=rho * g.unit())  # Zhou et al. 2023b Eq. 2


@dataclass(frozen=True)
class WSAM(Method):
    """WSAM: g = (1 - alpha) G(1) + alpha G(1, rho unit(G(1))) with alpha = gamma / (1 - gamma).

    This is `GradientNorm(rho, alpha)` under its other name: sharpness is a regularizer of weight alpha.

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress.
        gamma: in [0, 1); 0 is SGD, 1/2 is SAM, beyond 1/2 extrapolates.

    Cost: 2 forwards, 2 backwards.
    Source: Yue et al. 2023 (WSAM), at second hand.
    Differs from the published code: it can keep the sharpness term out of the optimizer's moments (decouple=True).
    """

    title: ClassVar = "WSAM"
    citations: ClassVar = ("yue2023",)

    rho: float | Schedule = 0.05
    gamma: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho)
        require(BELOW_ONE, self, gamma=self.gamma)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        return GradientNorm(self.rho, alpha=self.gamma / (1 - self.gamma)).gradient(loss, step)
