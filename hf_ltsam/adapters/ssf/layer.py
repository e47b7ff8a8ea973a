"""Scale and shift after one layer, beside it or merged into it."""

from __future__ import annotations

import warnings
from typing import TypeAlias

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn

from hf_ltsam.adapters.tuner import Wrapper

Affine: TypeAlias = nn.Linear | nn.LayerNorm | nn.Conv2d


def _channels(layer: Affine) -> tuple[int, int]:
    """Numbers of channels that enter and leave a layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    return layer.weight.numel(), layer.weight.numel()


class SSFLayer(Wrapper):
    """A linear, norm or convolution layer followed by y = gamma x + beta per output channel.

    Merged, the layer computes the same by itself: its weight W and bias b become gamma W and gamma b + beta.
    """

    adapter_layer_names = ("ssf_scale", "ssf_shift")
    base_layer: Affine

    def __init__(self, base_layer: Affine) -> None:
        super().__init__(base_layer, *_channels(base_layer))
        self.ssf_scale = nn.ParameterDict()  # gamma (D,)
        self.ssf_shift = nn.ParameterDict()  # beta (D,)
        self._unmerged: dict[str, Tensor] = {}  # weight and bias before the merge

    def add(self, adapter: str, learn_scale: bool) -> None:
        """Add an adapter, which starts as the identity."""
        channels = self.base_layer.weight.shape[0]
        if learn_scale:
            self.ssf_scale[adapter] = nn.Parameter(torch.ones(channels))
        self.ssf_shift[adapter] = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        y = self.base_layer(x)
        adapter = self.working_adapter()
        if adapter is None:
            return y
        dims = (-1, 1, 1) if isinstance(self.base_layer, nn.Conv2d) else (-1,)
        scale, shift = self._scale(adapter), self.ssf_shift[adapter]
        scaled = y if scale is None else scale.view(dims) * y
        return (scaled + shift.view(dims)).to(y.dtype)

    def _scale(self, adapter: str) -> Tensor | None:
        return self.ssf_scale.get(adapter)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merge an adapter into weight and bias.

        Args:
            safe_merge: refuse weights that are not finite.
            adapter_names: None: the active one.

        Raises:
            ValueError: two adapters at once, a layer without a bias, or (`safe_merge`) a result that is not finite.
        """
        names = [n for n in check_adapters_to_merge(self, adapter_names) if n in self.ssf_shift]
        if not names:
            return
        if len(names) > 1 or self.merged:
            raise ValueError(f"SSF merges one adapter at a time, got {', '.join([*self.merged_adapters, *names])}.")
        layer = self.base_layer
        if layer.bias is None:
            raise ValueError(
                f"SSF cannot be merged into this {type(layer).__name__}: it has no bias for the shift. Leave the "
                "layer out of the adapter (exclude_modules), or keep the adapter beside the model."
            )
        scale = self._scale(names[0])
        scale = torch.ones_like(self.ssf_shift[names[0]]) if scale is None else scale
        weight = scale.view(-1, *[1] * (layer.weight.ndim - 1)) * layer.weight
        bias = scale * layer.bias + self.ssf_shift[names[0]]
        if safe_merge and not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"The adapter {names[0]!r} is damaged: merged, it gives weights that are not finite.")
        self._unmerged = {name: t.clone() for name, t in layer.state_dict().items()}
        layer.load_state_dict({"weight": weight, "bias": bias})
        self.merged_adapters.append(names[0])

    def unmerge(self) -> None:
        """Restore weight and bias, bit for bit."""
        if not self.merged:
            warnings.warn("Already unmerged: nothing to do.", stacklevel=2)
            return
        self.base_layer.load_state_dict(self._unmerged)
        self._unmerged, self.merged_adapters = {}, []
