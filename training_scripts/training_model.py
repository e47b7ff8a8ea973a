"""The model by name, and the form in which it wants its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel, ViTImageProcessor

from hf_ltsam import CifarResNetConfig
from training_scripts.arguments import ModelArguments

OURS = CifarResNetConfig.model_type


@dataclass(frozen=True)
class ImageFormat:
    """What a model was trained on.

    Args:
        size: side in pixels; None: any, so that images may stay as they are.
        mean: per channel, of pixels in [0, 1]; None: to be measured on the training images.
        std: likewise.
    """

    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def build_model(arguments: ModelArguments, class_names: Sequence[str]) -> PreTrainedModel:
    """A classifier of these classes; pretrained weights of another number of classes lose their last layer.

    Raises:
        OSError: there is no model of that name, here or on the Hub.
    """
    labels = {"id2label": dict(enumerate(class_names)), "label2id": {name: c for c, name in enumerate(class_names)}}
    if arguments.model == OURS:
        ours = CifarResNetConfig(
            depth=arguments.depth, head=arguments.head, cosine_scale=arguments.cosine_scale, **labels
        )
        return AutoModelForImageClassification.from_config(ours)
    labels["num_labels"] = len(class_names)
    if arguments.pretrained:
        return AutoModelForImageClassification.from_pretrained(arguments.model, ignore_mismatched_sizes=True, **labels)
    return AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(arguments.model, **labels))


def image_format(arguments: ModelArguments) -> ImageFormat:
    """The form that the model's own image processor states; of our ResNets any."""
    if arguments.model == OURS or AutoConfig.from_pretrained(arguments.model).model_type == OURS:
        return ImageFormat()
    processor = AutoImageProcessor.from_pretrained(arguments.model)
    settings = processor.to_dict()
    if "data_config" in settings:        # timm's
        timm = settings["data_config"]
        return ImageFormat(timm["input_size"][-1], tuple(timm["mean"]), tuple(timm["std"]))
    return ImageFormat(_side(settings["size"]), tuple(settings["image_mean"]), tuple(settings["image_std"]))


def image_processor(form: ImageFormat) -> ViTImageProcessor:
    """What `pipeline("image-classification")` needs beside the weights; saved with every checkpoint."""
    size = {"height": form.size, "width": form.size}
    return ViTImageProcessor(size=size, image_mean=list(form.mean or ()), image_std=list(form.std or ()))


def _side(size: dict[str, Any]) -> int:
    return int(size.get("height") or size["shortest_edge"])
