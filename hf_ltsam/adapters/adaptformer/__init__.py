"""AdaptFormer (Chen et al. 2022) in the version of LIFT (Shi et al. 2024): a bottleneck beside the MLP of every block."""

from hf_ltsam.adapters.adaptformer.config import AdaptFormerConfig
from hf_ltsam.adapters.adaptformer.layer import AdaptFormerLayer, NormWithInput
from hf_ltsam.adapters.adaptformer.model import AdaptFormerModel

__all__ = ["AdaptFormerConfig", "AdaptFormerLayer", "AdaptFormerModel", "NormWithInput"]
