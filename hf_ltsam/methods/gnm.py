"""Noise on the weights in place of an ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at


@dataclass(frozen=True)
class GNM(Method):
    """Gaussian neighborhood minimization: g = G(1, sigma xi), xi standard normal.

    Made for prompts and adapters, whose weights are few and of one size. xi depends on (seed, step) alone and is the same in
    all processes and micro-batches of a step.

    Args:
        sigma: standard deviation of each weight's noise, >= 0, or a schedule over training progress; 0 is SGD.

    Cost: 1 forward, 1 backward.
    Source: Li et al. 2024 (GNM-PT), the loss at second hand; sigma from the published code.
    Differs from the published code: it cuts the noise at three standard deviations and halves sigma again and again, by
        the epochs of its re-weighting.
    """

    title: ClassVar = "GNM"
    citations: ClassVar = ("li2024b",)

    sigma: float | Schedule = 1.67e-3  # rho 0.05 times dis_mul 0.1 times N(0, 1/3) in the published code

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, sigma=self.sigma)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        xi = loss.weights.normal_like(step.generator())
        return loss.gradient(at=value_at(self.sigma, step.progress) * xi)
