"""The bottleneck, and how it is put beside an MLP."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ..tuner import Wrapper


class Bottleneck(nn.Module):
    """x -> s up(relu(down(ln(x)))), (..., D) -> (..., D); zero at the start.

    Args:
        width: D.
        bottleneck: r. 2 D (r + 1) + D + r + 1 parameters in all.

    Source: LIFT (Shi et al. 2024); Chen et al. 2022 without the layer norm and with a fixed s.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.scale = nn.Parameter(self.norm.weight.new_ones(1))        # s
        nn.init.kaiming_normal_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.norm.weight.dtype)
        return self.scale * self.up(F.relu(self.down(self.norm(x))))


class KeepsInput(nn.Module):
    """A layer norm that hands on its input beside its output: x -> (norm(x), x).

    In a block nothing lies between the second layer norm and the MLP, so the MLP's wrapper receives the pair. This is how
    the adapter reads the residual stream before the norm, without a change to the block's forward.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.base_layer(x), x

    def get_base_layer(self) -> nn.Module:
        """The layer norm, which peft puts back when adapters are taken off."""
        return self.base_layer


class AdaptFormerLayer(Wrapper):
    """An MLP with bottlenecks beside it: (norm(x), x) -> mlp(norm(x)) + sum over active adapters of adapter(x)."""

    adapter_layer_names = ("adaptformer_bottleneck",)

    def __init__(self, base_layer: nn.Module, width: int) -> None:
        super().__init__(base_layer)
        self.width = width
        self.adaptformer_bottleneck = nn.ModuleDict()

    def add(self, adapter: str, bottleneck: int) -> None:
        """A new adapter, which changes nothing yet."""
        self.adaptformer_bottleneck[adapter] = Bottleneck(self.width, bottleneck)

    def forward(self, normed_and_stream: tuple[Tensor, Tensor]) -> Tensor:
        normed, stream = normed_and_stream
        output = self.base_layer(normed)
        for name in self.acting():
            output = output + self.adaptformer_bottleneck[name](stream).to(output.dtype)
        return output
