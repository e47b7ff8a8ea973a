"""Kinds of fine-tuning by name, as in `--adapter lora --adapter_args '{"r": 16}'`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import IA3Config, LNTuningConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.constants import (
    DUMMY_TARGET_MODULES,
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from torch import nn

from hf_ltsam.adapters.adaptformer import AdaptFormerConfig
from hf_ltsam.adapters.encoders import KEY_VALUE, MLP_OUT, QUERY_VALUE, Encoder, pattern_of, require_encoder
from hf_ltsam.adapters.ssf import SSFConfig
from hf_ltsam.adapters.vpt import VPTConfig
from hf_ltsam.hyperparameters import build, nearest
from hf_ltsam.models.classifier import classifier_name
from hf_ltsam.models.text_classifier import classifies_texts, encoder_config, heads
from hf_ltsam.models.trained_weights import train_in_single


def _query_value(encoder: Encoder) -> dict[str, str]:
    """Query and value, as in Hu et al. 2021 and LIFT (Shi et al. 2024)."""
    return {"target_modules": pattern_of(encoder.linear_layers(QUERY_VALUE))}


def _ia3(encoder: Encoder) -> dict[str, str]:
    """Keys, values and inputs of the last layer of the MLP (Liu et al. 2022)."""
    mlp_out = encoder.linear_layers(MLP_OUT)
    everywhere = encoder.linear_layers(KEY_VALUE) + mlp_out
    return {"target_modules": pattern_of(everywhere), "feedforward_modules": pattern_of(mlp_out)}


def _norms(encoder: Encoder) -> dict[str, str]:
    return {"target_modules": pattern_of(encoder.block_norms)}


def _none(_: Encoder) -> dict[str, str]:
    return {}  # our tuners find their modules themselves


@dataclass(frozen=True)
class Adapter:
    """A configuration class of peft and its default arguments.

    Args:
        config: the class.
        targets: encoder -> the arguments that name modules; not called if the user names `target_modules`.
        summary: one line.
        args: the other arguments.
    """

    config: type[PeftConfig]
    targets: Callable[[Encoder], dict[str, str]]
    summary: str
    args: Mapping[str, Any] = field(default_factory=dict)


ADAPTERS: Mapping[str, Adapter] = {
    "adaptformer": Adapter(AdaptFormerConfig, _none, "a bottleneck beside the MLP of every block (LIFT)"),
    "vpt_deep": Adapter(VPTConfig, _none, "new prompt tokens before every block", {"deep": True}),
    "vpt_shallow": Adapter(VPTConfig, _none, "prompt tokens before the first block", {"deep": False}),
    "ssf": Adapter(SSFConfig, _none, "scale and shift after every affine layer"),
    "bias_tuning": Adapter(SSFConfig, _none, "the biases of the encoder (BitFit), as shifts", {"learn_scale": False}),
    "ln_tuning": Adapter(LNTuningConfig, _norms, "the layer norms of the blocks (peft)"),
    "lora": Adapter(LoraConfig, _query_value, "low-rank changes of query and value (peft)"),
    "dora": Adapter(LoraConfig, _query_value, "LoRA with learned magnitudes (peft)", {"use_dora": True}),
    "ia3": Adapter(IA3Config, _ia3, "rescaled keys, values and MLP activations (peft)"),
}
LINEAR_PROBE, FULL = "linear_probe", "none"  # kinds that add nothing to the encoder


def adapter_names() -> list[str]:
    """The names of `make_adapter`."""
    return [*ADAPTERS, LINEAR_PROBE, FULL, *_other_tuners()]


def _other_tuners() -> dict[str, Adapter]:
    """peft's other methods with target modules, here query and value: "loha", "boft", "vera", ..."""
    listed = {adapter.config for adapter in ADAPTERS.values()}
    others = {t: c for t, c in PEFT_TYPE_TO_CONFIG_MAPPING.items() if c not in listed and _has_targets(c)}
    return {peft_type.value.lower(): Adapter(config, _query_value, "of peft") for peft_type, config in others.items()}


def _has_targets(config: type[PeftConfig]) -> bool:
    return {"target_modules", "modules_to_save"} <= {f.name for f in dataclasses.fields(config)}


