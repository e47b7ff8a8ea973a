"""Second stages: the classifier of a trained model, trained or rescaled again while all else stays as it is."""

from hf_ltsam.training.second_stage.heads import Head, ScaledHead
from hf_ltsam.training.second_stage.stages import SECOND_STAGES, SecondStage, make_second_stage
from hf_ltsam.training.second_stage.tau import TauChoice, choose_tau, hold_out, tau_normalise
from hf_ltsam.training.second_stage.trainer import SecondStageTrainer, check_passes, first_stage_facts
from hf_ltsam.training.second_stage.trunk import CachedFeatures, Trunk

__all__ = [
    "SECOND_STAGES",
    "CachedFeatures",
    "Head",
    "ScaledHead",
    "SecondStage",
    "SecondStageTrainer",
    "TauChoice",
    "Trunk",
    "check_passes",
    "choose_tau",
    "first_stage_facts",
    "hold_out",
    "make_second_stage",
    "tau_normalise",
]
