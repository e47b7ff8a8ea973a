"""SAM for each class at its own radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.hyperparameters import UNIT_INTERVAL, require, require_choice
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import TINY, WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

NORMS = ("global", "per_tensor")
CLASS_WEIGHTINGS = ("none", "inverse_prior")
PARAMETERS = ("classifier", "all")


@dataclass(frozen=True)
class CCSAM(Method):
    """Class-conditional SAM: g = (1 - mix) G(1) + mix sum over classes c in the batch of G(v_c 1_c, eps_c).

    eps_c = scale sqrt(k) rho_c* unit(M g_c), with rho_c* = (||M w|| / (2 ||M g_c||))^(1/2) (k (n_c - 1))^(-1/4),
    g_c the gradient of the class's mean loss in the batch, M keeping the k perturbed parameters, n_c the number of training
    images. Soft labels have their shares in 1_c and in that mean. A class without a gradient is not perturbed, and n_c - 1
    is at least 1.

    Args:
        scale: factor of every radius, >= 0, or a schedule over training progress; 0 with `class_weighting="none"` is SGD.
        mix: share of the perturbed gradient, in [0, 1]; 0 is SGD.
        norm: "global", over all perturbed parameters (the paper); "per_tensor", ||M g_c|| and unit(M g_c) for each
            parameter tensor on its own (the published code), ||M w|| and k over all of them all the same.
        class_weighting: v_c, "none" for 1 or "inverse_prior" for 1/pi_c (Li et al. 2025 Eq. 2).
        parameters: what is perturbed, "classifier" or "all". The update is that of all weights either way.

    Cost: 1 forward, 1 backward through the trunk, whatever the number of classes, where a linear or cosine classifier is
        perturbed; with ascent_scope="step" over several micro-batches 2 forwards (less the last micro-batch's), since g_c
        needs all of them before the first loss, and over processes the exchange of the classifier's input (n, D). For all
        weights 2 C_b of each for the C_b classes in the batch, of their own rows where samples do not interact.
    Source: Zhou et al. 2023b Eq. 1, 15 and 16, A.2 (scale), A.5 (classifier only); Li et al. 2025
        Eq. 2 and 3, there without sqrt(k).
    Differs from the published code: its norms are per tensor; a class without a gradient gives NaN there, and one with
        a single image a division by zero; its perturbed loss takes unmixed labels under mixup.
    """

    title: ClassVar = "CC-SAM"
    citations: ClassVar = ("zhou2023b", "li2025")
    needs_classes: ClassVar[bool] = True

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
        C = step.statistics.num_classes if self.needs_classifier else None
        g = loss.class_gradients(step.labels, C)  # g_c, of the class-mean losses
        classes = g.members.classes
        eps = g.scaled(self._factors(loss, step, classes, g.norms()))
        v = [self.mix * self._class_weight(step.statistics, c) for c in classes]
        return loss.class_gradient(v, at=eps, plain=1 - self.mix)

    def _class_weight(self, statistics: ClassStatistics, c: int) -> float:
        return statistics.total / statistics.counts[c] if self.class_weighting == "inverse_prior" else 1.0

    def _factors(self, loss: LossLandscape, step: StepContext, classes: Sequence[int], norms: Tensor) -> Tensor:
        """||eps_c|| / ||M g_c|| of each class (m, 1), or of each of its parameters (m, T), from their norms (m, T)."""
        w = loss.weights.tensors
        chosen = [True] * len(w) if not self.needs_classifier else loss.classifier(step.statistics.num_classes)  # M
        k = sum(t.numel() for t, perturbed in zip(w, chosen) if perturbed)
        length, scale = loss.weights.only(chosen).norm(), value_at(self.scale, step.progress)
        others = [max(step.statistics.counts[c] - 1, 1) for c in classes]  # n_c - 1
        radii = torch.tensor([scale * math.sqrt(k) * (k * n) ** -0.25 for n in others], dtype=step.like.dtype).to(norms)
        if self.norm == "global":
            norms = norms.norm(dim=1, keepdim=True)
        return radii[:, None] * (length / (2 * norms + TINY)).sqrt() / (norms + TINY)
