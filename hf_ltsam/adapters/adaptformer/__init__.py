"""AdaptFormer (Chen et al. 2022) as LIFT has it (Shi et al. 2024): a bottleneck beside the MLP of every block."""

from hf_ltsam.adapters.adaptformer.config import AdaptFormerConfig
from hf_ltsam.adapters.adaptformer.layer import AdaptFormerLayer, KeepsInput
from hf_ltsam.adapters.adaptformer.model import AdaptFormerModel

__all__ = ["AdaptFormerConfig", "AdaptFormerLayer", "AdaptFormerModel", "KeepsInput"]
