"""Training losses: pure functions of logits, labels and class statistics, one value per sample.

A loss never reduces, so that a method can weight its samples. Class weights that are deferred to a later part of
training are in `reweighting.py`. Shapes: n batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics, per_class
from hf_ltsam.hyperparameters import BELOW_ONE, NON_NEGATIVE, POSITIVE, build, nearest, require
from hf_ltsam.losses.influence_balanced import InfluenceBalanced
from hf_ltsam.losses.protocol import FeatureLoss, Loss, cross_entropy, wide
from hf_ltsam.losses.reweighting import BETA, class_weights


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """l = -log softmax(z)_y."""

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        return cross_entropy(wide(logits), labels)


@dataclass(frozen=True)
class Focal(Loss):
    """l = -(1 - p_y)^gamma log p_y with p = softmax(z).

    Args:
        gamma: focus on samples that are not yet fitted, >= 0; 0 is cross-entropy.

    Source: Lin et al. 2017 Eq. 4.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, gamma=self.gamma)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        minus_log_p = cross_entropy(wide(logits), labels)
        # 1 - p_y without cancellation, and away from 0, where the power has no derivative for gamma < 1
        missing = -torch.expm1(-minus_log_p).clamp_max(-torch.finfo(minus_log_p.dtype).tiny)
        return missing**self.gamma * minus_log_p


@dataclass(frozen=True)
class ClassBalanced(Loss):
    """l = w_y CE(z, y), with w_c proportional to (1 - beta)/(1 - beta^n_c) and of mean 1 over classes.

    Args:
        beta: in [0, 1); 0 is cross-entropy, towards 1 the weights become those of the inverse frequency.

    Source: Cui et al. 2019 Sec. 4.
    """

    beta: float = BETA

    def __post_init__(self) -> None:
        require(BELOW_ONE, self, beta=self.beta)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        weights = class_weights("effective_number", statistics, logits, self.beta)  # (C,)
        return weights[labels] * cross_entropy(logits, labels)


@dataclass(frozen=True)
class LDAM(Loss):
    """l = CE(z - s Delta_y e_y, y) with the margins Delta_c = max_m (n_c / n_min)^(-1/4).

    Logits must be s times a cosine, as `models.CosineClassifier(scale=s)` gives them: margins between unbounded
    logits mean nothing, since the network can scale them away.

    Args:
        max_m: the margin of the smallest class, between cosines, >= 0; 0.5 on CIFAR, 0.3 on ImageNet-LT and
            iNaturalist (Rangwani et al. 2022 App. C).
        s: the scale of the cosine head, > 0.

    Source: Cao et al. 2019; Rangwani et al. 2022 Eq. 1; Lyu et al. 2025 Eq. 98.
    """

    max_m: float = 0.5
    s: float = 30.0

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, max_m=self.max_m)
        require(POSITIVE, self, s=self.s)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        margins = _ldam_margins(statistics, logits, self.max_m)  # (C,)
        shift = self.s * margins[labels].unsqueeze(1)  # (n, 1)
        return cross_entropy(logits.scatter_add(1, labels.unsqueeze(1), -shift), labels)


