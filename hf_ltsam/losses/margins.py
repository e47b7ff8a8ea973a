"""Cross-entropy of logits that are shifted or scaled class by class, by the number of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics, per_class
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import NON_NEGATIVE, POSITIVE, Documented, require
from hf_ltsam.losses.protocol import Loss, cross_entropy, mean_over, probability_missing, wide


@dataclass(frozen=True)
class LDAM(Documented, Loss):
    """Label-distribution-aware margins: l = CE(z - s Delta_y e_y, y) with the margins Delta_c = max_m (n_c / n_min)^(-1/4).

    Logits must be s times a cosine, as `models.CosineClassifier(scale=s)` gives them: margins between unbounded
    logits mean nothing, since the network can scale them away.

    Args:
        max_m: the margin of the smallest class, between cosines, >= 0; 0.5 on CIFAR, 0.3 on ImageNet-LT and
            iNaturalist (Rangwani et al. 2022 App. C).
        s: the scale of the cosine head, > 0.

    Source: Cao et al. 2019; Rangwani et al. 2022 Eq. 1; Lyu et al. 2025 Eq. 98.
    """

    title: ClassVar = "LDAM"
    citations: ClassVar = ("cao2019",)

    max_m: float = 0.5
    s: float = 30.0

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, max_m=self.max_m)
        require(POSITIVE, self, s=self.s)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        margins = _ldam_margins(statistics, logits, self.max_m)  # (C,)
        if are_soft(labels):
            return mean_over(labels, with_margins(logits, self.s * margins))
        shift = self.s * margins[labels].unsqueeze(1)  # (n, 1)
        return cross_entropy(logits.scatter_add(1, labels.unsqueeze(1), -shift), labels)


@dataclass(frozen=True)
class LogitAdjustment(Documented, Loss):
    """Logit adjustment: l = CE(z + tau log pi, y).

    Args:
        tau: strength, >= 0; 0 is cross-entropy. 1 in Li et al. 2025, 0.75 in the code of Lyu et al. 2025.

    Source: Menon et al. 2021 Eq. 10; Lyu et al. 2025 Eq. 99, with w_y = 1.
    """

    title: ClassVar = "LA"
    citations: ClassVar = ("menon2021",)

    tau: float = 1.0

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, tau=self.tau)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        return cross_entropy(logits + self.tau * statistics.tensor("log_prior", logits), labels)


@dataclass(frozen=True)
class BalancedSoftmax(Documented, Loss):
    """Balanced softmax: l = -log(n_y exp(z_y) / sum_j n_j exp(z_j)).

    This is `LogitAdjustment(tau=1)` under its other name.

    Source: Ren et al. 2020 Sec. 3.
    """

    title: ClassVar = "BS"
    citations: ClassVar = ("ren2020",)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        # log pi differs from log n by one number for all classes, which softmax does not see
        return cross_entropy(logits + statistics.tensor("log_prior", logits), labels)


@dataclass(frozen=True)
class VectorScaling(Documented, Loss):
    """Vector scaling: l = CE(gamma_c z_c + Delta_c, y) with gamma_c = (n_c / n_max)^gamma and Delta_c = tau log pi_c.

    Args:
        gamma: strength of the multiplicative part, >= 0; 0 is `LogitAdjustment(tau)`.
        tau: strength of the additive part, >= 0.

    Source: Kini et al. 2021; Rangwani et al. 2022 Eq. 3; Lyu et al. 2025 Eq. 100, with w_y = 1 (re-weighting
        stands beside the losses).
    """

    title: ClassVar = "VS"
    citations: ClassVar = ("kini2021",)

    gamma: float = 0.05  # both values: Rangwani et al. 2022 App. C, CIFAR-10-LT and CIFAR-100-LT
    tau: float = 0.75

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, gamma=self.gamma, tau=self.tau)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        scales = _vector_scales(statistics, logits, self.gamma)  # (C,)
        return cross_entropy(scales * logits + self.tau * statistics.tensor("log_prior", logits), labels)


def with_margins(logits: Tensor, margins: Tensor | float) -> Tensor:
    """CE(z - Delta_c e_c, c) for every class c (n, C), of margins Delta (C,): log(1 + exp(Delta_c) (1 - p_c) / p_c)."""
    minus_log_p = -logits.log_softmax(1)
    return F.softplus(margins + minus_log_p + probability_missing(minus_log_p).log())


@per_class
def _ldam_margins(counts: Tensor, max_m: float) -> Tensor:
    return max_m * (counts / counts.min()) ** -0.25


@per_class
def _vector_scales(counts: Tensor, gamma: float) -> Tensor:
    return (counts / counts.max()) ** gamma
