"""A random perturbation of the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class ModelPerturbation(Method):
    """Model perturbation: g = G(1, rho unit(M xi)), xi standard normal, M keeping the classifier.

    xi depends on (seed, step) alone and is the same in all processes and micro-batches of a step.

    Args:
        rho: norm of the perturbation, >= 0, or a schedule over training progress; 0 is SGD.

    Cost: 1 forward, 1 backward.
    Source: Zhou et al. 2023b App. C.3.
    """

    citations: ClassVar = ("zhou2023b",)

    rho: float | Schedule = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho)

    @property
    def needs_classifier(self) -> bool:
        return True

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        classifier = loss.classifier(step.num_classes)
        xi = loss.weights.normal_like(step.generator()).only(classifier)
        return loss.gradient(at=value_at(self.rho, step.progress) * xi.unit())
