"""Visual prompt tuning (Jia et al. 2022): learned tokens beside the patch tokens."""

from hf_ltsam.adapters.vpt.config import VPTConfig
from hf_ltsam.adapters.vpt.layer import VPTLayer
from hf_ltsam.adapters.vpt.model import VPTModel

__all__ = ["VPTConfig", "VPTLayer", "VPTModel"]
