"""SAM for each class at its own radius."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from torch import Tensor

from ..class_statistics import ClassStatistics
from ..context import StepContext
from ..domains import UNIT_INTERVAL, require
from ..landscape import LossLandscape
from ..schedules import Schedule, value_at
from ..vector import TINY, WeightVector
from .protocol import Method, require_choice, require_non_negative

NORMS = ("global", "per_tensor")
CLASS_WEIGHTINGS = ("none", "inverse_prior")
PARAMETERS = ("classifier", "all")


@dataclass(frozen=True)
class CCSAM(Method):
    """Class-conditional SAM: g = (1 - mix) G(1) + mix sum over classes c in the batch of G(v_c 1_c, eps_c).

    eps_c = scale sqrt(k) rho_c* unit(M g_c), with rho_c* = (||M w|| / (2 ||M g_c||))^(1/2) (k (n_c - 1))^(-1/4),
    g_c the gradient of the class's mean loss in the batch, M keeping the k perturbed parameters, n_c the number of
    training images. A class without a gradient is not perturbed, and n_c - 1 is at least 1.

    Args:
        scale: factor of every radius, >= 0, or a schedule of the progress; 0 with `class_weighting="none"` is SGD.
        mix: share of the perturbed gradient, in [0, 1]; 0 is SGD.
        norm: "global", over all perturbed parameters (the paper); "per_tensor", ||M g_c|| and unit(M g_c) for each
            parameter tensor on its own (the published code), ||M w|| and k over all of them all the same.
        class_weighting: v_c, "none" for 1 or "inverse_prior" for 1/pi_c (Li et al. 2025 Eq. 2).
        parameters: what is perturbed, "classifier" or "all". The update is that of all weights either way.

    Cost: 1 + C_b forwards, 2 C_b backwards, for the C_b classes in the batch.
    Source: Zhou et al. 2023b Eq. 1, 15 and 16, A.2 (scale), A.5 (classifier only); Li et al. 2025
        Eq. 2 and 3, there without sqrt(k).
    Differs from the published code: its norms are per tensor; a class without a gradient gives NaN there, and one with
        a single image a division by zero; its perturbed loss takes unmixed labels under mixup, which is refused here.
    """

    scale: float | Schedule = 1e-2
    mix: float = 1.0
    norm: str = "global"
    class_weighting: str = "none"
    parameters: str = "classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, scale=self.scale)
        require(UNIT_INTERVAL, self, mix=self.mix)
        require_choice(self, NORMS, norm=self.norm)
        require_choice(self, CLASS_WEIGHTINGS, class_weighting=self.class_weighting)
        require_choice(self, PARAMETERS, parameters=self.parameters)

    @property
    def needs_classifier(self) -> bool:
        return self.parameters == "classifier"

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        classes = sorted(set(step.labels.tolist()))        # those in the batch
        members = [(step.labels == c).to(step.like.dtype) for c in classes]        # 1_c (n,) each
        g = loss.gradients([one * (len(one) / one.sum()) for one in members])        # g_c, of the class-mean losses
        v = [self._class_weight(step.statistics, c) for c in classes]
        eps = self._offsets(loss, step, classes, g)
        perturbed: WeightVector = reduce(add, (loss.gradient(v_c * one, at=e) for v_c, one, e in zip(v, members, eps)))
        if self.mix == 1:
            return perturbed
        plain: WeightVector = reduce(add, (one.mean() * g_c for one, g_c in zip(members, g)))        # G(1)
        return (1 - self.mix) * plain + self.mix * perturbed

    def _class_weight(self, statistics: ClassStatistics, c: int) -> float:
        return statistics.total / statistics.counts[c] if self.class_weighting == "inverse_prior" else 1.0

    def _offsets(
        self, loss: LossLandscape, step: StepContext, classes: Sequence[int], g: Sequence[WeightVector]
    ) -> Iterator[WeightVector]:
        """eps_c of each class, one at a time."""
        everything = [True] * len(loss.weights.tensors)
        chosen = loss.classifier(step.statistics.num_classes) if self.needs_classifier else everything        # M
        w = loss.weights.only(chosen)
        k = sum(t.numel() for t, perturbed in zip(w.tensors, chosen) if perturbed)
        length, scale = w.norm(), value_at(self.scale, step.progress)
        for c, g_c in zip(classes, g):
            others = max(step.statistics.counts[c] - 1, 1)        # n_c - 1
            yield (scale * math.sqrt(k) * (k * others) ** -0.25) * self._direction(g_c.only(chosen), length)

    def _direction(self, g: WeightVector, length: Tensor) -> WeightVector:
        """(||M w|| / (2 ||M g||))^(1/2) unit(M g), by the norm of all or of each parameter."""
        if self.norm == "global":
            return (length / (2 * g.norm() + TINY)).sqrt() * g.unit()
        parts = [WeightVector([t], g.scale) for t in g.tensors]
        return WeightVector([((length / (2 * p.norm() + TINY)).sqrt() * p.unit()).materialize()[0] for p in parts])
