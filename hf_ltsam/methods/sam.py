"""SAM and its scale-invariant form ASAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class SAM(Method):
    """Sharpness-aware minimization: g = G(1, rho unit(G(1))).

    Args:
        rho: radius of the perturbation in weight space, >= 0, or a schedule over training progress; 0 is SGD.

    Cost: 2 forwards, 2 backwards.
    Source: Foret et al. 2021, Eq. 2 and 3; on long tails Rangwani et al. 2022 Sec. 4.
    """

    title: ClassVar = "SAM"
    citations: ClassVar = ("foret2021", "rangwani2022")

    rho: float | Schedule = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho = value_at(self.rho, step.progress)
        return loss.gradient(at=rho * loss.gradient().unit())


@dataclass(frozen=True)
class ASAM(Method):
    """Adaptive SAM: g = G(1, rho T unit(T G(1))) with T = |w| + eta, element by element.

    Args:
        rho: radius relative to the weights, >= 0, or a schedule over training progress; 0 is SGD.
        eta: keeps T away from zero where weights are small, >= 0.

    Cost: 2 forwards, 2 backwards.
    Source: Kwon et al. 2021, Eq. 8; eta added to T as there in Sec. 5.
    Differs from the published code: it has T = 1 for every parameter without "weight" in its name, such as biases, which
        can make most of its perturbation, so that its radii are others; the reference of the golden steps has no eta.
    """

    title: ClassVar = "ASAM"
    citations: ClassVar = ("kwon2021",)

    rho: float | Schedule = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, eta=self.eta)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho = value_at(self.rho, step.progress)
        T = abs(loss.weights) + self.eta
        return loss.gradient(at=rho * (T * (T * loss.gradient()).unit()))
