"""SAM along the momentum, which needs no pass of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.hyperparameters import BELOW_ONE, require
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

M = "msam.m"


@dataclass(frozen=True)
class MSAM(Method):
    """Momentum-SAM: g = G(1, -rho unit(m)), then m <- momentum m + g; m starts at zero.

    The buffer m is the method's own, so that it exists for every optimizer; it knows no weight decay. Each micro-batch
    of an accumulated step moves it, and each process keeps its own. The logged loss and batch norm's running
    statistics are those of the only pass, at the perturbed weights.

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress; 0 is SGD.
        momentum: of the buffer, in [0, 1); the optimizer's own is the natural choice.

    Cost: 1 forward, 1 backward.
    Source: Becker et al. 2024 (Momentum-SAM), Alg. 1.
    Differs from the published code: it reads the optimizer's buffer, weight decay included.
    """

    title: ClassVar = "MSAM"
    citations: ClassVar = ("becker2024",)

    rho: float | Schedule = 0.3
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho)
        require(BELOW_ONE, self, momentum=self.momentum)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        m = step.recall(M, like=loss.weights)
        if m is None:
            g = loss.gradient()
            step.remember(M, g)
            return g
        g = loss.gradient(at=-value_at(self.rho, step.progress) * m.unit())
        step.remember(M, self.momentum * m + g)
        return g
