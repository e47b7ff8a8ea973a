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
        width: D.
        class_tokens: k, the number of tokens before the prompts.
    """

    adapter_layer_names = ("vpt_prompts",)
    other_param_names = ("vpt_leaving",)

    def __init__(self, base_layer: nn.Module, width: int, class_tokens: int) -> None:
        super().__init__(base_layer, width, width)
        self.class_tokens = class_tokens
        self.vpt_prompts = nn.ParameterDict()  # prompts that enter (t, D)
        self.vpt_leaving: dict[str, int] = {}  # number that leave, having entered here or in an earlier block

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self.working_adapter()
        if adapter is None:
            return self.base_layer(tokens, *args, **kwargs)
        k = self.class_tokens
        if adapter in self.vpt_prompts:
            prompts = self.vpt_prompts[adapter].to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens[:, :k], prompts, tokens[:, k:]], dim=1)
        args = tuple(self._covering(mask, tokens.shape[1]) for mask in args)
        if "attention_mask" in kwargs:
            kwargs["attention_mask"] = self._covering(kwargs["attention_mask"], tokens.shape[1])
        tokens = self.base_layer(tokens, *args, **kwargs)
        return torch.cat([tokens[:, :k], tokens[:, k + self.vpt_leaving[adapter] :]], dim=1)

    def _covering(self, mask: Any, count: int) -> Any:
        """An attention mask of the encoder's tokens as one of all `count` tokens; what is no mask stays as it is.

        Every token sees the prompts, and a prompt sees what the first token sees. transformers makes such a mask by itself
        in `torch.export`.

        Args:
            mask: (n, 1, q, q), True or 0 where a token (row) sees another (column), or (n, q) for all rows.

        Raises:
            ValueError: a mask of another form.
        """
        if mask is None or isinstance(mask, bool):
            return mask
        if not isinstance(mask, Tensor) or mask.ndim not in (2, 4):
            raise ValueError(
                f"VPT cannot add its tokens to this attention_mask ({type(mask).__name__}): leave it out, or load the "
                'encoder with attn_implementation="sdpa".'
            )
        k, added = self.class_tokens, count - mask.shape[-1]
        seen = mask.new_ones if mask.ndim == 2 or mask.dtype == torch.bool else mask.new_zeros
        mask = torch.cat([mask[..., :k], seen(*mask.shape[:-1], added), mask[..., k:]], dim=-1)
        if mask.ndim == 2:
            return mask
        rows = mask[..., :1, :].expand(*mask.shape[:-2], added, count)
        return torch.cat([mask[..., :k, :], rows, mask[..., k:, :]], dim=-2)

    def _get_available_adapters(self) -> set[str]:
        return set(self.vpt_leaving)  # a shallow adapter has prompts in one block and works in all
