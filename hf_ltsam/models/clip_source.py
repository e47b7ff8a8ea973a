"""A pretrained CLIP or SigLIP by name, from transformers or open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedModel

from hf_ltsam.models.clip_config import CLIP_MEAN, CLIP_STD, TOWERS, ClipForLongTailConfig
from hf_ltsam.models.text_tower import TextTower

OPEN_CLIP = ("open_clip:", "hf-hub:", "local-dir:")  # how the names of open_clip's models begin
WHOLE = ("clip", "siglip")  # transformers' model types with both towers


@dataclass(frozen=True)
class ClipSource:
    """What a checkpoint holds.

    Args:
        name: under which it was found.
        vision_model: the image tower, float32.
        text: None where the checkpoint is an image tower alone.
        image_mean, image_std: per channel, of pixels in [0, 1].
    """

    name: str
    vision_model: PreTrainedModel
    text: TextTower | None
    image_mean: Sequence[float] = CLIP_MEAN
    image_std: Sequence[float] = CLIP_STD

    def config(
        self, class_names: Sequence[str], cosine_scale: float = 25.0, learnable_scale: bool = False
    ) -> ClipForLongTailConfig:
        """Of a classifier of these classes on this tower."""
        return ClipForLongTailConfig(
            name_or_path=self.name,
            vision_config=self.vision_model.config.to_dict(),
            cosine_scale=cosine_scale,
            learnable_scale=learnable_scale,
            image_mean=list(self.image_mean),
            image_std=list(self.image_std),
            id2label=dict(enumerate(class_names)),
            label2id={name: c for c, name in enumerate(class_names)},
        )


def is_clip(name: str) -> bool:
    """Whether the name belongs to a CLIP or SigLIP, whole or image tower alone.

    Raises:
        OSError: there is no such model.
    """
    return name.startswith(OPEN_CLIP) or AutoConfig.from_pretrained(name).model_type in (*WHOLE, *TOWERS)


def load_clip(name: str) -> ClipSource:
    """Weights in float32, on the CPU.

    Raises:
        OSError: there is no such model.
        ValueError: it is neither CLIP nor SigLIP, or open_clip has it with parts that transformers' CLIP lacks.
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
        return ClipSource(name, model, None, mean, std)
    return ClipSource(name, model.vision_model, TextTower(model, _Tokenizer(name, model)), mean, std)


class _Tokenizer:
    """Loads the tokenizer when the first text comes: images need none."""

    def __init__(self, name: str, clip: PreTrainedModel) -> None:
        self.name, self.length = name, clip.config.text_config.max_position_embeddings

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.name)

    def __call__(self, texts: list[str]) -> Tensor:
        # SigLIP was trained on texts filled up to its full length, CLIP does not see what is filled up.
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        return tokens["input_ids"]


def _pixel_statistics(name: str, kind: str) -> tuple[Sequence[float], Sequence[float]]:
    """Those of the image processor beside the weights, or else those of the published models of this kind."""
    try:
        stated = AutoImageProcessor.from_pretrained(name).to_dict()
    except OSError:
        return (CLIP_MEAN, CLIP_STD) if kind.startswith("clip") else ((0.5,) * 3, (0.5,) * 3)
    return stated["image_mean"], stated["image_std"]
