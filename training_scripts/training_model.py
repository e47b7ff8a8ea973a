"""The model by name, and the form in which it wants its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    CLIPImageProcessor,
    PreTrainedModel,
)
from transformers.image_utils import PILImageResampling

from hf_ltsam import CifarResNetConfig
from training_scripts.arguments import ModelArguments

OURS = CifarResNetConfig.model_type
Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]        # mean and std per channel


@dataclass(frozen=True)
class ImageFormat:
    """What the pixels of an image must be like.

    Args:
        size: side in pixels; None: any, so that images may stay as they are.
        normalisation: mean and standard deviation per channel, of pixels in [0, 1]; None: to be measured.
    """

    size: int | None = None
    normalisation: Normalisation | None = None


def build_model(arguments: ModelArguments, class_names: Sequence[str], num_channels: int = 3) -> PreTrainedModel:
    """A classifier of these classes; pretrained weights of another number of classes lose their last layer.

    Raises:
        OSError: there is no model of that name, here or on the Hub.
        ValueError: it is no image classifier, or a setting of cifar_resnet is out of its range.
    """
    labels: dict[str, Any] = {"id2label": dict(enumerate(class_names))}
    labels["label2id"] = {name: c for c, name in labels["id2label"].items()}
    if arguments.model == OURS:
        ours = CifarResNetConfig(
            depth=arguments.depth,
            head=arguments.head,
            cosine_scale=arguments.cosine_scale,
            num_channels=num_channels,
            **labels,
        )
        return AutoModelForImageClassification.from_config(ours)
    if num_channels != 3:
        raise ValueError(f"--num_channels {num_channels} needs --model {OURS}; others take colour images, grey ones too.")
    is_timm = AutoConfig.from_pretrained(arguments.model).model_type == "timm_wrapper"
    if is_timm:
        labels["num_labels"] = len(class_names)        # others count id2label
    if arguments.pretrained:
        model = AutoModelForImageClassification.from_pretrained(arguments.model, ignore_mismatched_sizes=True, **labels)
    else:
        model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(arguments.model, **labels))
    if is_timm:
        model.config.label_names = list(class_names)        # which it saves in place of id2label
    return model


def wanted_format(arguments: ModelArguments) -> ImageFormat:
    """What the image processor that lies beside the model's weights states; a new ResNet of ours takes anything.

    Raises:
        OSError: there is no model of that name, or no image processor beside it.
    """
    if arguments.model == OURS:
        return ImageFormat()
    stated = AutoImageProcessor.from_pretrained(arguments.model).to_dict()
    if "data_config" in stated:        # timm's
        timm = stated["data_config"]
        return ImageFormat(timm["input_size"][-1], (tuple(timm["mean"]), tuple(timm["std"])))
    if not stated.get("image_mean") or not stated.get("image_std"):
        raise ValueError(f"The image processor of {arguments.model} states no mean and deviation: choose another model.")
    return ImageFormat(_side(stated, arguments.model), (tuple(stated["image_mean"]), tuple(stated["image_std"])))


def image_processor(
    height: int, width: int, short_side: int | None, mean: Sequence[float], std: Sequence[float]
) -> CLIPImageProcessor:
    """Saved beside the weights, so that `pipeline("image-classification", model=FOLDER)` sees what the test saw.

    Pipelines make colour images: a model of one channel needs images of one channel from elsewhere.

    Args:
        height, width: of what the model sees, in pixels: the centre of the image.
        short_side: to which images are scaled before that; None: to the height or width, whichever is less, which leaves
            images as large as those of the training as they are.
    """
    return CLIPImageProcessor(
        size={"shortest_edge": short_side or min(height, width)},
        resample=PILImageResampling.BILINEAR,
        crop_size={"height": height, "width": width},
        image_mean=list(mean),
        image_std=list(std),
    )


def _side(stated: dict[str, Any], model: str) -> int:
    """The side that the model sees: of the crop where there is one."""
    size = (stated.get("crop_size") if stated.get("do_center_crop") else None) or stated.get("size") or {}
    for name in ("height", "shortest_edge"):
        if name in size:
            return int(size[name])
    raise ValueError(f"The image processor of {model} states no size ({size}): choose a model whose processor has one.")
