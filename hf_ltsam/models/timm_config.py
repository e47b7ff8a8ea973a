"""Preprocessing and class names in the configuration of a timm model, which transformers and timm read before any other."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

from hf_ltsam.data.preprocessing import Preprocessing

MODEL_TYPE = "timm_wrapper"


def state_image_processor(config: Any, processor: Any) -> bool:
    """Make the configuration of a timm model name the image processor that is saved beside it.

    `AutoImageProcessor` and pipelines read `image_processor_type` and then preprocessor_config.json; without it they read
    `pretrained_cfg` of a folder and preprocessor_config.json of the same folder on the Hub. timm itself reads
    `pretrained_cfg`, which says the same as far as it can.

    Args:
        config: changed in place; of another kind of model, or of none of transformers', it stays as it is.
        processor: what is saved beside the model; anything but an image processor, and timm's own, changes nothing.

    Returns:
        Whether the configuration names the processor now.
    """
    if getattr(config, "model_type", None) != MODEL_TYPE or not isinstance(processor, BaseImageProcessor):
        return False
    settings = processor.to_dict()
    if "data_config" in settings:  # timm's own, which is never saved: `pretrained_cfg` is what it was made from
        return False
    config.image_processor_type = settings["image_processor_type"]
    try:
        stated = _pretrained_cfg(Preprocessing.from_image_processor(processor))
    except ValueError:  # steps that timm has no words for
        return True
    config.pretrained_cfg = {**(getattr(config, "pretrained_cfg", None) or {}), **stated}
    return True


def state_class_names(config: Any) -> bool:
    """Make the configuration of a timm model name its present classes: it saves `label_names` in place of `id2label`.

    Args:
        config: changed in place; of another kind of model, or of none of transformers', it stays as it is.

    Returns:
        Whether the names were others.
    """
    if getattr(config, "model_type", None) != MODEL_TYPE:
        return False
    before, config.label_names = getattr(config, "label_names", None), list(config.id2label.values())
    return bool(before != config.label_names)


def _pretrained_cfg(preprocessing: Preprocessing) -> dict[str, Any]:
    """timm scales to input_size / crop_pct, rounded down."""
    side = min(preprocessing.height, preprocessing.width)
    share = 1.0 if preprocessing.short_side is None else side / preprocessing.short_side
    if preprocessing.short_side is not None and math.floor(side / share) < preprocessing.short_side:
        share = math.nextafter(share, 0)
    size = [preprocessing.channels, preprocessing.height, preprocessing.width]
    return {
        "input_size": size,
        "test_input_size": size,
        "crop_pct": share,
        "test_crop_pct": share,
        "crop_mode": "squash" if preprocessing.short_side is None else "center",
        "interpolation": Image.Resampling(preprocessing.resample).name.lower(),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }
