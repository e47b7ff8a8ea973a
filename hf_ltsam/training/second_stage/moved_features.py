"""The loss of CC-SAM's second stage. Shapes: n batch, D features, C classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.landscape.vector import TINY
from hf_ltsam.losses.protocol import Loss, wide
from hf_ltsam.training.second_stage.heads import Head

if TYPE_CHECKING:
    from hf_ltsam.training.second_stage.stages import CCSAMStage


class MovedFeatures:
    """l_i = alpha w_c l(moved x_i) + (1 - alpha) l(x_i) for a sample i of class c.

    Args:
        settings: w_c and alpha.
        base: l.
        head: what is trained; it has just been given the features x.
        epoch: of the training, from 0.
    """

    def __init__(self, settings: CCSAMStage, base: Loss, head: Head, epoch: Callable[[], int]) -> None:
        self.settings, self.base, self.head, self.epoch = settings, base, head, epoch

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        w = self.settings.weights(statistics, wide(logits))[labels]  # (n,)
        features = self.head.given.detach()
        with torch.enable_grad():
            x = features.requires_grad_()
            d = class_directions(x, self.base(self.head.logits(x), labels, statistics), labels, statistics.num_classes)
        moved = (features.detach() + w[:, None] * d).to(features.dtype)
        alpha = self.settings.alpha(self.epoch())
        moved_losses = w * self.base(self.head.logits(moved), labels, statistics)
        return alpha * moved_losses + (1 - alpha) * self.base(logits, labels, statistics)


def class_directions(features: Tensor, losses: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Of each sample the row of d_c (n, D), its class's: the gradient of the class's mean loss, over its Frobenius norm.

    Args:
        features: (n, D), what `losses` were computed from.
        losses: (n,).
        labels: (n,).
    """
    n_c = torch.bincount(labels, minlength=num_classes)[labels]
    (g,) = torch.autograd.grad((losses / n_c).sum(), features)
    g = wide(g)
    squares = g.new_zeros(num_classes).index_add_(0, labels, g.square().sum(dim=1))  # (C,)
    return g / (squares.sqrt() + TINY)[labels, None]
