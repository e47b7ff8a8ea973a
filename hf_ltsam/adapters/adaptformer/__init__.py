"""AdaptFormer (Chen et al. 2022) as LIFT has it (Shi et al. 2024): a bottleneck beside the MLP of every block."""

from .config import AdaptFormerConfig
from .layer import AdaptFormerLayer, KeepsInput
from .model import AdaptFormerModel

__all__ = ["AdaptFormerConfig", "AdaptFormerLayer", "AdaptFormerModel", "KeepsInput"]
