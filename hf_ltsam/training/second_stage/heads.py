"""What a second stage trains: the classifier alone, on features. Shapes: n batch, D features, C classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """Features (n, D) -> logits (n, C), by a classifier of its own.

    Args:
        classifier: linear or cosine; it is trained.
    """

    classifier: nn.Module

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.given = torch.empty(0)  # the features of the last call

    def forward(self, features: Tensor) -> Tensor:
        self.given = features
        return self.logits(features)

    def logits(self, features: Tensor) -> Tensor:
        """As `forward`, without a trace."""
        return self.classifier(features)

    def trained_classifier(self) -> dict[str, Tensor]:
        """The state of a layer like `classifier` that gives the same logits."""
        return {name: value.detach().clone() for name, value in self.classifier.state_dict().items()}


class ScaledHead(Head):
    """logits_c = s_c (w_c . feature + b_c), with scales s (C,) that are trained.

    Args:
        classifier: linear.
        trains_classifier: False: it stays as it is.
    """

    classifier: nn.Linear

    def __init__(self, classifier: nn.Linear, trains_classifier: bool = False) -> None:
        super().__init__(classifier.requires_grad_(trains_classifier))
        self.scales = nn.Parameter(torch.ones_like(classifier.weight[:, 0]))  # (C,)

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, *self._scaled())

    def trained_classifier(self) -> dict[str, Tensor]:
        weight, bias = self._scaled()
        state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return {name: value.detach().clone() for name, value in state.items()}

    def _scaled(self) -> tuple[Tensor, Tensor | None]:
        layer = self.classifier
        return self.scales[:, None] * layer.weight, None if layer.bias is None else self.scales * layer.bias
