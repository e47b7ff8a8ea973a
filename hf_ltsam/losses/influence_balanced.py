"""A loss that weighs every sample by the inverse of its influence on the last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import POSITIVE, require, require_choice
from hf_ltsam.losses.protocol import FeatureLoss, cross_entropy, mean_over, wide
from hf_ltsam.losses.reweighting import SCHEMES, class_weights


@dataclass(frozen=True)
class InfluenceBalanced(FeatureLoss):
    """Influence-balanced loss: l = lam_y CE(z, y) / (||p - e_y||_1 ||h||_1 + epsilon), with p = softmax(z)
    and h the input of the last layer.

    The divisor is the L1 norm of the gradient of CE with respect to the last layer's weight, so that this gradient of l
    has norm lam_y for every sample (but for epsilon). lam_c is alpha times a class weight of mean 1 over classes.

    Args:
        alpha: > 0. With the small norms of h of a ResNet-32, 1000 (the code) brings l to the size of CE.
        epsilon: > 0, keeps the weight of a fitted sample finite.
        class_weighting: "inverse", proportional to 1/n_c (the paper); "effective_number" (its "IB + CB"); "none".
        through_weight: whether gradients flow through the divisor too. False: it is a weight, and l has the property
            above. True: l is differentiated as it stands, as the published code does.

    Train with cross-entropy first: `loss_start=0.5`, or 100 of 200 epochs, in the published code. Perturbed passes take the
    weight at the perturbed weights. Needs a model with one linear last layer.
    Source: Park et al. 2021 Sec. 3; with SAM Rangwani et al. 2022 App. E.
    Differs from the published code: there gradients flow through the divisor (`through_weight=True`). Differs from the
    paper, as the code does: lam has mean alpha over classes, not sum alpha.
    """

    title: ClassVar = "IB"
    citations: ClassVar = ("park2021",)

    alpha: float = 1000.0  # both values: the published code of Park et al. 2021
    epsilon: float = 1e-3
    class_weighting: str = "inverse"
    through_weight: bool = False

    def __post_init__(self) -> None:
        require(POSITIVE, self, alpha=self.alpha, epsilon=self.epsilon)
        require_choice(self, SCHEMES, class_weighting=self.class_weighting)
        if not isinstance(self.through_weight, bool):
            raise ValueError(
                f"InfluenceBalanced(through_weight=...) must be true or false, got {self.through_weight!r}."
            )

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics, features: Tensor) -> Tensor:
        logits, features = wide(logits), wide(features)
        lam = self.alpha * class_weights(self.class_weighting, statistics, logits)  # (C,)
        length = features.abs().sum(1)  # ||h||_1 (n,)
        if are_soft(labels):
            return mean_over(labels, self._balanced(lam, -logits.log_softmax(1), length.unsqueeze(1)))
        return self._balanced(lam[labels], cross_entropy(logits, labels), length)

    def _balanced(self, lam: Tensor, minus_log_p: Tensor, length: Tensor) -> Tensor:
        error = -2 * torch.expm1(-minus_log_p)  # ||p - e_y||_1 = 2 (1 - p_y), without cancellation
        influence = error * length.to(error.dtype)
        if not self.through_weight:
            influence = influence.detach()
        return lam * minus_log_p / (influence + self.epsilon)
