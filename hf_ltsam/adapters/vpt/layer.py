"""A transformer block with prompts that enter before it and leave after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_ltsam.adapters.tuner import Wrapper


class VPTLayer(Wrapper):
    """Tokens (n, k + m, D) -> tokens (n, k + m, D) through a block that also sees prompts after the first k tokens.

    Args:
        base_layer: the block.
        class_tokens: k, the number of tokens before the prompts.
    """

    adapter_layer_names = ("vpt_prompts",)
    other_param_names = ("vpt_leaving",)

    def __init__(self, base_layer: nn.Module, class_tokens: int) -> None:
        super().__init__(base_layer)
        self.class_tokens = class_tokens
        self.vpt_prompts = nn.ParameterDict()  # prompts that enter (t, D)
        self.vpt_leaving: dict[str, int] = {}  # number that leave, having entered here or in an earlier block

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self.working_adapter()
        if adapter is None:
            return self.base_layer(tokens, *args, **kwargs)
        if any(isinstance(mask, Tensor) for mask in (*args, kwargs.get("attention_mask"))):
            raise ValueError("VPT adds tokens that an attention_mask does not cover: leave the mask out.")
        k = self.class_tokens
        if adapter in self.vpt_prompts:
            prompts = self.vpt_prompts[adapter].to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens[:, :k], prompts, tokens[:, k:]], dim=1)
        tokens = self.base_layer(tokens, *args, **kwargs)
        return torch.cat([tokens[:, :k], tokens[:, k + self.vpt_leaving[adapter] :]], dim=1)

    def _get_available_adapters(self) -> set[str]:
        return set(self.vpt_leaving)  # a shallow adapter has prompts in one block and works in all
