"""Second stages: the classifier of a trained model, trained or rescaled again while all else stays as it is."""

from .heads import Head, ScaledHead
from .stages import SECOND_STAGES, SecondStage, make_second_stage
from .tau import TauChoice, choose_tau, hold_out, tau_normalise
from .trainer import SecondStageTrainer
from .trunk import CachedFeatures, Trunk

__all__ = [
    "SECOND_STAGES", "CachedFeatures", "Head", "ScaledHead", "SecondStage", "SecondStageTrainer", "TauChoice", "Trunk",
    "choose_tau", "hold_out", "make_second_stage", "tau_normalise",
]
