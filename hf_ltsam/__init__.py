"""Sharpness-aware minimization for long-tailed recognition, inside the Hugging Face Trainer.

Every name is imported when it is asked for first (PEP 562): `import hf_ltsam` waits for neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_ltsam.class_statistics import ClassStatistics
    from hf_ltsam.cli.predict.command import predict
    from hf_ltsam.landscape import LossLandscape
    from hf_ltsam.losses import LOSSES, make_loss
    from hf_ltsam.methods import METHODS, make_method
    from hf_ltsam.models import CifarResNetConfig, CifarResNetForImageClassification
    from hf_ltsam.runs.model import load_run
    from hf_ltsam.training.config import LTSamConfig
    from hf_ltsam.training.durable_trainer import DurableTrainer
    from hf_ltsam.training.steps.sam_trainer import SamTrainerMixin
    from hf_ltsam.training.trainer import LTSamTrainer

# hf_ltsam.methods and its like, without an import of their own
_SUBPACKAGES = ("adapters", "losses", "methods", "models")

__version__ = "0.1.0"

_HOMES = {
    "LOSSES": "hf_ltsam.losses",
    "METHODS": "hf_ltsam.methods",
    "CifarResNetConfig": "hf_ltsam.models",
    "CifarResNetForImageClassification": "hf_ltsam.models",
    "ClassStatistics": "hf_ltsam.class_statistics",
    "DurableTrainer": "hf_ltsam.training.durable_trainer",
    "LTSamConfig": "hf_ltsam.training.config",
    "LTSamTrainer": "hf_ltsam.training.trainer",
    "LossLandscape": "hf_ltsam.landscape",
    "SamTrainerMixin": "hf_ltsam.training.steps.sam_trainer",
    "load_run": "hf_ltsam.runs.model",
    "make_loss": "hf_ltsam.losses",
    "make_method": "hf_ltsam.methods",
    "predict": "hf_ltsam.cli.predict.command",
}

__all__ = [
    "LOSSES",
    "METHODS",
    "CifarResNetConfig",
    "CifarResNetForImageClassification",
    "ClassStatistics",
    "DurableTrainer",
    "LTSamConfig",
    "LTSamTrainer",
    "LossLandscape",
    "SamTrainerMixin",
    "load_run",
    "make_loss",
    "make_method",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
