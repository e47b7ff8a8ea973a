"""Cross-entropy, and its forms with a weight for each sample or class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import BELOW_ONE, NON_NEGATIVE, Documented, require
from hf_ltsam.losses.protocol import Loss, cross_entropy, mean_over, probability_missing, wide
from hf_ltsam.losses.reweighting import BETA, class_weights


@dataclass(frozen=True)
class CrossEntropy(Documented, Loss):
    """Cross-entropy: l = -log softmax(z)_y."""

    title: ClassVar = "CE"

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        return cross_entropy(wide(logits), labels)


@dataclass(frozen=True)
class Focal(Documented, Loss):
    """Focal loss: l = -(1 - p_y)^gamma log p_y with p = softmax(z).

    Args:
        gamma: focus on samples that are not yet fitted, >= 0; 0 is cross-entropy.

    Source: Lin et al. 2017 Eq. 4.
    """

    title: ClassVar = "Focal"
    citations: ClassVar = ("lin2017",)

    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, gamma=self.gamma)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        if are_soft(labels):
            return mean_over(labels, self._focused(-wide(logits).log_softmax(1)))
        return self._focused(cross_entropy(wide(logits), labels))

    def _focused(self, minus_log_p: Tensor) -> Tensor:
        return probability_missing(minus_log_p) ** self.gamma * minus_log_p


@dataclass(frozen=True)
class ClassBalanced(Documented, Loss):
    """Class-balanced loss: l = w_y CE(z, y), with w_c proportional to (1 - beta)/(1 - beta^n_c) and of mean 1 over classes.

    Args:
        beta: in [0, 1); 0 is cross-entropy, towards 1 the weights become those of the inverse frequency.

    Source: Cui et al. 2019 Sec. 4.
    """

    title: ClassVar = "CB"
    citations: ClassVar = ("cui2019",)

    beta: float = BETA

    def __post_init__(self) -> None:
        require(BELOW_ONE, self, beta=self.beta)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        weights = class_weights("effective_number", statistics, logits, self.beta)  # (C,)
        if are_soft(labels):
            return cross_entropy(logits, weights * labels)
        return weights[labels] * cross_entropy(logits, labels)
