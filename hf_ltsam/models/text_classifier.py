"""Classifiers of texts: which models they are, their heads, their padding, and 4-bit weights below an adapter."""

from __future__ import annotations

import importlib.util
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_ltsam.models.cosine_head import CosineHeadForSequenceClassification, CosineHeadForTextsConfig

ARCHITECTURE = "ForSequenceClassification"  # at the end of the names of transformers' classes
QUANTIZATION = "quantization_config"
Model = TypeVar("Model")


def classifies_texts(model: nn.Module) -> bool:
    """Whether it is one of transformers' classifiers of texts."""
    return isinstance(model, PreTrainedModel) and type(model).__name__.endswith(ARCHITECTURE)


def is_of_texts(config: PreTrainedConfig) -> bool:
    """Whether a configuration is that of a saved classifier of texts."""
    return any(name.endswith(ARCHITECTURE) for name in config.architectures or ())


def auto_class(config: PreTrainedConfig) -> Any:
    """The class of transformers that loads a saved classifier, by its configuration."""
    return AutoModelForSequenceClassification if is_of_texts(config) else AutoModelForImageClassification


def heads(model: PreTrainedModel) -> list[str]:
    """The parts beside the encoder or decoder that have weights: at random in a new classifier, so trained as a whole."""
    if isinstance(model, CosineHeadForSequenceClassification):
        return [f"{model.base_model_prefix}.{name}" for name in heads(model.model)]
    return [
        name
        for name, part in model.named_children()
        if name != model.base_model_prefix and any(True for _ in part.parameters())
    ]


def encoder_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The configuration of the encoder or decoder, which a cosine head keeps inside its own."""
    config: Any = model.config
    return config.base_config if isinstance(config, CosineHeadForTextsConfig) else config


def with_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """State the token that fills up batches, in both: decoders such as GPT-2 come without, and take their end of text.

    Raises:
        ValueError: there is no token for it.
    """
    if tokenizer.pad_token is None:
        stand_in = tokenizer.eos_token or tokenizer.unk_token
        if stand_in is None:
            raise ValueError(
                f"The tokenizer of {type(model).__name__} has no pad token, nor one that could stand in for it: set "
                "pad_token in its tokenizer_config.json."
            )
        tokenizer.pad_token = stand_in
    for config in {id(config): config for config in (model.config, encoder_config(model))}.values():
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = tokenizer.pad_token_id


def four_bits(compute: torch.dtype, kept: list[str]) -> Any:
    """QLoRA's weights (Dettmers et al. 2023): 4-bit NormalFloat, its constants quantised again.

    Args:
        compute: of matrix products.
        kept: modules that keep their precision.

    Raises:
        ImportError: bitsandbytes is not there.
    """
    require_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
    )


def never_repacked(model: Model) -> Model:
    """The model, its 4-bit weights left as they are in evaluation mode on the CPU.

    bitsandbytes (0.50) repacks them there for AVX512, in bfloat16, and its product with repacked weights has no gradient:
    whoever evaluates would train on without one below the last adapter.
    """
    modules: Any = model.modules() if isinstance(model, nn.Module) else ()
    for module in modules:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def require_bitsandbytes() -> None:
    """Refuse 4-bit weights where the package for them is missing.

    Raises:
        ImportError: saying how to get it.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("load_in_4bit=True needs bitsandbytes, which is not installed (pip install bitsandbytes)")


def quantization_apart(config: PreTrainedConfig) -> dict[str, Any]:
    """How weights below a saved adapter were quantised, as an argument of `from_pretrained`; taken out of the configuration.

    Left there it would say that the weights which are loaded are quantised already.
    """
    stated = config.__dict__.pop(QUANTIZATION, None)
    if stated is None:
        return {}
    require_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return {QUANTIZATION: BitsAndBytesConfig.from_dict(stated) if isinstance(stated, dict) else stated}
