"""The model of a run, loaded again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from hf_ltsam.models import (
    ClipForLongTail,
    ClipForLongTailConfig,
    CosineHeadConfig,
    CosineHeadForImageClassification,
    CosineHeadForSequenceClassification,
    CosineHeadForTextsConfig,
)
from hf_ltsam.models.clip_source import is_clip, load_clip
from hf_ltsam.models.cosine_head import CosineHead
from hf_ltsam.models.text_classifier import auto_class, never_repacked, quantization_apart
from hf_ltsam.models.timm_config import state_class_names, state_image_processor
from hf_ltsam.runs.files import DamagedFileError


def load_run(folder: str | os.PathLike[str], trainable: bool = False) -> nn.Module:
    """The trained classifier in evaluation mode: a plain model, or an adapter on the model it was trained on.

    Its weights are float32, also where they are stored in half precision; `load_run(folder).bfloat16()` for the latter.

    Args:
        folder: the output folder of a run, one of its checkpoints, or its name on the Hub. An adapter's folder holds
            `config.json` and the adapter; the model below it is loaded from where the training loaded it.
        trainable: whether the trained weights of an adapter require gradients.

    Raises:
        OSError: there is no such run, or the model below its adapter is no longer where it was.
        DamagedFileError: its weights are cut short, say.
    """
    try:
        return _load(os.fspath(folder), trainable)
    except SafetensorError as error:
        raise DamagedFileError(f"The weights in {folder} are damaged ({error}): copy or train them again.") from error


def _load(name: str, trainable: bool) -> nn.Module:
    if find_adapter_config_file(name) is None:
        return auto_class(AutoConfig.from_pretrained(name)).from_pretrained(name, dtype=torch.float32).eval()
    from peft import PeftConfig, PeftModel

    import hf_ltsam.adapters  # noqa: F401  teaches peft our methods

    trunk = PeftConfig.from_pretrained(name).base_model_name_or_path
    with torch.random.fork_rng(devices=[]):  # the classifier below the trained one is drawn: always the same
        torch.default_generator.manual_seed(0)
        base = _base(AutoConfig.from_pretrained(name), trunk)
    return PeftModel.from_pretrained(base, name, is_trainable=trainable).eval()


def _base(config: PreTrainedConfig, trunk: str) -> PreTrainedModel:
    """The model under an adapter; its classifier is loaded later, with the adapter."""
    if isinstance(config, ClipForLongTailConfig) and is_clip(trunk):
        return ClipForLongTail.on_tower(load_clip(trunk).vision_model, config)
    if isinstance(config, CosineHeadConfig) and AutoConfig.from_pretrained(trunk).model_type != config.model_type:
        head: type[CosineHead] = CosineHeadForImageClassification
        if isinstance(config, CosineHeadForTextsConfig):
            head = CosineHeadForSequenceClassification
        linear = _pretrained(trunk, config.base_config, head.auto_class)
        model: PreTrainedModel = head.of(linear, config.cosine_scale, config.learnable_scale)
        return model
    return _pretrained(trunk, config, auto_class(config))


def _pretrained(name: str, config: PreTrainedConfig, loader: Any) -> PreTrainedModel:
    quantization = quantization_apart(config)
    model: PreTrainedModel = loader.from_pretrained(
        name, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, **quantization
    )
    return never_repacked(model)


def save_configuration(model: nn.Module, folder: Path, processor: Any = None, below_adapter: bool = False) -> None:
    """Write `config.json` where the weights are saved without it, or it has to name the image processor or the classes.

    Args:
        model: without its adapter.
        processor: what is saved beside the weights.
        below_adapter: whether the adapter alone was saved: classes and kind of the model are what `load_run` reads here.
    """
    config: Any = getattr(model, "config", None)
    is_changed = [state_image_processor(config, processor), state_class_names(config)]
    below_adapter = below_adapter and isinstance(model, PreTrainedModel)
    if below_adapter:
        config.architectures = [
            type(model).__name__
        ]  # as save_pretrained has it; before it is that of the pretrained model
    if any(is_changed) or below_adapter:
        config.save_pretrained(folder)
