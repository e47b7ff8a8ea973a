"""The cosine classifier: its logits are scaled cosines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from hf_ltsam.hyperparameters import POSITIVE, require


class CosineClassifier(nn.Module):
    """logits = scale * cos(feature, weight_c), without bias, so that |logit| <= scale.

    Class vectors are the rows of `weight` (C, D); only their directions matter. They start as random unit vectors.

    Args:
        in_features: D, length of a feature vector.
        num_classes: C.
        scale: > 0; 30 with LDAM (Cao et al. 2019), 25 with LIFT (Shi et al. 2024).
        learnable_scale: train the scale with the rest.

    Raises:
        ValueError: an argument that is not positive.
    """

    scale: float | nn.Parameter

    def __init__(self, in_features: int, num_classes: int, scale: float = 30.0, learnable_scale: bool = False) -> None:
        super().__init__()
        require(POSITIVE, self, in_features=in_features, num_classes=num_classes, scale=scale)
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.scale = nn.Parameter(torch.tensor(float(scale))) if learnable_scale else float(scale)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random directions, uniform on the sphere."""
        self.weight.normal_()
        self.weight.copy_(F.normalize(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, D) -> logits (n, C); or (n, L, D), of every token of a text."""
        return self.scale * F.linear(F.normalize(features, dim=-1), F.normalize(self.weight))

    def extra_repr(self) -> str:
        scale = "learnable" if isinstance(self.scale, nn.Parameter) else f"{self.scale:g}"
        return f"in_features={self.in_features}, num_classes={self.num_classes}, scale={scale}"


@torch.no_grad()
def init_unloaded(classifier: CosineClassifier, scale: float) -> None:
    """Random class vectors, for `_init_weights` of a model.

    transformers' functions do it, because they do not overwrite weights that `from_pretrained` has loaded.

    Args:
        scale: initial value of a learnable scale.
    """
    init.normal_(classifier.weight)
    init.copy_(classifier.weight, F.normalize(classifier.weight))
    if isinstance(classifier.scale, nn.Parameter):
        init.constant_(classifier.scale, scale)
