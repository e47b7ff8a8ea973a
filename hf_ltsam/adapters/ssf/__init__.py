"""SSF (Lian et al. 2022): scale and shift after every affine layer."""

from .config import SSFConfig
from .layer import SSFLayer
from .model import SSFModel

__all__ = ["SSFConfig", "SSFLayer", "SSFModel"]
