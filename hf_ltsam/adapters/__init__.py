"""Parameter-efficient fine-tuning of vision encoders: AdaptFormer, VPT and SSF as methods of peft, and peft's own by name.

Importing this package registers the three with peft. `PeftModel.from_pretrained` needs that before it loads one of their
folders, and raises `KeyError: 'HF_LTSAM_...'` otherwise.
"""

from hf_ltsam.adapters.adaptformer import AdaptFormerConfig, AdaptFormerModel
from hf_ltsam.adapters.factory import ADAPTERS, make_adapter
from hf_ltsam.adapters.registration import LTSamPeftType, register
from hf_ltsam.adapters.ssf import SSFConfig, SSFModel
from hf_ltsam.adapters.vpt import VPTConfig, VPTModel

register(LTSamPeftType.HF_LTSAM_ADAPTFORMER, AdaptFormerConfig, AdaptFormerModel)
register(LTSamPeftType.HF_LTSAM_VPT, VPTConfig, VPTModel)
register(LTSamPeftType.HF_LTSAM_SSF, SSFConfig, SSFModel)

__all__ = [
    "ADAPTERS",
    "AdaptFormerConfig",
    "AdaptFormerModel",
    "SSFConfig",
    "SSFModel",
    "VPTConfig",
    "VPTModel",
    "make_adapter",
]
