"""Every method by name. A new one is a file in this folder and a line in `METHODS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry import build
from ..schedules import schedule_from_config
from .focal_sam import FocalSAM
from .imbsam import ImbSAM
from .protocol import Method
from .sam import ASAM, SAM
from .sgd import SGD
from .sse_sam import SSESAM, SAMExt

METHODS: dict[str, type[Method]] = {
    "sgd": SGD,
    "sam": SAM,
    "asam": ASAM,
    "imbsam": ImbSAM,
    "sse_sam": SSESAM,
    "sam_ext": SAMExt,
    "focal_sam": FocalSAM,
}

__all__ = ["ASAM", "METHODS", "SAM", "SGD", "SSESAM", "FocalSAM", "ImbSAM", "Method", "SAMExt", "make_method"]


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
