"""SAM whose direction is searched between the gradient, that at the ascent point, and beyond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_ltsam.hyperparameters import COUNT, require
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

ALPHA, STEP = "xsam.alpha", "xsam.step"
SMALL = 1e-6  # of sin(theta): below it the arc is a point or half a circle, and the chord takes its place


@dataclass(frozen=True)
class XSAM(Method):
    """XSAM: g = ||g_1|| d(alpha), d(alpha) = (sin((1 - alpha) theta) u_0 + sin(alpha theta) u_1) / sin(theta).

    Here u_0 = unit(G(1)), g_1 = G(1, rho u_0), u_1 = unit(g_1), and theta is the angle between u_0 and u_1: d runs along
    the arc from the gradient's direction (alpha = 0) through SAM's (1) and beyond. Every `every` optimizer steps alpha is
    chosen anew: where the loss at w + rho_max d(alpha) is largest, of 0, 1/10, ..., 2. Each process that has a mini-batch
    of its own searches on it.

    Args:
        rho: radius of the ascent, >= 0, or a schedule over training progress.
        rho_max: distance at which directions are compared, >= 0; 0 keeps alpha at 0.
        every: steps from one search to the next, >= 1; an epoch has about as many in the published code.

    Cost: 2 forwards, 2 backwards; 21 forwards more for each search.
    Source: Chen et al. 2026 (XSAM) and its published code, for one step of ascent.
    Differs from the published code: it searches once an epoch, on the second mini-batch; where u_0 and u_1 agree, it takes
        their mean for every alpha.
    """

    title: ClassVar = "XSAM"
    citations: ClassVar = ("chen2026",)

    rho: float | Schedule = 0.15
    rho_max: float = 0.3
    every: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, rho_max=self.rho_max)
        require(COUNT, self, every=self.every)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        u_0 = loss.gradient().unit()
        g_1 = loss.gradient(at=value_at(self.rho, step.progress) * u_0)
        u_1 = g_1.unit()
        theta = u_0.dot(u_1).clamp(-1, 1).arccos()
        if ALPHA not in step.memory or not 0 < step.step - step.memory[STEP] < self.every:
            step.memory[ALPHA], step.memory[STEP] = self._steepest(loss, u_0, u_1, theta), step.step
        return g_1.norm() * _arc(u_0, u_1, theta, step.memory[ALPHA].to(theta))

    def _steepest(self, loss: LossLandscape, u_0: WeightVector, u_1: WeightVector, theta: Tensor) -> Tensor:
        """The alpha with the largest loss, 0-dimensional; the smallest of several."""
        grid = torch.arange(21).to(theta) / 10
        losses = torch.stack([loss.mean_loss_at(self.rho_max * _arc(u_0, u_1, theta, alpha)) for alpha in grid])
        return losses.argmax().to(theta) / 10  # nothing is read on the host


def _arc(u_0: WeightVector, u_1: WeightVector, theta: Tensor, alpha: Tensor) -> WeightVector:
    """d(alpha): a unit vector where u_0 and u_1 are."""
    sine, bent = theta.sin(), theta.sin() > SMALL
    a_0 = torch.where(bent, ((1 - alpha) * theta).sin() / sine, 1 - alpha)
    a_1 = torch.where(bent, (alpha * theta).sin() / sine, alpha)
    return a_0 * u_0 + a_1 * u_1
