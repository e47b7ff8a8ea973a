"""No perturbation: the gradient itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method


@dataclass(frozen=True)
class SGD(Method):
    """The plain gradient: g = G(1).

    With this method the trainer is the stock `Trainer`, to the last bit, whatever the optimizer.

    Cost: 1 forward, 1 backward.
    """

    title: ClassVar = "SGD"
    perturbs: ClassVar[bool] = False

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        return loss.gradient()
