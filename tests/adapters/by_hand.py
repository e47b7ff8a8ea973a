"""A block of each encoder, written down: x = h + attention(ln1(h)); x + mlp(ln2(x)) + beside(x). Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

BLOCKS = {"clip": "encoder.layers", "siglip": "encoder.layers", "vit": "layers", "dinov2": "encoder.layer"}


def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def clip(block: nn.Module, h: Tensor, beside: Callable[[Tensor], Tensor | float]) -> Tensor:
    x = h + first(block.self_attn(hidden_states=block.layer_norm1(h), attention_mask=None))
    return x + block.mlp(block.layer_norm2(x)) + beside(x)


def vit(block: nn.Module, h: Tensor, beside: Callable[[Tensor], Tensor | float]) -> Tensor:
    x = h + first(block.attention(block.layernorm_before(h)))
    return x + block.mlp(block.layernorm_after(x)) + beside(x)


def dinov2(block: nn.Module, h: Tensor, beside: Callable[[Tensor], Tensor | float]) -> Tensor:
    """With the layer scale on the sum of the MLP and the adapter beside it."""
    x = h + block.layer_scale1.lambda1 * first(block.attention(block.norm1(h)))
    return x + block.layer_scale2.lambda1 * (block.mlp(block.norm2(x)) + beside(x))


FORMULAS = {"clip": clip, "siglip": clip, "vit": vit, "dinov2": dinov2}


def blocks_of(name: str, encoder: nn.Module) -> nn.ModuleList:
    return encoder.get_submodule(BLOCKS[name])


def into_the_blocks(name: str, encoder: nn.Module, images: Tensor) -> Tensor:
    """The input of the first block of a plain encoder."""
    inputs = []
    handle = blocks_of(name, encoder)[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        encoder(pixel_values=images)
    handle.remove()
    return inputs[0]


def outputs_after(name: str, encoder: nn.Module, images: Tensor, tokens: Tensor) -> list[Tensor]:
    """Last hidden state and pooled output of a plain encoder whose last block returns these tokens."""
    handle = blocks_of(name, encoder)[-1].register_forward_hook(lambda *_: tokens)
    with torch.no_grad():
        output = encoder(pixel_values=images)
    handle.remove()
    return [output.last_hidden_state, output.pooler_output]
