"""SAM for the tail classes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_ltsam.hyperparameters import require_choice
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

REDUCTIONS = ("batch", "group")


@dataclass(frozen=True)
class ImbSAM(Method):
    """Imbalanced SAM: g = G(h) + tail_weight G(t, rho unit(G(t))), h and t the 0/1 weightings of head and tail.

    Args:
        rho: radius of the tail's perturbation, >= 0, or a schedule over training progress.
        tail_weight: factor of the tail's loss, >= 0; 1 is the paper, 2 the authors' current release.
        reduction: "batch" divides both losses by the batch size (the paper); "group" divides each by the number of
            its own samples in the batch (the ImbSAM baseline in the SSE-SAM repository).

    Cost: 2 forwards, 3 backwards.
    Source: Zhou et al. 2023a; Li et al. 2025 Eq. 1, Lyu et al. 2025 Eq. 4.
    Differs from the published code: its current release doubles the tail's loss; see `tail_weight`.
    """

    title: ClassVar = "ImbSAM"
    citations: ClassVar = ("zhou2023a", "li2025", "lyu2025")
    needs_classes: ClassVar[bool] = True
    needs_split: ClassVar[bool] = True

    rho: float | Schedule = 0.05
    tail_weight: float = 1.0
    reduction: str = "batch"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, rho=self.rho, tail_weight=self.tail_weight)
        require_choice(self, REDUCTIONS, reduction=self.reduction)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        rho = value_at(self.rho, step.progress)
        h, t = self._reduced(step.head), self._reduced(step.tail)
        g_head, g_tail = loss.gradients([h, t])
        return g_head + self.tail_weight * loss.gradient(t, at=rho * g_tail.unit())

    def _reduced(self, group: Tensor) -> Tensor:
        if self.reduction == "batch":
            return group
        return group * len(group) / group.sum().clamp(min=1)  # an empty group stays zero
