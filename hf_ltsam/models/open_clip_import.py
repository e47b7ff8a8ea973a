"""Models of open_clip by name; its CLIPs become transformers' `CLIPModel`."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import CLIPConfig, CLIPModel
from transformers.initialization import no_init_weights

from hf_ltsam.hyperparameters import did_you_mean
from hf_ltsam.models.clip_towers import ClipTowers, TextTower
from hf_ltsam.models.open_clip_siglip import is_siglip, siglip_to_transformers

if TYPE_CHECKING:
    import open_clip

PREFIX = "open_clip:"
QUICK_GELU = "-quickgelu"  # at the end of open_clip's names of models with that activation

# Fields that may differ from open_clip's defaults; every other field changes the computation in a way that transformers'
# CLIP has no counterpart for. The tokenizer reads its own fields.
_VISION_SIZES = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}
_TEXT_SIZES = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_TOKENIZER = {"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}


def load_open_clip(name: str) -> ClipTowers:
    """An image and a text tower of open_clip, converted; float32, on the CPU.

    Files are read as safetensors or by `torch.load(weights_only=True)`: no code in them is run.

    Args:
        name: "open_clip:MODEL/TAG" as in `open_clip.list_pretrained()`, "open_clip:MODEL/FILE" with your own checkpoint
            (safetensors, or the .pt of open_clip's training), "hf-hub:OWNER/NAME" or "local-dir:FOLDER"; the last two
            may follow "open_clip:".

    Raises:
        ValueError: no such model or weights (the existing ones are listed), an architecture other than CLIP's ViT and
            SigLIP, or a file that holds more than tensors.
        FileNotFoundError: there is no such file or folder.
        OSError: the Hub cannot be reached.
    """
    model_name, weights = _parse(name)
    architecture = {**_architecture(model_name, name), **_activation(model_name, weights)}
    config = None if is_siglip(architecture) else clip_config(architecture, name)  # refuses, before weights are read
    _check_weights(model_name, weights, name)
    _warn_of_activation(model_name, weights)
    model = _create(model_name, weights, name)
    clip = to_transformers(model, config) if config else siglip_to_transformers(model, architecture)
    pixels = model.visual.preprocess_cfg
    text = TextTower(clip, partial(_tokens, model_name))
    return ClipTowers(name, clip.vision_model, text, pixels["mean"], pixels["std"])


def to_transformers(model: open_clip.CLIP, config: CLIPConfig) -> CLIPModel:
    """The same model in transformers, in evaluation mode."""
    with no_init_weights():  # all are loaded, so none need to be drawn
        clip = CLIPModel(config)
    clip.load_state_dict(clip_state_dict(model.state_dict()))
    return clip.eval()


def clip_config(architecture: Mapping[str, Any], name: str = "This model") -> CLIPConfig:
    """transformers' configuration of an architecture of open_clip.

    Args:
        architecture: open_clip's model configuration: embed_dim, vision_cfg, text_cfg and perhaps quick_gelu.
        name: for the error message.

    Raises:
        ValueError: naming the parts that transformers' CLIP lacks.
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    _refuse_other_parts(architecture, name)
    vision, text = CLIPVisionCfg(**architecture["vision_cfg"]), CLIPTextCfg(**architecture["text_cfg"])
    activation = "quick_gelu" if architecture.get("quick_gelu", False) else "gelu"
    width = architecture["embed_dim"]
    return CLIPConfig(
        projection_dim=width,
        vision_config={
            "hidden_size": vision.width,
            "intermediate_size": int(vision.width * vision.mlp_ratio),
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.width // vision.head_width,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "hidden_act": activation,
            "projection_dim": width,
        },
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": int(text.width * text.mlp_ratio),
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context_length,
            "hidden_act": activation,
            "projection_dim": width,
            "eos_token_id": 2,  # makes transformers pool at the highest token number, as open_clip does
        },
    )


def clip_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an open_clip `CLIP` under the names of transformers' `CLIPModel`, in float32."""
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        tensor = tensor.float()
        name = name.removeprefix("text.")  # if open_clip keeps the text tower in a separate module
        if name in _TRANSPOSED:
            state[_TRANSPOSED[name]] = tensor.T.contiguous()
        elif ".attn.in_proj_" in name:  # (3 D, ...): queries, keys, values
            for part, rows in zip("qkv", tensor.chunk(3)):
                state[_renamed(name.replace("attn.in_proj_", f"self_attn.{part}_proj."))] = rows.contiguous()
        elif name != "logit_bias":  # of SigLIP's loss on CLIP's architecture; our logits have none
            state[_renamed(name)] = tensor
    state["logit_scale"] = state["logit_scale"].reshape(())
    return state


# open_clip multiplies from the right
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}

