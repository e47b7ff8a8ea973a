"""The two towers of a pretrained CLIP or SigLIP, and class names as directions in the space of its image features."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_ltsam.models.clip_config import CLIP_MEAN, CLIP_STD, ClipForLongTailConfig
from hf_ltsam.models.clip_templates import prompts

BATCH = 256  # prompts per forward pass of the text tower

_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class TextTower:
    """The text side of a `CLIPModel` or `SiglipModel`.

    Args:
        clip: the whole model.
        tokenize: n texts -> token numbers (n, length).
    """

    clip: PreTrainedModel
    tokenize: Callable[[list[str]], Tensor]

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Tensor:
        """n texts -> unit vectors (n, d) in the space that images and texts share."""
        tokens = self.tokenize(list(texts)).to(self.clip.device)
        if self.clip.config.model_type == "siglip":
            return F.normalize(self.clip.text_model(input_ids=tokens).pooler_output)
        # The end-of-text token has the highest number, and a causal tower ignores the padding after it.
        longest = int(tokens.argmax(dim=1).max()) + 1
        pooled = self.clip.text_model(input_ids=tokens[:, :longest]).pooler_output
        return F.normalize(self.clip.text_projection(pooled))

    @torch.no_grad()
    def to_image_features(self, text: Tensor) -> Tensor:
        """Text features (K, d) -> unit vectors (K, D), comparable with image features before their projection.

        CLIP compares a text t and an image feature x by t . (W x) = (t W) . x, with W the visual projection (d, D).
        SigLIP projects neither: its attention pooling gives the image feature in the shared space, so d = D.
        """
        if self.clip.config.model_type == "siglip":
            return F.normalize(text)
        return F.normalize(text @ self.clip.visual_projection.weight)

    def class_weights(self, class_names: Sequence[str], templates: Sequence[str], progress: bool = True) -> Tensor:
        """Unit vectors (C, D): the mean of the unit features of each class's prompts, in the space of image features.

        Raises:
            ValueError: the names are WordNet numbers, which mean nothing to a text tower.
        """
        refuse_wordnet_ids(class_names)
        texts = [prompt for name in class_names for prompt in prompts(name, templates)]
        starts = range(0, len(texts), BATCH)
        bar = tqdm(starts, desc="text features", unit_scale=BATCH, unit=" prompts", disable=not progress, leave=False)
        features = torch.cat([self.features(texts[start : start + BATCH]) for start in bar])  # (C T, d)
        ensemble = features.view(len(class_names), len(templates), -1).mean(dim=1)  # (C, d)
        return self.to_image_features(F.normalize(ensemble))


def refuse_wordnet_ids(class_names: Sequence[str]) -> None:
    """Refuse names like n01440764.

    Raises:
        ValueError: with the way out.
    """
    numbers = [name for name in class_names if _WORDNET_ID.fullmatch(name)]
    if numbers:
        raise ValueError(
            f"{len(numbers)} of {len(class_names)} class names are WordNet numbers such as {numbers[0]}, which mean nothing "
            "to a text tower. Give class names in words (on the command line: --prompt_names FILE, one name on each line), "
            "or start the classifier from images: init class_mean or linear_probe."
        )


@dataclass(frozen=True)
class ClipTowers:
    """A pretrained CLIP or SigLIP.

    Args:
        name: of the checkpoint.
        vision_model: the image tower, float32.
        text: None if the checkpoint is an image tower alone.
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
        """The configuration of a classifier of these classes on the image tower."""
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
