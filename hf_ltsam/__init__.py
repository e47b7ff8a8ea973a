"""Sharpness-aware minimization for long-tailed recognition, inside the Hugging Face Trainer."""

from .class_statistics import ClassStatistics
from .config import LTSamConfig
from .losses import LOSSES, make_loss
from .methods import METHODS, make_method
from .models import CifarResNetConfig, CifarResNetForImageClassification
from .trainer import LTSamTrainer

__version__ = "0.1.0"

__all__ = [
    "LOSSES", "METHODS", "CifarResNetConfig", "CifarResNetForImageClassification", "ClassStatistics", "LTSamConfig",
    "LTSamTrainer", "make_loss", "make_method",
]
