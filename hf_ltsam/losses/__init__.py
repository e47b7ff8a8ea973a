"""Losses of each sample by name. A new one is a class in this folder and a line in `LOSSES`."""

from hf_ltsam.losses.influence_balanced import InfluenceBalanced
from hf_ltsam.losses.losses import (
    LDAM,
    LOSSES,
    BalancedSoftmax,
    ClassBalanced,
    CrossEntropy,
    Focal,
    LabelAwareSmoothing,
    LogitAdjustment,
    VectorScaling,
    make_loss,
)
from hf_ltsam.losses.protocol import FeatureLoss, Loss

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
