"""Every method by name. A new one is a file in this folder and a line in `METHODS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_ltsam.hyperparameters import build
from hf_ltsam.methods.cc_sam import CCSAM
from hf_ltsam.methods.focal_sam import FocalSAM, MomentumFocalSAM
from hf_ltsam.methods.friendly_sam import FriendlySAM
from hf_ltsam.methods.gnm import GNM
from hf_ltsam.methods.gradient_norm import WSAM, GradientNorm
from hf_ltsam.methods.gsa import GSA
from hf_ltsam.methods.gsam import GSAM
from hf_ltsam.methods.imbsam import ImbSAM
from hf_ltsam.methods.le_sam import LESAM
from hf_ltsam.methods.looksam import LookSAM
from hf_ltsam.methods.lpf_sgd import LPFSGD
from hf_ltsam.methods.model_perturbation import ModelPerturbation
from hf_ltsam.methods.msam import MSAM
from hf_ltsam.methods.pgd import PGD
from hf_ltsam.methods.protocol import Method
from hf_ltsam.methods.sam import ASAM, SAM
from hf_ltsam.methods.sgd import SGD
from hf_ltsam.methods.sse_sam import SSESAM, SAMExt
from hf_ltsam.methods.xsam import XSAM
from hf_ltsam.schedules import schedule_from_config

METHODS: dict[str, type[Method]] = {
    "sgd": SGD,
    "sam": SAM,
    "asam": ASAM,
    "gradient_norm": GradientNorm,
    "wsam": WSAM,
    "gsam": GSAM,
    "looksam": LookSAM,
    "msam": MSAM,
    "friendly_sam": FriendlySAM,
    "le_sam": LESAM,
    "xsam": XSAM,
    "imbsam": ImbSAM,
    "sse_sam": SSESAM,
    "sam_ext": SAMExt,
    "focal_sam": FocalSAM,
    "momentum_focal_sam": MomentumFocalSAM,
    "gsa": GSA,
    "cc_sam": CCSAM,
    "pgd": PGD,
    "lpf_sgd": LPFSGD,
    "model_perturbation": ModelPerturbation,
    "gnm": GNM,
}

__all__ = [
    "ASAM",
    "CCSAM",
    "GNM",
    "GSA",
    "GSAM",
    "LESAM",
    "LPFSGD",
    "METHODS",
    "MSAM",
    "PGD",
    "SAM",
    "SGD",
    "SSESAM",
    "WSAM",
    "XSAM",
    "FocalSAM",
    "FriendlySAM",
    "GradientNorm",
    "ImbSAM",
    "LookSAM",
    "Method",
    "ModelPerturbation",
    "MomentumFocalSAM",
    "SAMExt",
    "make_method",
]


def make_method(name: str, **hyperparameters: Any) -> Method:
    """A method by its registry name.

    Args:
        name: a key of `METHODS`.
        hyperparameters: the arguments of its class; one that is a mapping is read as a schedule (`schedules.py`).

    Raises:
        ValueError: unknown name or hyper-parameter (with the nearest valid ones), or a value out of its domain.
    """
    values = {k: schedule_from_config(v) if isinstance(v, Mapping) else v for k, v in hyperparameters.items()}
    method: Method = build("method", METHODS, name, values)
    return method
