"""Cross-entropy with labels that are smoothed class by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics, per_class
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import BELOW_ONE, Documented, require, require_choice
from hf_ltsam.losses.protocol import Loss, mean_over, wide


@dataclass(frozen=True)
class LabelAwareSmoothing(Documented, Loss):
    """Label-aware smoothing: l = -(1 - eps_y) log p_y - eps_y/(C - 1) sum over j != y of log p_j, with p = softmax(z).

    eps_c rises with n_c, from `tail` for the smallest class to `head` for the largest, along a sine ("concave"), a line
    ("linear"), or a sine from below ("convex"). Where all classes are of one size it is `tail`.

    Args:
        head, tail: smoothing of the largest and of the smallest class, in [0, 1); 0 for both is cross-entropy. The
            published code at ratio 100: 0.3 and 0 on CIFAR-10-LT, 0.4 and 0.1 on CIFAR-100-LT, less at smaller ratios,
            when the classifier is re-trained.
        shape: "concave", "linear" or "convex".

    Source: Zhong et al. 2021 (MiSLAS), Sec. 3.2.
    Differs from the published code: it spreads eps_y over all C classes, y among them.
    """

    title: ClassVar = "LAS"
    citations: ClassVar = ("zhong2021",)

    head: float = 0.3
    tail: float = 0.0
    shape: str = "concave"

    def __post_init__(self) -> None:
        require(BELOW_ONE, self, head=self.head, tail=self.tail)
        require_choice(self, _RISES, shape=self.shape)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        logits = wide(logits)
        eps = _smoothing(statistics, logits, self.head, self.tail, self.shape)  # (C,)
        minus_log_p = -logits.log_softmax(1)  # (n, C)
        if are_soft(labels):
            others = (minus_log_p.sum(1, keepdim=True) - minus_log_p) / (logits.shape[1] - 1)
            return mean_over(labels, (1 - eps) * minus_log_p + eps * others)
        eps = eps[labels]  # (n,)
        own = minus_log_p.gather(1, labels.unsqueeze(1)).squeeze(1)  # (n,)
        others = (minus_log_p.sum(1) - own) / (logits.shape[1] - 1)
        return (1 - eps) * own + eps * others


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
