"""What a training loss is, and what all of them are made of. Shapes: n batch, C classes, D features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.hyperparameters import Documented


class Loss(Protocol):
    """`(logits (n, C), labels (n,), statistics) -> losses (n,)`.

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


def wide(values: Tensor) -> Tensor:
    """In float32 at least: in bfloat16 log pi of 1,280 and of 1,270 images would be one number."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y (n,)."""
    return F.cross_entropy(logits, labels, reduction="none")