_TOWERS = (("visual.", "vision_model."), ("", "text_model."))  # the text tower's names have no prefix in open_clip
_PARTS = (
    ("transformer.resblocks.", "encoder.layers."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.", ".self_attn."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    ("ln_pre.", "pre_layrnorm."),  # transformers' own spelling
    ("ln_post.", "post_layernorm."),
    ("ln_final.", "final_layer_norm."),
    ("conv1.", "embeddings.patch_embedding."),
    ("class_embedding", "embeddings.class_embedding"),
    ("token_embedding.", "embeddings.token_embedding."),
    ("positional_embedding", "embeddings.position_embedding.weight"),
)


def _renamed(name: str) -> str:
    if name == "logit_scale":
        return name
    old, new = next(tower for tower in _TOWERS if name.startswith(tower[0]))
    name = name.removeprefix(old)
    for theirs, ours in _PARTS:
        name = name.replace(theirs, ours)
    return new + name


def _parse(name: str) -> tuple[str, str | None]:
    """Model and weights; None for open_clip's schemas that name both at once."""
    rest = name.removeprefix(PREFIX)
    if rest.startswith(("hf-hub:", "local-dir:")):
        return rest, None
    model_name, _, weights = rest.partition("/")
    return model_name, weights


@cache
def _tokenizer(model_name: str) -> Callable[[list[str]], Tensor]:
    import open_clip

    return open_clip.get_tokenizer(model_name)


def _tokens(model_name: str, texts: list[str]) -> Tensor:
    """Loads the tokenizer with the first text: images need none, and SigLIP's is on the Hub."""
    return _tokenizer(model_name)(texts)


def _architecture(model_name: str, name: str) -> dict[str, Any]:
    import open_clip
    from open_clip.factory import get_model_config

    folder = model_name.removeprefix("local-dir:")
    if folder != model_name and not (Path(folder) / "open_clip_config.json").is_file():
        raise FileNotFoundError(f"{name}: there is no open_clip_config.json in {folder}.")
    architecture = get_model_config(model_name)
    if architecture is None:
        close = did_you_mean(model_name, open_clip.list_models())
        listing = "python -c 'import open_clip; print(open_clip.list_models())'"
        raise ValueError(f"{name}: open_clip has no model {model_name!r}.{close} `{listing}` lists them.")
    return architecture


def _activation(model_name: str, weights: str | None) -> dict[str, bool]:
    """The activation that published weights were trained with, whatever the name of the model says."""
    import open_clip

    if weights not in open_clip.list_pretrained_tags_by_model(model_name):
        return {}
    return {"quick_gelu": open_clip.get_pretrained_cfg(model_name, weights).get("quick_gelu", False)}


def _warn_of_activation(model_name: str, weights: str | None) -> None:
    """A file of weights does not say whether they were trained with GELU or, as OpenAI's, with QuickGELU."""
    import open_clip

    other = model_name + QUICK_GELU
    published = weights is None or weights in open_clip.list_pretrained_tags_by_model(model_name)
    if not published and other in open_clip.list_models():
        warnings.warn(
            f"{weights} is read as trained with GELU, as {model_name} is; a file does not say. Weights of OpenAI, DFN and "
            f"MetaCLIP, and what was fine-tuned from them, have QuickGELU: {PREFIX}{other}/{weights} reads those.",
            stacklevel=4,
        )


def _check_weights(model_name: str, weights: str | None, name: str) -> None:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if weights is not None and weights not in tags and not Path(weights).is_file():
        raise ValueError(
            f"{name}: {weights!r} is neither a tag of {model_name} nor a file here. Its tags: {', '.join(tags) or 'none'}."
        )


def _create(model_name: str, weights: str | None, name: str) -> open_clip.CLIP:
    import open_clip

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")  # transformers' tower has the right one
            return open_clip.create_model(model_name, pretrained=weights, require_pretrained=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{name}: the file holds more than tensors, and code from files is not run. Save its state_dict as safetensors."
        ) from error
    except RuntimeError as error:  # no download, or weights of another architecture
        raise ValueError(f"{name}: open_clip cannot load it. {error}") from error


def _refuse_other_parts(architecture: Mapping[str, Any], name: str) -> None:
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    parts = [f"{key}={value!r}" for key, value in architecture.items() if key in {"multimodal_cfg"}]
    for kind, defaults, sizes in (
        ("vision_cfg", CLIPVisionCfg(), _VISION_SIZES),
        ("text_cfg", CLIPTextCfg(), _TEXT_SIZES | _TOKENIZER),
    ):
        usual = dataclasses.asdict(defaults)
        parts += [
            f"{kind}.{key}={value!r}"
            for key, value in architecture[kind].items()
            if (key not in sizes and value != usual[key]) or (key == "layers" and not isinstance(value, int))
        ]
    if parts:
        raise ValueError(
            f"{name} is not a CLIP that transformers can compute: {', '.join(parts)}. Choose a plain ViT or a "
            "SigLIP of open_clip (ViT-B-16, ViT-L-14, ViT-B-16-SigLIP, ...), or a model of timm or transformers by its name."
        )
