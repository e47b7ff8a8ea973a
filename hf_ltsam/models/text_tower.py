"""Class names as directions in the space of image features."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_ltsam.models.clip_templates import prompts

BATCH = 256  # prompts that go through the tower at once

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
        # The end of the text has the highest number, and a causal tower does not look at what stands behind it.
        longest = int(tokens.argmax(dim=1).max()) + 1
        pooled = self.clip.text_model(input_ids=tokens[:, :longest]).pooler_output
        return F.normalize(self.clip.text_projection(pooled))

    @torch.no_grad()
    def to_image_features(self, text: Tensor) -> Tensor:
        """Text features (K, d) -> unit vectors (K, D), to be compared with image features before their projection.

        A text t and an image feature x meet in CLIP as t . (W x) = (t W) . x, with W the visual projection (d, D).
        SigLIP projects neither: its attention pooling gives the image feature in the shared space, so d = D.
        """
        if self.clip.config.model_type == "siglip":
            return F.normalize(text)
        return F.normalize(text @ self.clip.visual_projection.weight)

    def class_weights(self, class_names: Sequence[str], templates: Sequence[str], progress: bool = True) -> Tensor:
        """Unit vectors (C, D): per class the mean of its prompts' unit features, brought to the image features' space.

        Raises:
            ValueError: the names are WordNet numbers, which say nothing to a text tower.
        """
        refuse_numbers(class_names)
        texts = [prompt for name in class_names for prompt in prompts(name, templates)]
        starts = range(0, len(texts), BATCH)
        bar = tqdm(starts, desc="text features", unit_scale=BATCH, unit=" prompts", disable=not progress, leave=False)
        features = torch.cat([self.features(texts[start : start + BATCH]) for start in bar])  # (C T, d)
        ensemble = features.view(len(class_names), len(templates), -1).mean(dim=1)  # (C, d)
        return self.to_image_features(F.normalize(ensemble))


def refuse_numbers(class_names: Sequence[str]) -> None:
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
