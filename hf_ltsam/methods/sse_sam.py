"""SAM for head and tail with a radius each, then for the tail alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.hyperparameters import SHARE, require, require_choice
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import TINY, Scalar, WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

NORMALIZERS = ("total", "group")


@dataclass(frozen=True)
class SSESAM(Method):
    """Stage-wise saddle-escaping SAM: g = G(h, rho_head G(h)/N) + G(t, rho_tail G(t)/N), from gamma on with rho_head = 0.

    Args:
        rho_head: radius for the head classes while progress < gamma, >= 0, or a schedule over training progress.
        rho_tail: radius for the tail classes, >= 0, or a schedule over training progress.
        gamma: share of the training after which the head is no longer perturbed, in [0, 1].
        normalizer: what N is: "total", the norm of G(h) + G(t) (the paper), or "group", for each group the norm of
            its own gradient (the published code).

    Cost: 3 forwards, 4 backwards; after the switch 2 and 3.
    Source: Lyu et al. 2025 Eq. 13 and 14, Alg. 1; the split Lyu et al. 2025 Eq. 101 (tail: n_c <= tail_threshold).
    Differs from the published code: it divides by each group's own norm, splits at n_c < eta, pays 4 forwards and 4
        backwards throughout and cannot run with gamma 0 or 1.
    """

    title: ClassVar = "SSE-SAM"
    citations: ClassVar = ("lyu2025",)
    needs_classes: ClassVar[bool] = True
    needs_split: ClassVar[bool] = True

    rho_head: float | Schedule = 0.05
    rho_tail: float | Schedule = 0.1
    gamma: float = 0.7
    normalizer: str = "total"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho_head=self.rho_head, rho_tail=self.rho_tail)
        require(SHARE, self, gamma=self.gamma)
        require_choice(self, NORMALIZERS, normalizer=self.normalizer)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho_head = value_at(self.rho_head, step.progress) if step.progress < self.gamma else None
        return _head_and_tail(loss, step, rho_head, value_at(self.rho_tail, step.progress), self.normalizer)


@dataclass(frozen=True)
class SAMExt(Method):
    """SSE-SAM without its second stage: g = G(h, rho_head G(h)/N) + G(t, rho_tail G(t)/N) throughout.

    Args:
        rho_head, rho_tail, normalizer: as in `SSESAM`.

    Cost: 3 forwards, 4 backwards.
    Source: Lyu et al. 2025 Table 3, "SAM (ext)".
    """

    title: ClassVar = "SAM (ext)"
    citations: ClassVar = ("lyu2025",)
    needs_classes: ClassVar[bool] = True
    needs_split: ClassVar[bool] = True

    rho_head: float | Schedule = 0.05
    rho_tail: float | Schedule = 0.1
    normalizer: str = "total"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho_head=self.rho_head, rho_tail=self.rho_tail)
        require_choice(self, NORMALIZERS, normalizer=self.normalizer)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho_head, rho_tail = value_at(self.rho_head, step.progress), value_at(self.rho_tail, step.progress)
        return _head_and_tail(loss, step, rho_head, rho_tail, self.normalizer)


def _head_and_tail(
    loss: LossLandscape, step: StepContext, rho_head: float | None, rho_tail: float, normalizer: str
) -> WeightVector:
    """Both groups perturbed, or with rho_head None the tail alone."""
    g_head, g_tail = loss.gradients([step.head, step.tail])
    N_head, N_tail = _norms(g_head, g_tail, normalizer)
    if rho_head is not None:
        g_head = loss.gradient(step.head, at=(rho_head / N_head) * g_head)  # Lyu et al. 2025 Eq. 13
    return g_head + loss.gradient(step.tail, at=(rho_tail / N_tail) * g_tail)  # Lyu et al. 2025 Eq. 14


def _norms(g_head: WeightVector, g_tail: WeightVector, normalizer: str) -> tuple[Scalar, Scalar]:
    if normalizer == "group":
        return g_head.norm() + TINY, g_tail.norm() + TINY
    total = (g_head + g_tail).norm() + TINY
    return total, total
