"""Every kind of fine-tuning by its name, as `--adapter lora --adapter_args '{"r": 16}'` chooses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import IA3Config, LNTuningConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from hf_ltsam.adapters.adaptformer import AdaptFormerConfig
from hf_ltsam.adapters.encoders import KEY_VALUE, MLP_OUT, QUERY_VALUE, Encoder, pattern_of, require_encoder
from hf_ltsam.adapters.ssf import SSFConfig
from hf_ltsam.adapters.vpt import VPTConfig
from hf_ltsam.hyperparameters import build, nearest
from hf_ltsam.models.classifier import classifier_name


def _query_value(encoder: Encoder) -> dict[str, str]:
    """Hu et al. 2021, and LIFT."""
    return {"target_modules": pattern_of(encoder.linear_layers(QUERY_VALUE))}


def _ia3(encoder: Encoder) -> dict[str, str]:
    """Liu et al. 2022: keys, values, and what goes into the last layer of the MLP."""
    mlp_out = encoder.linear_layers(MLP_OUT)
    everywhere = encoder.linear_layers(KEY_VALUE) + mlp_out
    return {"target_modules": pattern_of(everywhere), "feedforward_modules": pattern_of(mlp_out)}


def _norms(encoder: Encoder) -> dict[str, str]:
    return {"target_modules": pattern_of(encoder.block_norms)}


def _own(_: Encoder) -> dict[str, str]:
    return {}  # our tuners find their modules themselves


@dataclass(frozen=True)
class Adapter:
    """A configuration class of peft, and what it is given where the user says nothing else.

    Args:
        config: the class.
        targets: encoder -> the arguments that name modules; not asked where the user names `target_modules`.
        summary: one line.
        args: the other arguments.
    """

    config: type[PeftConfig]
    targets: Callable[[Encoder], dict[str, str]]
    summary: str
    args: Mapping[str, Any] = field(default_factory=dict)


ADAPTERS: Mapping[str, Adapter] = {
    "adaptformer": Adapter(AdaptFormerConfig, _own, "a bottleneck beside the MLP of every block (LIFT)"),
    "vpt_deep": Adapter(VPTConfig, _own, "new prompt tokens before every block", {"deep": True}),
    "vpt_shallow": Adapter(VPTConfig, _own, "prompt tokens before the first block", {"deep": False}),
    "ssf": Adapter(SSFConfig, _own, "scale and shift after every affine layer"),
    "bias_tuning": Adapter(SSFConfig, _own, "the biases of the encoder (BitFit), as shifts", {"learn_scale": False}),
    "ln_tuning": Adapter(LNTuningConfig, _norms, "the layer norms of the blocks (peft)"),
    "lora": Adapter(LoraConfig, _query_value, "low-rank changes of query and value (peft)"),
    "dora": Adapter(LoraConfig, _query_value, "LoRA with learned magnitudes (peft)", {"use_dora": True}),
    "ia3": Adapter(IA3Config, _ia3, "rescaled keys, values and MLP activations (peft)"),
}
LINEAR_PROBE, FULL = "linear_probe", "none"  # these add nothing to the encoder


def adapter_names() -> list[str]:
    """All names that `make_adapter` takes."""
    return [*ADAPTERS, LINEAR_PROBE, FULL, *_other_tuners()]


def _other_tuners() -> dict[str, Adapter]:
    """The rest of peft's that choose target modules, put on query and value: "loha", "boft", "vera", ..."""
    own = {adapter.config for adapter in ADAPTERS.values()}
    others = {t: config for t, config in PEFT_TYPE_TO_CONFIG_MAPPING.items() if config not in own and _targets(config)}
    return {peft_type.value.lower(): Adapter(config, _query_value, "of peft") for peft_type, config in others.items()}


def _targets(config: type[PeftConfig]) -> bool:
    return {"target_modules", "modules_to_save"} <= {f.name for f in dataclasses.fields(config)}


def make_adapter(
    model: nn.Module,
    name: str,
    args: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    modules_to_save: Sequence[str] | None = None,
) -> nn.Module:
    """The model made ready for a kind of fine-tuning: what is not trained by it is frozen.

    Args:
        model: changed in place. Its encoder is one of those that `encoders.py` knows, unless `args` name the modules.
        name: of `ADAPTERS`; "linear_probe" for the classifier alone; "none" for full fine-tuning of blocks and classifier;
            or another tuner of peft.
        args: of the adapter's configuration; what is not given is chosen for the encoder.
        num_classes: C, from which the width of AdaptFormer follows and by which the classifier is found.
        modules_to_save: what is trained whole beside the adapter, by name; None: the classifier, the one trainable layer
            with C outputs; empty: nothing, for an encoder without a head.

    Returns:
        A `PeftModel`; for "none" the model itself, whose checkpoints are whole models.

    Raises:
        ValueError: a name or an argument that does not exist (the nearest ones are named), an encoder that is not known, or
            a classifier that cannot be told.
    """
    args = dict(args or {})
    if name not in adapter_names():
        raise ValueError(f"Unknown adapter {name!r}.{nearest(name, adapter_names())}")
    trained = _trained_whole(model, num_classes, modules_to_save)
    if name in (FULL, LINEAR_PROBE):
        if args:
            raise ValueError(f"The adapter {name!r} has no arguments, got {', '.join(args)}.")
        return _full_fine_tuning(model, trained) if name == FULL else _linear_probe(model, trained)
    return get_peft_model(model, _configuration(model, name, args, num_classes, trained))


def _configuration(
    model: nn.Module, name: str, args: dict[str, Any], num_classes: int | None, trained: list[str]
) -> PeftConfig:
    adapter = {**_other_tuners(), **ADAPTERS}[name]
    args = {"modules_to_save": trained or None, **adapter.args, **args}
    if adapter.config is AdaptFormerConfig and "bottleneck" not in args:
        args.setdefault("num_classes", num_classes)
    if "target_modules" not in args:
        way_out = 'For another encoder name the modules: adapter_args={"target_modules": [...]}.'
        args = {**adapter.targets(require_encoder(model, f"The adapter {name!r}", way_out)), **args}
    config: PeftConfig = build("adapter", {name: adapter.config}, name, args)
    return config


def _trained_whole(model: nn.Module, num_classes: int | None, given: Sequence[str] | None) -> list[str]:
    if given is not None:
        return list(given)
    if num_classes is None:
        raise ValueError(
            "make_adapter finds the classifier by num_classes=...: set it, or name it: modules_to_save=[...]."
        )
    return [classifier_name(model, num_classes)]


def _linear_probe(model: nn.Module, trained: list[str]) -> PeftModel:
    """The classifier alone, as a `PeftModel` whose file holds nothing else."""
    if not trained:
        raise ValueError("linear_probe trains modules_to_save alone, and there are none: name the classifier.")
    return get_peft_model(model, LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=trained))


def _full_fine_tuning(model: nn.Module, trained: list[str]) -> nn.Module:
    """Blocks and classifier train; embeddings, first and last layer norm stay (Li et al. 2025, FFT)."""
    encoder = require_encoder(
        model, "Full fine-tuning (adapter 'none')", "Freeze another encoder yourself, or use LoRA."
    )
    model.requires_grad_(False)
    for block in encoder.blocks.values():
        block.requires_grad_(True)
    for name in trained:
        model.get_submodule(name).requires_grad_(True)
    return model
