"""Visual prompts for a vision encoder."""

from __future__ import annotations

import math

import torch
from torch import nn

from hf_ltsam.adapters.encoders import Encoder
from hf_ltsam.adapters.tuner import EncoderTuner, Wrapper
from hf_ltsam.adapters.vpt.config import VPTConfig
from hf_ltsam.adapters.vpt.layer import VPTLayer


class VPTModel(EncoderTuner):
    """Prompts before every block of a vision encoder, or before the first.

    They enter after the class token (SigLIP has none) and after the position embeddings, and leave before the pooling of
    the architecture.
    """

    prefix = "vpt_"
    display_name = "VPT"
    way_out = "Prompts need the position of the class token, which is unknown in other encoders. Try LoRA there."
    no_merging = "prompts are tokens, and no weight of the encoder can replace them"

    def targets(self, config: VPTConfig, model: nn.Module) -> list[str]:
        return list(self.encoder(model).blocks)

    def _prepare_model(self, peft_config: VPTConfig, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        self._encoder: Encoder = self.encoder(model)
        self._chosen = [b for b in self._encoder.blocks if self._check_target_module_exists(peft_config, b)]

    def wrap(self, config: VPTConfig, target: nn.Module, parent: nn.Module, name: str) -> Wrapper:
        if name not in self._chosen:
            raise ValueError(
                f"VPT puts prompts before whole blocks, and {name!r} ({type(target).__name__}) is none. Blocks are "
                f"{', '.join(self._encoder.blocks)}: change target_modules."
            )
        return VPTLayer(target, self._encoder.module.config.hidden_size, self._encoder.anatomy.class_tokens)

    def add(self, config: VPTConfig, wrapper: VPTLayer, adapter: str, parent: nn.Module, name: str) -> None:
        if config.deep or name == self._chosen[0]:
            wrapper.vpt_prompts[adapter] = nn.Parameter(self._prompts(config.num_tokens))
        wrapper.vpt_leaving[adapter] = config.num_tokens if config.deep or name == self._chosen[-1] else 0

    def _prompts(self, count: int) -> torch.Tensor:
        """Initial prompts (t, D)."""
        config = self._encoder.module.config
        p, width = config.patch_size, config.hidden_size
        bound = math.sqrt(6 / (3 * p * p + width))  # Jia et al. 2022; three channels
        return torch.empty(count, width).uniform_(-bound, bound)
