"""What a training run has saved, as a model again."""

from __future__ import annotations

import os

from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from .models import ClipForLongTail, ClipForLongTailConfig, CosineHeadConfig, CosineHeadForImageClassification
from .models.clip_source import is_clip, load_clip


def load_run(folder: str | os.PathLike[str]) -> nn.Module:
    """The trained classifier, in evaluation mode: a plain model, or an adapter on the model that it was trained on.

    Args:
        folder: the run's output folder, or its name on the Hub. Of an adapter it holds `config.json` and the adapter;
            the trunk is loaded from where it was loaded for the training.

    Raises:
        OSError: there is no such run, or the trunk of its adapter is not where it was.
    """
    name = os.fspath(folder)
    if find_adapter_config_file(name) is None:
        return AutoModelForImageClassification.from_pretrained(name).eval()
    from peft import PeftConfig, PeftModel

    import hf_ltsam.adapters  # noqa: F401  teaches peft our methods

    trunk = PeftConfig.from_pretrained(name).base_model_name_or_path
    return PeftModel.from_pretrained(_base(AutoConfig.from_pretrained(name), trunk), name).eval()


def _base(config: PreTrainedConfig, trunk: str) -> PreTrainedModel:
    """The model under an adapter; its classifier is still to be loaded with the adapter."""
    if isinstance(config, ClipForLongTailConfig) and is_clip(trunk):
        return ClipForLongTail.on_tower(load_clip(trunk).vision_model, config)
    if isinstance(config, CosineHeadConfig) and AutoConfig.from_pretrained(trunk).model_type != config.model_type:
        linear = _pretrained(trunk, config.base_config)
        return CosineHeadForImageClassification.of(linear, config.cosine_scale, config.learnable_scale)
    return _pretrained(trunk, config)


def _pretrained(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    return AutoModelForImageClassification.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
