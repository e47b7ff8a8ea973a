"""G(a, eps): the gradient of weighted losses at an offset, and everything that makes it cheap.

`LossLandscape` evaluates it; it is imported when it is asked for first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_ltsam.landscape.landscape import LossLandscape

__all__ = ["LossLandscape"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("hf_ltsam.landscape.landscape"), name)
