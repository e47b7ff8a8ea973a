"""The AdaptFormer bottleneck beside an MLP."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_ltsam.adapters.tuner import Wrapper


class NormWithInput(Wrapper):
    """A layer norm that returns its input beside its output: x -> (norm(x), x).

    In a block nothing lies between the second layer norm and the MLP, so the MLP's wrapper receives the pair. Thus the
    adapter reads the residual stream before the norm, and the forward pass of the block stays as it is. It has no
    parameters, and is a layer of peft so that peft takes it off wherever it looks for the encoder below the adapters.
    """

    other_param_names = ("adaptformer_readers",)

    def __init__(self, base_layer: nn.Module) -> None:
        width = next(base_layer.parameters()).numel()
        super().__init__(base_layer, width, width)
        self.adaptformer_readers: dict[str, None] = {}  # the adapters that read the input, in order

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.base_layer(x), x

    def _get_available_adapters(self) -> set[str]:
        return set(self.adaptformer_readers)


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
        norm: the layer norm before it.

    Source: LIFT (Shi et al. 2024); Chen et al. 2022 without the layer norm and with a fixed s.
    """

    adapter_layer_names = ("adaptformer_norm", "adaptformer_down", "adaptformer_up", "adaptformer_scale")

    def __init__(self, base_layer: nn.Module, norm: NormWithInput) -> None:
        super().__init__(base_layer, norm.out_features, norm.out_features)
        self.adaptformer_norm, self.adaptformer_down = nn.ModuleDict(), nn.ModuleDict()
        self.adaptformer_up, self.adaptformer_scale = nn.ModuleDict(), nn.ModuleDict()

    def add(self, adapter: str, bottleneck: int) -> None:
        """Add an adapter of width r = bottleneck, with 2 D (r + 1) + D + r + 1 parameters, that starts as the identity."""
        width = self.in_features
        down, up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.kaiming_normal_(down.weight, a=math.sqrt(5))
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        self.adaptformer_norm[adapter] = nn.LayerNorm(width)
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
