"""Configuration of `ClipForLongTail`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from hf_ltsam.hyperparameters import POSITIVE, nearest, require

TOWERS = ("clip_vision_model", "siglip_vision_model")  # transformers' model types for image towers

# Pixel statistics per channel in the training of CLIP (Radford et al. 2021); SigLIP's are 0.5 throughout.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipForLongTailConfig(PreTrainedConfig):
    """Configuration of `ClipForLongTail`.

    Args:
        vision_config: of the image tower: a `CLIPVisionConfig` or `SiglipVisionConfig`, or its mapping.
        cosine_scale: factor from cosine to logit, > 0; 25 in LIFT (Shi et al. 2024). The initial value of a learnable one.
        learnable_scale: train the scale with the rest.
        image_mean, image_std: per channel, of pixels in [0, 1], in the training of the tower.
        kwargs: the settings of every transformers configuration: num_labels, id2label, label2id, dtype, ...

    Raises:
        ValueError: a scale that is not positive, or another kind of image tower.
    """

    model_type = "hf_ltsam_clip_long_tail"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": AutoConfig}

    vision_config: Any = None
    cosine_scale: float = 25.0
    learnable_scale: bool = False
    image_mean: Sequence[float] = CLIP_MEAN
    image_std: Sequence[float] = CLIP_STD

    def __post_init__(self, **kwargs: Any) -> None:
        tower = {} if self.vision_config is None else self.vision_config
        self.vision_config = _tower_config(tower) if isinstance(tower, dict) else tower
        super().__post_init__(**kwargs)
        self.check()

    def check(self) -> None:
        """Refuse values that no model can be built from; the model checks again, since a configuration may be changed.

        Raises:
            ValueError: naming the setting, its domain and its value.
        """
        require(POSITIVE, self, cosine_scale=self.cosine_scale)
        kind = self.vision_config.model_type
        if kind not in TOWERS:
            raise ValueError(
                f"ClipForLongTailConfig(vision_config=...) is of the kind {kind!r}.{nearest(kind, TOWERS)}"
            )
        # transformers 5.10's SigLIP has no default for vision_use_head
        if kind == "siglip_vision_model" and not self.vision_config.to_dict().get("vision_use_head", True):
            raise ValueError(
                "ClipForLongTailConfig(vision_config=...) is a SigLIP tower without its attention pooling "
                "(vision_use_head=False), so it has no image feature: set vision_use_head=True."
            )


def _tower_config(values: dict[str, Any]) -> PreTrainedConfig:
    kind = values.get("model_type", TOWERS[0])
    if kind not in TOWERS:
        raise ValueError(f"ClipForLongTailConfig(vision_config=...) is of the kind {kind!r}.{nearest(kind, TOWERS)}")
    return CONFIG_MAPPING[kind](**values)
