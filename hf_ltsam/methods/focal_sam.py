"""SAM whose sharpness term is weighted class by class, and its form along a momentum, which needs no pass of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_ltsam.hyperparameters import BELOW_ONE, require, require_choice
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import TINY, WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

PLAIN = ("exact", "reuse")
M = "momentum_focal_sam.m"


@dataclass(frozen=True)
class FocalSAM(Method):
    """Focal-SAM: g = G(1 - lam f) + lam G(f, rho unit(G(f))) with f_i = (1 - pi_{y_i})^gamma.

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress.
        gamma: the larger, the more the sharpness term skews to rare classes, >= 0; 0 with lam = 1 is SAM.
        lam: weight of the focal sharpness against the loss, >= 0; 0 is SGD.
        plain: "exact" takes G(1 - lam f) as it is. "reuse" replaces it by ((1 - lam f_bar) / f_bar) G(f), f_bar the mean
            of f over the training set: at SAM's cost, and close where f hardly differs between classes, as it does
            with many of them; an approximation all the same.

    Cost: 2 forwards, 3 backwards; with `plain="reuse"` 2 and 2.
    Source: Li et al. 2025 Eq. 5 to 8, Alg. 1.
    Differs from the published code: its coefficients are computed in float32 there.
    """

    citations: ClassVar = ("li2025",)
    needs_classes: ClassVar[bool] = True

    rho: float | Schedule = 0.05
    gamma: float = 1.0
    lam: float = 1.0
    plain: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, gamma=self.gamma, lam=self.lam)
        require_choice(self, PLAIN, plain=self.plain)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho = value_at(self.rho, step.progress)
        f = step.of_samples(lambda pi: (1 - pi) ** self.gamma)  # (n,)  Li et al. 2025 Eq. 5
        g_plain, g_focal = (
            self._reused(loss, f, step) if self.plain == "reuse" else loss.gradients([1 - self.lam * f, f])
        )
        return g_plain + self.lam * loss.gradient(f, at=rho * g_focal.unit())  # Li et al. 2025 Eq. 7 and 8

    def _reused(self, loss: LossLandscape, f: Tensor, step: StepContext) -> tuple[WeightVector, WeightVector]:
        """G(1 - lam f), with f taken for its mean f_bar in the quotient (1 - lam f) / f, and G(f)."""
        f_bar = _mean_weight(step, self.gamma)
        g_focal = loss.gradient(f)
        return ((1 - self.lam * f_bar) / f_bar) * g_focal, g_focal


@dataclass(frozen=True)
class MomentumFocalSAM(Method):
    """Momentum Focal-SAM: g = G(1, rho unit(m)), then m <- momentum m + G(f, rho unit(m)), f_i = (1 - pi_{y_i})^gamma.

    The focal gradients of the steps before stand for that of this one, so Focal-SAM's ascent needs no pass. m starts at
    zero; each micro-batch of an accumulated step moves it, and each process keeps its own. The logged loss and batch norm's
    running statistics are those of the only pass, at the perturbed weights.

    Args:
        rho: radius of the perturbation, >= 0, or a schedule over training progress; 0 with `plain="exact"` is SGD.
        gamma: the larger, the more the ascent skews to rare classes, >= 0.
        momentum: of m, in [0, 1).
        plain: "exact" takes G(1, eps) as it is. "reuse" replaces it by G(f, eps) / f_bar, f_bar the mean of f over the
            training set: at SGD's cost, and close where f hardly differs between classes; an approximation all the same.

    Cost: 1 forward, 2 backwards; with `plain="reuse"` 1 and 1.
    Source: Li et al. 2025 Eq. 5 for f, Becker et al. 2024 for the ascent along a momentum; the combination is ours.
    """

    title: ClassVar = "Momentum Focal-SAM"
    citations: ClassVar = ("li2025", "becker2024")
    needs_classes: ClassVar[bool] = True

    rho: float | Schedule = 0.05
    gamma: float = 1.0
    momentum: float = 0.9
    plain: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, gamma=self.gamma)
        require(BELOW_ONE, self, momentum=self.momentum)
        require_choice(self, PLAIN, plain=self.plain)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        f = step.of_samples(lambda pi: (1 - pi) ** self.gamma)  # (n,)  Li et al. 2025 Eq. 5
        m = step.recall(M, like=loss.weights)
        eps = None if m is None else value_at(self.rho, step.progress) * m.unit()
        if self.plain == "reuse":
            g_focal = loss.gradient(f, at=eps)
            g = g_focal / _mean_weight(step, self.gamma)
        else:
            g, g_focal = loss.gradients([None, f], at=eps)
        step.remember(M, g_focal if m is None else self.momentum * m + g_focal)
        return g


def _mean_weight(step: StepContext, gamma: float) -> float:
    """f_bar, the mean of (1 - pi_c)^gamma over the labels of the training set."""
    prior = step.statistics.tensor("prior", step.like)
    share = step.statistics.total / sum(step.statistics.counts)  # of labels: 1 where each sample has one
    return float((share * prior * (1 - prior) ** gamma).sum().clamp_min(TINY).item())
