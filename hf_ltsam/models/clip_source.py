"""A pretrained CLIP or SigLIP by name, from transformers or open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from hf_ltsam.data.preprocessing import normalisation_of, saved_image_processor
from hf_ltsam.models.clip_config import CLIP_MEAN, CLIP_STD, TOWERS
from hf_ltsam.models.clip_towers import ClipTowers, TextTower

OPEN_CLIP = ("open_clip:", "hf-hub:", "local-dir:")  # prefixes of open_clip's names
WHOLE = ("clip", "siglip")  # transformers' model types with both towers


def is_clip(name: str) -> bool:
    """Whether the name belongs to a CLIP or SigLIP, whole or image tower alone.

    Raises:
        OSError: there is no such model.
    """
    return name.startswith(OPEN_CLIP) or AutoConfig.from_pretrained(name).model_type in (*WHOLE, *TOWERS)


def load_clip(name: str) -> ClipTowers:
    """The towers of a checkpoint, in float32 on the CPU.

    Raises:
        OSError: there is no such model.
        ValueError: it is neither CLIP nor SigLIP, a model of open_clip with parts that transformers' CLIP lacks, or one
            whose image processor makes pixels in another way than by 1/255, mean and std.
    """
    if name.startswith(OPEN_CLIP):
        from hf_ltsam.models.open_clip_import import load_open_clip

        return load_open_clip(name)
    kind = AutoConfig.from_pretrained(name).model_type
    if kind not in (*WHOLE, *TOWERS):
        raise ValueError(
            f"{name} is of the kind {kind!r}, neither CLIP nor SigLIP. Other image classifiers are loaded by "
            "AutoModelForImageClassification; `ltsam train --model NAME --head cosine` gives them a cosine head."
        )
    model = AutoModel.from_pretrained(name, dtype=torch.float32)
    mean, std = _pixel_statistics(name, kind)
    if kind in TOWERS:
        return ClipTowers(name, model, None, mean, std)
    return ClipTowers(name, model.vision_model, TextTower(model, _Tokenizer(name, model)), mean, std)


class _Tokenizer:
    """Loads the tokenizer with the first text: images need none."""

    def __init__(self, name: str, clip: PreTrainedModel) -> None:
        self.name, self.length = name, clip.config.text_config.max_position_embeddings

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.name)

    def __call__(self, texts: list[str]) -> Tensor:
        # SigLIP was trained on texts padded to its full length; CLIP does not see the padding.
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        return tokens["input_ids"]


def _pixel_statistics(name: str, kind: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of the image processor beside the weights, or else of the published models of this kind."""
    try:
        processor = saved_image_processor(name)
    except OSError:
        return (CLIP_MEAN, CLIP_STD) if kind.startswith("clip") else ((0.5,) * 3, (0.5,) * 3)
    return normalisation_of(processor.to_dict())