@dataclass(frozen=True)
class LogitAdjustment(Loss):
    """l = CE(z + tau log pi, y).

    Args:
        tau: strength, >= 0; 0 is cross-entropy. 1 in Li et al. 2025, 0.75 in the code of Lyu et al. 2025.

    Source: Menon et al. 2021 Eq. 10; Lyu et al. 2025 Eq. 99, with w_y = 1.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, tau=self.tau)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        return cross_entropy(logits + self.tau * statistics.tensor("log_prior", logits), labels)


@dataclass(frozen=True)
class BalancedSoftmax(Loss):
    """l = -log(n_y exp(z_y) / sum_j n_j exp(z_j)): `LogitAdjustment(tau=1)` under its other name.

    Source: Ren et al. 2020 Sec. 3.
    """

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        # log pi differs from log n by one number for all classes, which softmax does not see
        return cross_entropy(logits + statistics.tensor("log_prior", logits), labels)


@dataclass(frozen=True)
class VectorScaling(Loss):
    """l = CE(gamma_c z_c + Delta_c, y) with gamma_c = (n_c / n_max)^gamma and Delta_c = tau log pi_c.

    Args:
        gamma: strength of the multiplicative part, >= 0; 0 is `LogitAdjustment(tau)`.
        tau: strength of the additive part, >= 0.

    Source: Kini et al. 2021; Rangwani et al. 2022 Eq. 3; Lyu et al. 2025 Eq. 100, with w_y = 1 (re-weighting
        stands beside the losses).
    """

    gamma: float = 0.05  # both values: Rangwani et al. 2022 App. C, CIFAR-10-LT and CIFAR-100-LT
    tau: float = 0.75

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, gamma=self.gamma, tau=self.tau)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        scales = _vector_scales(statistics, logits, self.gamma)  # (C,)
        return cross_entropy(scales * logits + self.tau * statistics.tensor("log_prior", logits), labels)


@dataclass(frozen=True)
class LabelAwareSmoothing(Loss):
    """l = -(1 - eps_y) log p_y - eps_y/(C - 1) sum over j != y of log p_j, with p = softmax(z).

    eps_c rises with n_c, from `tail` for the smallest class to `head` for the largest, along a sine ("concave"), a line
    ("linear"), or a sine from below ("convex"). Where all classes are of one size it is `tail`.

    Args:
        head, tail: smoothing of the largest and of the smallest class, in [0, 1); 0 for both is cross-entropy. The
            authors: 0.3 and 0 on CIFAR-10-LT, 0.4 and 0.1 on CIFAR-100-LT, when they re-train the classifier.
        shape: "concave", "linear" or "convex".

    Source: Zhong et al. 2021 (MiSLAS), Sec. 3.2.
    Differs from the published code: it spreads eps_y over all C classes, y among them.
    """

    head: float = 0.3
    tail: float = 0.0
    shape: str = "concave"

    def __post_init__(self) -> None:
        require(BELOW_ONE, self, head=self.head, tail=self.tail)
        if self.shape not in _RISES:
            raise ValueError(f"LabelAwareSmoothing(shape={self.shape!r}) does not exist.{nearest(self.shape, _RISES)}")

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        eps = _smoothing(statistics, logits, self.head, self.tail, self.shape)[labels]  # (n,)
        minus_log_p = -logits.log_softmax(1)  # (n, C)
        own = minus_log_p.gather(1, labels.unsqueeze(1)).squeeze(1)  # (n,)
        others = (minus_log_p.sum(1) - own) / (logits.shape[1] - 1)
        return (1 - eps) * own + eps * others


LOSSES: dict[str, type[Loss | FeatureLoss]] = {
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "class_balanced": ClassBalanced,
    "ldam": LDAM,
    "logit_adjustment": LogitAdjustment,
    "balanced_softmax": BalancedSoftmax,
    "vector_scaling": VectorScaling,
    "label_aware_smoothing": LabelAwareSmoothing,
    "influence_balanced": InfluenceBalanced,
}

__all__ = [
    "LDAM",
    "LOSSES",
    "BalancedSoftmax",
    "ClassBalanced",
    "CrossEntropy",
    "FeatureLoss",
    "Focal",
    "InfluenceBalanced",
    "LabelAwareSmoothing",
    "LogitAdjustment",
    "Loss",
    "VectorScaling",
    "make_loss",
]


def make_loss(name: str, **arguments: Any) -> Loss | FeatureLoss:
    """A loss by its registry name, a key of `LOSSES`.

    Raises:
        ValueError: unknown name or argument (with the nearest valid ones), or a value outside its domain.
    """
    loss: Loss | FeatureLoss = build("loss", LOSSES, name, arguments)
    return loss


@per_class
def _ldam_margins(counts: Tensor, max_m: float) -> Tensor:
    return max_m * (counts / counts.min()) ** -0.25


# r = (n_c - n_min) / (n_max - n_min) in [0, 1] -> the share of the way from tail to head
_RISES: dict[str, Callable[[Tensor], Tensor]] = {
    "concave": lambda r: torch.sin(r * math.pi / 2),
    "linear": lambda r: r,
    "convex": lambda r: 1 + torch.sin(1.5 * math.pi + r * math.pi / 2),
}


@per_class
def _smoothing(counts: Tensor, head: float, tail: float, shape: str) -> Tensor:
    r = (counts - counts.min()) / (counts.max() - counts.min()).clamp_min(1)
    return tail + (head - tail) * _RISES[shape](r)


@per_class
def _vector_scales(counts: Tensor, gamma: float) -> Tensor:
    return (counts / counts.max()) ** gamma
