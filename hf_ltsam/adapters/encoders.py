"""The blocks, norms and linear layers of vision encoders, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

MLP = "mlp"  # in the blocks of all known encoders


@dataclass(frozen=True)
class Anatomy:
    """Names of modules in one kind of encoder, and its number of class tokens.

    Args:
        second_norm: the layer norm before the MLP, in a block.
        class_tokens: number of tokens before the patch tokens.
        patch_embedding: the convolution that turns patches into tokens.
        outer_norms: the layer norms before and after the blocks.
    """

    second_norm: str
    class_tokens: int
    patch_embedding: str
    outer_norms: tuple[str, ...]


# `config.model_type` -> names, the same from transformers 5.10 to 5.23
ANATOMIES = {
    "clip_vision_model": Anatomy("layer_norm2", 1, "embeddings.patch_embedding", ("pre_layrnorm", "post_layernorm")),
    "siglip_vision_model": Anatomy("layer_norm2", 0, "embeddings.patch_embedding", ("post_layernorm",)),
    "vit": Anatomy("layernorm_after", 1, "embeddings.patch_embeddings.projection", ("layernorm",)),  # DINO, DeiT
    "dinov2": Anatomy("norm2", 1, "embeddings.patch_embeddings.projection", ("layernorm",)),
}
# Targets of peft's own methods, by the last part of the name; the later ones are the names in transformers 5.10's DINOv2
QUERY_VALUE = ("q_proj", "v_proj", "query", "value")
KEY_VALUE = ("k_proj", "v_proj", "key", "value")
MLP_OUT = ("fc2", "down_proj")


@dataclass(frozen=True)
class Encoder:
    """The encoder in a model.

    Args:
        module: the encoder, a part of the model or all of it.
        anatomy: of its kind.
        blocks: full name in the model -> block.
        modules: full name in the model -> module, for every module in the encoder.
    """

    module: PreTrainedModel
    anatomy: Anatomy
    blocks: dict[str, nn.Module]
    modules: dict[str, nn.Module]

    @property
    def mlps(self) -> list[str]:
        return [f"{block}.{MLP}" for block in self.blocks]

    def linear_layers(self, last_names: Iterable[str]) -> list[str]:
        """Linear layers in the blocks, by the last part of their names."""
        return [n for n in self._in_blocks((nn.Linear,)) if n.rpartition(".")[2] in last_names]

    @property
    def block_norms(self) -> list[str]:
        return self._in_blocks((nn.LayerNorm,))

    @property
    def affine_layers(self) -> list[str]:
        """The layers with weight and bias: linear and norm layers of the blocks, the norms around them, the patch embedding.

        CLIP's patch embedding has no bias, so it is not among them. Pooling heads are left out.
        """
        outer = (self.anatomy.patch_embedding, *self.anatomy.outer_norms)
        names = self._in_blocks((nn.Linear, nn.LayerNorm))
        names += [n for n in self.modules if any(f".{n}".endswith(f".{name}") for name in outer) and n not in names]
        return [n for n in names if self.modules[n].bias is not None]

    def _in_blocks(self, kinds: tuple[type[nn.Module], ...]) -> list[str]:
        return [n for n, m in self.modules.items() if isinstance(m, kinds) and self._block_of(n)]

    def _block_of(self, name: str) -> bool:
        return any(name.startswith(f"{block}.") for block in self.blocks)


def encoder_of(model: nn.Module) -> Encoder | None:
    """The outermost encoder of a known kind in a model, adapted or not; None if there is none."""
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and module.config.model_type in ANATOMIES:
            return _encoder(name, module)
    return None


def require_encoder(model: nn.Module, asked_by: str, way_out: str) -> Encoder:
    """The encoder in a model.

    Args:
        asked_by: subject of the error message.
        way_out: its last sentence.

    Raises:
        ValueError: it has none of a known kind; these are listed.
    """
    encoder = encoder_of(model)
    if encoder is None:
        kind = f" (model_type {model.config.model_type!r})" if isinstance(model, PreTrainedModel) else ""
        raise ValueError(
            f"{asked_by} does not know where the blocks of {type(model).__name__}{kind} are. It knows these vision encoders "
            f"of transformers: {', '.join(sorted(ANATOMIES))}. {way_out}"
        )
    return encoder


def _encoder(name: str, module: PreTrainedModel) -> Encoder:
    anatomy = ANATOMIES[module.config.model_type]
    inside = {_plain(f"{name}.{n}".strip(".")): m for n, m in module.named_modules()}
    parts = {anatomy.second_norm, MLP}
    blocks = {n: m for n, m in inside.items() if parts <= {child for child, _ in m.named_children()}}
    return Encoder(module, anatomy, blocks, inside)


def _plain(name: str) -> str:
    """The name that a module had before peft wrapped it."""
    return name.replace(".base_layer", "")


def pattern_of(names: Iterable[str]) -> str:
    """A regular expression for these modules, for any number of blocks, in the form of peft's `target_modules`."""
    return "|".join(sorted({r"\.".join(map(_part, name.split("."))) for name in names}))


def _part(part: str) -> str:
    return r"\d+" if part.isdigit() else re.escape(part)
