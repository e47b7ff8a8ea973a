"""Visual prompt tuning (Jia et al. 2022): learned tokens beside those of the patches."""

from .config import VPTConfig
from .layer import VPTLayer
from .model import VPTModel

__all__ = ["VPTConfig", "VPTLayer", "VPTModel"]
