"""Logits under noise, the more the rarer the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics, per_class
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import NON_NEGATIVE, POSITIVE, Documented, require
from hf_ltsam.losses.margins import with_margins
from hf_ltsam.losses.protocol import Loss, cross_entropy, mean_over, wide

DEVIATION = 1 / 3  # of the noise before it is cut off at 1 and its sign dropped (published code)


@dataclass(frozen=True)
class GaussianClouded(Documented, Loss):
    """Gaussian clouded logits: l = CE(z - s (noise r |xi| + m e_y), y) with r_c = log(n_max / n_c) / log(n_max / n_min).

    xi is normal with standard deviation 1/3, cut off at 1, one number for each sample and class. Logits must be s times a
    cosine, as for LDAM. In an evaluation, where no gradient is asked for, nothing is drawn and xi is zero.

    Args:
        noise: amplitude for the rarest class, between cosines, >= 0; 0 leaves the margin alone. 0.5 in the published code's
            first stage on CIFAR.
        m: margin of the true class, between cosines, >= 0; 0 in that stage.
        s: the scale of the cosine head, > 0.

    Source: Li et al. 2022 (GCL); on CIFAR-10-LT with CC-SAM Zhou et al. 2023b Table 4.
    Differs from the published code: nothing is drawn in an evaluation; its second stage is one of `ltsam decouple`.
    """

    title: ClassVar = "GCL"
    citations: ClassVar = ("li2022", "zhou2023b")

    noise: float = 0.5
    m: float = 0.0
    s: float = 30.0

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, noise=self.noise, m=self.m)
        require(POSITIVE, self, s=self.s)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        drawn = logits.requires_grad
        logits = wide(logits)
        soft = are_soft(labels)
        margin = torch.zeros_like(logits)  # (n, C)
        if not soft:
            margin = margin.scatter_(1, labels.unsqueeze(1), self.m)
        if drawn:
            xi = (torch.randn_like(logits) * DEVIATION).abs().clamp(max=1)
            margin = margin + self.noise * _rarity(statistics, logits) * xi
        clouded = logits - self.s * margin
        if soft:
            return mean_over(labels, with_margins(clouded, self.s * self.m))
        return cross_entropy(clouded, labels)


@per_class
def _rarity(counts: Tensor) -> Tensor:
    """0 for the largest class, 1 for the smallest; 0 for all where they are alike."""
    distance = (counts.max() / counts).log()
    return distance / distance.max().clamp(min=torch.finfo(counts.dtype).tiny)
