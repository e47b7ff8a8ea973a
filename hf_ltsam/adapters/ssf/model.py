"""SSF for a vision encoder."""

from __future__ import annotations

from torch import nn

from hf_ltsam.adapters.ssf.config import SSFConfig
from hf_ltsam.adapters.ssf.layer import SSFLayer
from hf_ltsam.adapters.tuner import EncoderTuner, Wrapper


class SSFModel(EncoderTuner):
    """Scale and shift after every affine layer of a vision encoder."""

    prefix = "ssf_"
    display_name = "SSF"
    way_out = "For another encoder name its linear, norm and convolution layers: SSFConfig(target_modules=...)."

    def targets(self, config: SSFConfig, model: nn.Module) -> list[str]:
        return self.encoder(model).affine_layers

    def wrap(self, config: SSFConfig, target: nn.Module, parent: nn.Module, name: str) -> Wrapper:
        if not isinstance(target, nn.Linear | nn.LayerNorm | nn.Conv2d):
            raise ValueError(
                f"SSF scales the outputs of nn.Linear, nn.LayerNorm and nn.Conv2d; {name!r} is a {type(target).__name__}. "
                "Change target_modules."
            )
        return SSFLayer(target)

    def add(self, config: SSFConfig, wrapper: SSFLayer, adapter: str, parent: nn.Module, name: str) -> None:
        wrapper.add(adapter, config.learn_scale)
