"""What a training loss is, and what all of them are made of. Shapes: n batch, C classes, D features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import Documented


class Loss(Protocol):
    """`(logits (n, C), labels, statistics) -> losses (n,)`.

    Labels are class indices (n,), or soft ones q (n, C), in which a loss is linear: l(z, q) = sum over c of q_c l(z, c), the
    mean over the classes that a sample is of. Class weights w are taken inside of that sum: l(z, w q).

    Losses are computed in float32, or in float64 for float64 logits.
    """

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor: ...


class FeatureLoss(Documented, ABC):
    """A loss that also reads the input of the classifier: `(logits, labels, statistics, features (n, D)) -> losses (n,)`.

    A class of this base is all it takes: the trainer captures the features in every pass (`features.py`), and refuses
    models whose classifier cannot be told from their other layers.
    """

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics, features: Tensor) -> Tensor:
        """losses (n,); `features` are differentiable, like the logits."""


@dataclass(frozen=True)
class ModelLoss(Documented):
    """The number that the model itself returns for a batch, or `compute_loss` of a Trainer makes of its outputs.

    It says nothing of samples and classes, so nothing here weights them; the trainer makes it (`training/steps`).
    """


def takes_several_labels(loss: object) -> bool:
    """Whether it takes a 0 or 1 for every class (n, C), not the shares of classes."""
    return bool(getattr(loss, "several_labels", False))


def wide(values: Tensor) -> Tensor:
    """In float32 at least: in bfloat16 log pi of 1,280 and of 1,270 images would be one number."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y (n,); of soft labels (n, C) its mean over them."""
    return F.cross_entropy(logits, labels.to(logits.dtype) if are_soft(labels) else labels, reduction="none")


def mean_over(labels: Tensor, losses: Tensor) -> Tensor:
    """sum over c of q_c l_c (n,).

    Args:
        labels: soft, q (n, C).
        losses: l_c of every sample as one of class c (n, C).
    """
    return (labels.to(losses.dtype) * losses).sum(1)


def probability_missing(minus_log_p: Tensor) -> Tensor:
    """1 - p without cancellation, and away from 0, where powers and logarithms have no derivative."""
    return -torch.expm1(-minus_log_p).clamp_max(-torch.finfo(minus_log_p.dtype).tiny)