def make_adapter(
    model: nn.Module,
    name: str,
    args: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    modules_to_save: Sequence[str] | None = None,
) -> nn.Module:
    """The model, prepared for a kind of fine-tuning: all other weights are frozen.

    What is trained is float32. A model in half precision stays so where it is frozen.

    Args:
        model: changed in place. Its encoder is listed in `encoders.py`, unless `args` name the modules.
        name: a key of `ADAPTERS`; "linear_probe" for the classifier alone; "none" for full fine-tuning of blocks and
            classifier; or another method of peft.
        args: of the adapter's configuration; the rest is chosen for the encoder.
        num_classes: C, which identifies the classifier and sets the width of AdaptFormer.
        modules_to_save: names of the modules to train whole beside the adapter; None: the classifier, the one trainable
            layer with C outputs; empty: none, for an encoder without a head.

    Returns:
        A `PeftModel`; for "none" the model itself, whose checkpoints are whole models.

    Raises:
        ValueError: an unknown name or argument (with the nearest ones), an unknown encoder, or a classifier that cannot
            be identified.
    """
    args = dict(args or {})
    if name not in adapter_names():
        raise ValueError(f"Unknown adapter {name!r}.{nearest(name, adapter_names())}")
    trained = _trained_whole(model, num_classes, modules_to_save)
    if name in (FULL, LINEAR_PROBE):
        if args:
            raise ValueError(f"The adapter {name!r} has no arguments, got {', '.join(args)}.")
        prepared = _full_fine_tuning(model, trained) if name == FULL else _linear_probe(model, trained)
    else:
        prepared = _adapted(model, name, _configuration(model, name, args, num_classes, trained))
    return train_in_single(prepared)


def _configuration(
    model: nn.Module, name: str, args: dict[str, Any], num_classes: int | None, trained: list[str]
) -> PeftConfig:
    adapter = {**_other_tuners(), **ADAPTERS}[name]
    args = {"modules_to_save": trained or None, **adapter.args, **args}
    if adapter.config is AdaptFormerConfig and "bottleneck" not in args:
        args.setdefault("num_classes", num_classes)
    if classifies_texts(model) and adapter.targets is not _none:
        return _of_peft(model, name, adapter.config, args)
    if "target_modules" not in args:
        way_out = 'For another encoder name the modules: adapter_args={"target_modules": [...]}.'
        args = {**adapter.targets(require_encoder(model, f"The adapter {name!r}", way_out)), **args}
    config: PeftConfig = build("adapter", {name: adapter.config}, name, args)
    return config


def _adapted(model: nn.Module, name: str, configuration: PeftConfig) -> nn.Module:
    try:
        return get_peft_model(model, configuration)
    except ValueError as error:
        if "specify `target_modules`" not in str(error):
            raise
        raise ValueError(
            f"The adapter {name!r} of peft does not know the layers of {type(model).__name__}: name them, "
            'adapter_args={"target_modules": [...]}, or take lora.'
        ) from error


def _of_peft(model: Any, name: str, config: type[PeftConfig], args: dict[str, Any]) -> PeftConfig:
    """For a text model, whose layers peft knows by its kind; of an unknown kind, all its linear layers."""
    kind = encoder_config(model).model_type
    below_cosine_head = kind != model.config.model_type  # whose own kind peft does not know
    if config is IA3Config and below_cosine_head and kind in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
        modules = {
            "target_modules": TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[kind],
            "feedforward_modules": TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[kind],
        }
        args = args if "target_modules" in args else {**modules, **args}
    made: Any = build("adapter", {name: config}, name, {"task_type": "SEQ_CLS", **args})
    known = getattr(PEFT_TYPE_TO_TUNER_MAPPING[made.peft_type], "target_module_mapping", None)
    if made.target_modules is None and known is not None:
        if kind not in known:
            made.target_modules = "all-linear"
        elif below_cosine_head:
            made.target_modules = set(known[kind])
    return made


def _trained_whole(model: nn.Module, num_classes: int | None, modules: Sequence[str] | None) -> list[str]:
    if modules is not None:
        return list(modules)
    if num_classes is None:
        raise ValueError(
            "make_adapter identifies the classifier by num_classes=...: set it, or name the classifier: "
            "modules_to_save=[...]."
        )
    if classifies_texts(model):
        return heads(model)
    return [classifier_name(model, num_classes)]


def _linear_probe(model: nn.Module, trained: list[str]) -> PeftModel:
    """A `PeftModel` that trains and saves the classifier alone."""
    if not trained:
        raise ValueError("linear_probe trains modules_to_save alone, and the list is empty: name the classifier.")
    return get_peft_model(model, LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=trained))


def _full_fine_tuning(model: nn.Module, trained: list[str]) -> nn.Module:
    """Train blocks and classifier; freeze embeddings, first and last layer norm (Li et al. 2025, FFT)."""
    encoder = require_encoder(
        model, "Full fine-tuning (adapter 'none')", "Freeze another encoder yourself, or use LoRA."
    )
    model.requires_grad_(False)
    for block in encoder.blocks.values():
        block.requires_grad_(True)
    for name in trained:
        model.get_submodule(name).requires_grad_(True)
    return model
