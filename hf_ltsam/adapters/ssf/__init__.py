"""SSF (Lian et al. 2022): scale and shift after every affine layer."""

from hf_ltsam.adapters.ssf.config import SSFConfig
from hf_ltsam.adapters.ssf.layer import SSFLayer
from hf_ltsam.adapters.ssf.model import SSFModel

__all__ = ["SSFConfig", "SSFLayer", "SSFModel"]
