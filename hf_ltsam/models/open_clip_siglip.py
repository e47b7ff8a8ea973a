"""SigLIPs of open_clip, with timm's image tower, as transformers' `SiglipModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import SiglipConfig, SiglipModel
from transformers.initialization import no_init_weights

if TYPE_CHECKING:
    import open_clip

_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh"}  # timm's classes -> transformers' names
_VISION = {"timm_pool": "map", "timm_proj": "none"}
_TEXT = {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}


def is_siglip(architecture: Mapping[str, Any]) -> bool:
    """Whether a model configuration of open_clip describes a SigLIP."""
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    return (
        "siglip" in vision.get("timm_model_name", "")
        and all(vision.get(key) == value for key, value in _VISION.items())
        and all(text.get(key) == value for key, value in _TEXT.items())
    )


def siglip_to_transformers(model: open_clip.CustomTextCLIP, architecture: Mapping[str, Any]) -> SiglipModel:
    """The same model in transformers, in evaluation mode, float32.

    Raises:
        RuntimeError: it has weights that transformers' SigLIP lacks.
        KeyError: an activation that SigLIP lacks.
    """
    with no_init_weights():  # all are loaded, so none need to be drawn
        siglip = SiglipModel(siglip_config(model, architecture))
    siglip.load_state_dict(siglip_state_dict(model.state_dict()))
    return siglip.eval()


def siglip_config(model: open_clip.CustomTextCLIP, architecture: Mapping[str, Any]) -> SiglipConfig:
    """transformers' configuration of a SigLIP of open_clip; timm's modules give the sizes of the image tower."""
    trunk, text = model.visual.trunk, architecture["text_cfg"]
    block = trunk.blocks[0]
    return SiglipConfig(
        vision_config={
            "hidden_size": trunk.embed_dim,
            "intermediate_size": block.mlp.fc1.out_features,
            "num_hidden_layers": len(trunk.blocks),
            "num_attention_heads": block.attn.num_heads,
            "image_size": trunk.patch_embed.img_size[0],
            "patch_size": trunk.patch_embed.patch_size[0],
            "hidden_act": _ACTIVATIONS[type(block.mlp.act).__name__],
            "layer_norm_eps": trunk.norm.eps,
        },
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "hidden_act": "gelu_pytorch_tanh" if text.get("act_kwargs", {}).get("approximate") == "tanh" else "gelu",
            "layer_norm_eps": text.get("norm_kwargs", {}).get("eps", 1e-5),
            "projection_size": architecture["embed_dim"],
            "bos_token_id": None,  # texts are padded and pooled at the last position: no token is special
            "eos_token_id": None,
        },
    )


def siglip_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a SigLIP of open_clip under the names of transformers' `SiglipModel`, in float32."""
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".attn.qkv." in name or ".attn.in_proj_" in name:  # (3 D, ...): queries, keys, values
            name = name.replace(".attn.qkv.", ".self_attn.{}_proj.").replace(".attn.in_proj_", ".self_attn.{}_proj.")
            for part, rows in zip("qkv", tensor.float().chunk(3)):
                state[_renamed(name.format(part))] = rows.contiguous()
        else:
            state[_renamed(name)] = tensor.float()
    for kind in ("weight", "bias"):  # torch's attention keeps the three in one tensor
        pool = "vision_model.head.attention"
        state[f"{pool}.in_proj_{kind}"] = torch.cat([state.pop(f"{pool}.q.{kind}"), state.pop(f"{pool}.kv.{kind}")])
    position = "vision_model.embeddings.position_embedding.weight"
    state[position] = state[position].squeeze(0)
    return {**state, "logit_scale": state["logit_scale"].reshape(1), "logit_bias": state["logit_bias"].reshape(1)}


_PARTS = (
    ("visual.trunk.attn_pool.latent", "vision_model.head.probe"),
    ("visual.trunk.attn_pool.proj.", "vision_model.head.attention.out_proj."),
    ("visual.trunk.attn_pool.norm.", "vision_model.head.layernorm."),
    ("visual.trunk.attn_pool.mlp.", "vision_model.head.mlp."),
    ("visual.trunk.attn_pool.", "vision_model.head.attention."),
    ("visual.trunk.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual.trunk.pos_embed", "vision_model.embeddings.position_embedding.weight"),
    ("visual.trunk.norm.", "vision_model.post_layernorm."),
    ("visual.trunk.blocks.", "vision_model.encoder.layers."),
    ("text.token_embedding.", "text_model.embeddings.token_embedding."),
    ("text.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("text.transformer.resblocks.", "text_model.encoder.layers."),
    ("text.ln_final.", "text_model.final_layer_norm."),
    ("text.text_projection.", "text_model.head."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.proj.", ".self_attn.out_proj."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)


def _renamed(name: str) -> str:
    for theirs, ours in _PARTS:
        name = name.replace(theirs, ours)
    return name
