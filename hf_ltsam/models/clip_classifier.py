"""The image tower of CLIP or SigLIP with a cosine classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from hf_ltsam.models.class_vectors import check_start, start_classifier
from hf_ltsam.models.clip_config import ClipForLongTailConfig
from hf_ltsam.models.clip_source import load_clip
from hf_ltsam.models.clip_templates import ONE
from hf_ltsam.models.cosine_classifier import CosineClassifier, init_unloaded


class ClipForLongTail(PreTrainedModel):
    """logits = scale * cos(feature, weight_c), the model that LIFT (Shi et al. 2024) and Li et al. 2025 fine-tune.

    The feature is as wide as the tower, before any projection: CLIP's class token after the last layer norm (768 for
    ViT-B), or the output of SigLIP's attention pooling. `from_clip` starts the classifier from class names.
    """

    config_class = ClipForLongTailConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ("CLIPEncoderLayer", "CLIPVisionEmbeddings", "SiglipEncoderLayer", "SiglipVisionEmbeddings")

    def __init__(self, config: ClipForLongTailConfig) -> None:
        super().__init__(config)
        config.check()
        self.vision_model = AutoModel.from_config(config.vision_config)
        self.classifier = CosineClassifier(
            config.vision_config.hidden_size, config.num_labels, config.cosine_scale, config.learnable_scale
        )
        self.post_init()

    @classmethod
    def from_clip(
        cls,
        name_or_path: str,
        class_names: Sequence[str],
        templates: Sequence[str] = ONE,
        init: str = "text",
        *,
        train_dataset: Any = None,
        max_per_class: int | None = None,
        cosine_scale: float = 25.0,
        learnable_scale: bool = False,
        attn_implementation: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: bool = True,
    ) -> ClipForLongTail:
        """A pretrained image tower with an informed classifier; the text tower is used once and dropped.

        Args:
            name_or_path: a CLIP or SigLIP of transformers, by its name on the Hub or a folder; or one of open_clip:
                "open_clip:ViT-B-16/laion2b_s34b_b88k", "open_clip:ViT-B-16/path/to/weights.pt", "hf-hub:OWNER/NAME",
                "local-dir:FOLDER".
            class_names: C names, in the order of the labels. In prompts, underscores become spaces.
            templates: prompts with {} for the name, used by init="text": `clip_templates.ONE`,
                `clip_templates.CLIP80`, or your own. The features of several are averaged.
            init: "text", "class_mean", "linear_probe" or "random".
            train_dataset: for "class_mean" and "linear_probe": samples `{"pixel_values": (3, H, W), "labels": int}`,
                without random augmentation.
            max_per_class: how many samples of every class are used, the first ones of the data set; None: all.
            cosine_scale: > 0.
            learnable_scale: train the scale with the rest.
            attn_implementation: "eager", "sdpa", ...; None: transformers' choice. Second derivatives need "eager".
            dtype: of the weights. The class vectors are computed in float32.
            device: for computing the class vectors, and of the returned model.
            progress: whether to show a progress bar.

        Raises:
            ValueError: a text tower is needed and missing, an unknown `init`, or an architecture that cannot be
                converted.
            OSError: there is no such model.
        """
        check_start(init, train_dataset, class_names, templates, max_per_class)
        towers = load_clip(name_or_path)
        config = towers.config(class_names, cosine_scale, learnable_scale)
        model = cls.on_tower(towers.vision_model, config, attn_implementation).to(device)
        start_classifier(model, towers, init, class_names, templates, train_dataset, max_per_class, progress)
        return model.to(dtype)

    @classmethod
    def on_tower(
        cls, tower: PreTrainedModel, config: ClipForLongTailConfig, attn_implementation: str | None = None
    ) -> ClipForLongTail:
        """A random classifier on the weights of this image tower and in their type, in evaluation mode.

        Raises:
            RuntimeError: the sizes of the tower are not those of `config.vision_config`.
        """
        model = cls._from_config(config, attn_implementation=attn_implementation, dtype=tower.dtype)
        model.vision_model.load_state_dict(tower.state_dict())
        return model.eval()

    def features(self, pixel_values: Tensor) -> Tensor:
        """Images (n, 3, H, W) -> input of the classifier (n, D)."""
        return self.vision_model(pixel_values=pixel_values).pooler_output

    # No **kwargs: transformers' Trainer takes them as a promise to scale the loss itself (transformers#47688).
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Logits (n, C); with labels (n,), the loss is their mean cross-entropy."""
        logits = self.classifier(self.features(pixel_values))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, CosineClassifier):
            init_unloaded(module, self.config.cosine_scale)
        else:
            super()._init_weights(module)
