"""Noise on the gradient, to leave saddle points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class PGD(Method):
    """Perturbed gradient descent: g = G(1) + sigma xi, xi standard normal.

    xi depends on (seed, step) alone: all processes and all micro-batches of a step draw the same, so that its size
    stays sigma when their gradients are averaged.

    Args:
        sigma: standard deviation of the noise on every coordinate, >= 0, or a schedule over training progress; 0 is SGD.

    Cost: 1 forward, 1 backward.
    Source: Jin et al. 2017, 2019; Rangwani et al. 2022 Sec. 4, Table 4, with sigma from App. C.
    """

    title: ClassVar = "PGD"
    citations: ClassVar = ("jin2017", "rangwani2022")
    perturbs: ClassVar[bool] = False

    sigma: float | Schedule = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, sigma=self.sigma)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        xi = loss.weights.normal_like(step.generator())
        return loss.gradient() + value_at(self.sigma, step.progress) * xi
