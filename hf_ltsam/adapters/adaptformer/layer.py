"""The AdaptFormer bottleneck beside an MLP."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_ltsam.adapters.tuner import Wrapper


class NormWithInput(nn.Module):
    """A layer norm that returns its input beside its output: x -> (norm(x), x).

    In a block nothing lies between the second layer norm and the MLP, so the MLP's wrapper receives the pair. Thus the
    adapter reads the residual stream before the norm, and the forward pass of the block stays as it is.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.base_layer(x), x

    def get_base_layer(self) -> nn.Module:
        """The layer norm, which peft puts back on unloading."""
        return self.base_layer


class Scale(nn.Module):
    """x -> s x with a trainable s that starts at 1.

    A separate module, like every layer of the bottleneck, so that its input and output determine its gradient (see
    `landscape/signals.py`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class AdaptFormerLayer(Wrapper):
    """An MLP with bottlenecks beside it: (norm(x), x) -> mlp(norm(x)) + sum over active adapters of s up(relu(down(ln(x)))).

    Args:
        base_layer: the MLP.
        width: D, of the residual stream.

    Source: LIFT (Shi et al. 2024); Chen et al. 2022 without the layer norm and with a fixed s.
    """

    adapter_layer_names = ("adaptformer_norm", "adaptformer_down", "adaptformer_up", "adaptformer_scale")

    def __init__(self, base_layer: nn.Module, width: int) -> None:
        super().__init__(base_layer)
        self.width = width
        self.adaptformer_norm, self.adaptformer_down = nn.ModuleDict(), nn.ModuleDict()
        self.adaptformer_up, self.adaptformer_scale = nn.ModuleDict(), nn.ModuleDict()

    def add(self, adapter: str, bottleneck: int) -> None:
        """Add an adapter of width r = bottleneck, with 2 D (r + 1) + D + r + 1 parameters, that starts as the identity."""
        down, up = nn.Linear(self.width, bottleneck), nn.Linear(bottleneck, self.width)
        nn.init.kaiming_normal_(down.weight, a=math.sqrt(5))
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        self.adaptformer_norm[adapter] = nn.LayerNorm(self.width)
        self.adaptformer_down[adapter], self.adaptformer_up[adapter] = down, up
        self.adaptformer_scale[adapter] = Scale()

    def forward(self, normed_and_stream: tuple[Tensor, Tensor]) -> Tensor:
        normed, stream = normed_and_stream
        output = self.base_layer(normed)
        for name in self.working_adapters():
            output = output + self._bottleneck(name, stream).to(output.dtype)
        return output

    def _bottleneck(self, name: str, x: Tensor) -> Tensor:
        norm = self.adaptformer_norm[name]
        x = norm(x.to(next(norm.parameters()).dtype))
        x = self.adaptformer_up[name](F.relu(self.adaptformer_down[name](x)))
        return self.adaptformer_scale[name](x)
