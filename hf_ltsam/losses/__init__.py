"""Losses of each sample by name. A new one is a class in this folder and a line in `LOSSES`.

A loss is a pure function of logits, labels and class statistics. It never reduces, so that a method can weight its samples.
Class weights that are deferred to a later part of training are in `reweighting.py`.
"""

from __future__ import annotations

from typing import Any

from hf_ltsam.hyperparameters import Documented, build
from hf_ltsam.losses.binary import BinaryCrossEntropy
from hf_ltsam.losses.cross_entropy import ClassBalanced, CrossEntropy, Focal
from hf_ltsam.losses.gaussian_clouded import GaussianClouded
from hf_ltsam.losses.influence_balanced import InfluenceBalanced
from hf_ltsam.losses.margins import LDAM, BalancedSoftmax, LogitAdjustment, VectorScaling
from hf_ltsam.losses.protocol import FeatureLoss, Loss, ModelLoss
from hf_ltsam.losses.smoothing import LabelAwareSmoothing

LOSSES: dict[str, type[Documented]] = {
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "class_balanced": ClassBalanced,
    "ldam": LDAM,
    "logit_adjustment": LogitAdjustment,
    "balanced_softmax": BalancedSoftmax,
    "vector_scaling": VectorScaling,
    "label_aware_smoothing": LabelAwareSmoothing,
    "influence_balanced": InfluenceBalanced,
    "gaussian_clouded": GaussianClouded,
    "binary_cross_entropy": BinaryCrossEntropy,
}

MODEL = "model"  # the name of the model's own loss, which is none of samples

__all__ = [
    "LDAM",
    "LOSSES",
    "MODEL",
    "BalancedSoftmax",
    "BinaryCrossEntropy",
    "ClassBalanced",
    "CrossEntropy",
    "FeatureLoss",
    "Focal",
    "GaussianClouded",
    "InfluenceBalanced",
    "LabelAwareSmoothing",
    "LogitAdjustment",
    "Loss",
    "ModelLoss",
    "VectorScaling",
    "make_any_loss",
    "make_loss",
]


def make_loss(name: str, **arguments: Any) -> Loss | FeatureLoss:
    """A loss by its registry name, a key of `LOSSES`.

    Raises:
        ValueError: unknown name or argument (with the nearest valid ones), or a value outside its domain.
    """
    loss: Loss | FeatureLoss = build("loss", LOSSES, name, arguments)
    return loss


def make_any_loss(name: str, **arguments: Any) -> Loss | FeatureLoss | ModelLoss:
    """As `make_loss`, or by "model" the model's own loss."""
    loss: Loss | FeatureLoss | ModelLoss = build("loss", {**LOSSES, MODEL: ModelLoss}, name, arguments)
    return loss
