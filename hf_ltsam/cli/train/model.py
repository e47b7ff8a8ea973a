"""The model by name, and the form of the images or texts that it takes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import logging

from hf_ltsam import CifarResNetConfig
from hf_ltsam.cli.model_names import OURS, timm_architecture, timm_config, timm_preprocessing
from hf_ltsam.cli.train.settings import DataArguments, ModelArguments
from hf_ltsam.data.class_names import Names, comparable, contradiction, names_of_model
from hf_ltsam.data.preprocessing import normalisation_of, saved_image_processor
from hf_ltsam.data.texts import Tokenization
from hf_ltsam.models import ClipForLongTail, CosineHeadForImageClassification, CosineHeadForSequenceClassification
from hf_ltsam.models.class_vectors import AUTO, FROM_IMAGES
from hf_ltsam.models.classifier import classifier_of
from hf_ltsam.models.clip_source import OPEN_CLIP, is_clip
from hf_ltsam.models.clip_templates import templates_named
from hf_ltsam.models.cosine_head import CosineHead
from hf_ltsam.models.text_classifier import (
    classifies_texts,
    encoder_config,
    four_bits,
    heads,
    never_repacked,
    with_padding,
)
from hf_ltsam.models.timm_config import state_class_names
from hf_ltsam.training.refusals.problem import SINGLE_LABEL
from hf_ltsam.training.training_set import without_adapter

logger = logging.get_logger(__name__)

SCALE = 25.0  # of a cosine head on a pretrained model; LIFT (Shi et al. 2024)
Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std per channel


@dataclass(frozen=True)
class ImageFormat:
    """The format of the images that a model takes.

    Args:
        size: side in pixels; None: any, so that images may stay as they are.
        normalisation: mean and standard deviation per channel, of pixels in [0, 1]; None: to be measured.
    """

    size: int | None = None
    normalisation: Normalisation | None = None


def build_model(
    arguments: ModelArguments,
    class_names: Sequence[str],
    num_channels: int = 3,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> PreTrainedModel:
    """A classifier of these classes; pretrained weights of another number of classes lose their last layer.

    Args:
        device, progress: where a text tower is run, and whether with a bar.

    Raises:
        OSError: there is no model of that name, here or on the Hub.
        ValueError: it is no image classifier, or a setting of cifar_resnet is out of its range.
    """
    labels: dict[str, Any] = {"id2label": dict(enumerate(class_names))}
    labels["label2id"] = {name: c for c, name in labels["id2label"].items()}
    if arguments.model == OURS:
        return _cifar_resnet(arguments, labels, num_channels)
    if num_channels != 3:
        raise ValueError(
            f"--num_channels {num_channels} needs --model {OURS}; others take colour images, grey ones too."
        )
    if (architecture := _untrained_timm(arguments)) is not None:
        config = timm_config(architecture, num_labels=len(class_names), label_names=list(class_names), **labels)
        return _with_head(AutoModelForImageClassification.from_config(config), arguments)
    if is_clip(arguments.model):
        return _clip(arguments, class_names, device, progress)
    _refuse_names(arguments)
    return _with_head(_pretrained(arguments, class_names, labels), arguments)


def _cifar_resnet(arguments: ModelArguments, labels: dict[str, Any], num_channels: int) -> PreTrainedModel:
    if arguments.head != "cosine":
        _refuse_scale(arguments)
    config = CifarResNetConfig(
        depth=arguments.depth,
        head=arguments.head,
        cosine_scale=30.0 if arguments.cosine_scale is None else arguments.cosine_scale,  # LDAM's s
        num_channels=num_channels,
        **labels,
    )
    return AutoModelForImageClassification.from_config(config)


def _untrained_timm(arguments: ModelArguments) -> str | None:
    """The name inside timm of one of its models that starts at random: it needs no Hub."""
    return None if arguments.pretrained else timm_architecture(arguments.model)


def build_text_model(
    arguments: ModelArguments, class_names: Sequence[str], compute: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A classifier of texts: any encoder or decoder of transformers with a classification head.

    Args:
        compute: of matrix products, where the weights have 4 bits.

    Raises:
        OSError: there is no model of that name, here or on the Hub.
        ValueError: it is no model of texts.
    """
    _refuse_names(arguments)
    labels: dict[str, Any] = {"id2label": dict(enumerate(class_names)), "problem_type": SINGLE_LABEL}
    labels["label2id"] = {name: c for c, name in enumerate(class_names)}
    config = AutoConfig.from_pretrained(arguments.model, **labels)
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise ValueError(
            f"--model {arguments.model} ({config.model_type}) is no model of texts, and the data are texts: name another, "
            "such as distilbert/distilbert-base-uncased."
        )
    if not arguments.pretrained:
        return _with_head(AutoModelForSequenceClassification.from_config(config, dtype=torch.float32), arguments)
    quantization: dict[str, Any] = {}
    if arguments.load_in_4bit:
        with torch.device("meta"):
            kept = heads(AutoModelForSequenceClassification.from_config(config))
        quantization = {"quantization_config": four_bits(compute, kept)}
    stored = AutoConfig.from_pretrained(arguments.model)
    _tell_dtype(arguments.model, stored.dtype)
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.model, dtype=torch.float32, ignore_mismatched_sizes=True, **labels, **quantization
    )
    before = names_of_model(stored.id2label)
    if before is not None and len(before) == len(class_names):
        _follow_names(model, before, class_names, arguments.model)
    return _with_head(never_repacked(model), arguments)


def _pretrained(arguments: ModelArguments, class_names: Sequence[str], labels: dict[str, Any]) -> PreTrainedModel:
    labels = {**labels, "problem_type": SINGLE_LABEL}  # of the task at hand, whatever the stored model was made for
    stored = AutoConfig.from_pretrained(arguments.model)
    if type(stored) not in AutoModelForImageClassification._model_mapping:
        raise ValueError(
            f"--model {arguments.model} ({stored.model_type}) is no model of images, and the data are images: name another, "
            "such as microsoft/resnet-18. (If they are texts, --text_column names their column.)"
        )
    is_timm, before = stored.model_type == "timm_wrapper", names_of_model(stored.id2label)
    if is_timm:
        labels = {**labels, "num_labels": len(class_names)}  # others count id2label
    if arguments.pretrained:
        _tell_dtype(arguments.model, stored.dtype)
        model = AutoModelForImageClassification.from_pretrained(
            arguments.model, dtype=torch.float32, ignore_mismatched_sizes=True, **labels
        )
    else:
        config = AutoConfig.from_pretrained(arguments.model, **labels)
        model = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    if is_timm:
        state_class_names(model.config)
    if arguments.pretrained and before is not None and len(before) == len(class_names):
        _follow_names(model, before, class_names, arguments.model)
    return model


def _tell_dtype(name: str, stored: torch.dtype | None) -> None:
    if stored not in (None, torch.float32):
        logger.warning(
            f"{name} is stored in {str(stored).removeprefix('torch.')}. Its weights are trained and saved in float32: in "
            "less, small updates and perturbations vanish. --bf16 true keeps the passes fast."
        )


def _follow_names(model: PreTrainedModel, before: Names, class_names: Sequence[str], name: str) -> None:
    """Put the rows of a pretrained classifier into the order of the data set's names; rows of other names fill up."""
    c, spelling = contradiction(before, class_names), comparable(before, class_names)
    if c is None or spelling is None:
        return
    difference = (
        f"--model {name} numbers classes otherwise than the data set: class {c} is {before[c]!r} there and "
        f"{class_names[c]!r} here"
    )
    try:
        classifier = classifier_of(model, len(class_names))
    except ValueError:
        warnings.warn(f"{difference}. Its classifier starts from rows of other classes.", stacklevel=2)
        return
    warnings.warn(f"{difference}. The rows of its classifier follow the names.", stacklevel=2)
    row = {spelling(known): k for k, known in enumerate(before)}
    rows = [row.get(spelling(wanted)) for wanted in class_names]
    left_over = iter(sorted(set(row.values()) - set(rows)))
    order = torch.tensor([next(left_over) if k is None else k for k in rows])
    with torch.no_grad():
        for weights in classifier.parameters():
            if weights.ndim and len(weights) == len(order):  # the scale of a cosine head is one number
                weights.copy_(weights[order])


def _clip(
    arguments: ModelArguments, class_names: Sequence[str], device: torch.device | str, progress: bool
) -> ClipForLongTail:
    """A CLIP; class vectors from images are set later, when there are images."""
    if not arguments.pretrained:
        raise ValueError(
            f"--pretrained false: without its weights {arguments.model} is a plain ViT, without text features."
        )
    if not arguments.model.startswith(OPEN_CLIP):  # whose files do not say
        _tell_dtype(arguments.model, AutoConfig.from_pretrained(arguments.model).dtype)
    init = "text" if arguments.init in (None, AUTO) else arguments.init
    names = list(class_names) if arguments.prompt_names is None else _lines(arguments.prompt_names, len(class_names))
    model = ClipForLongTail.from_clip(
        arguments.model,
        names,
        templates_named(arguments.templates),
        "random" if init in FROM_IMAGES else init,
        cosine_scale=SCALE if arguments.cosine_scale is None else arguments.cosine_scale,
        learnable_scale=arguments.learnable_scale,
        device=device,
        progress=progress,
    )
    model.config.id2label = dict(enumerate(class_names))
    model.config.label2id = {name: c for c, name in enumerate(class_names)}
    return model


def _with_head(model: PreTrainedModel, arguments: ModelArguments) -> PreTrainedModel:
    if isinstance(model, ClipForLongTail | CosineHead):
        return model  # a run of ours, which has a cosine head
    if arguments.head == "cosine":
        scale = SCALE if arguments.cosine_scale is None else arguments.cosine_scale
        head = CosineHeadForSequenceClassification if classifies_texts(model) else CosineHeadForImageClassification
        wrapped: PreTrainedModel = head.of(model, scale, arguments.learnable_scale)
        return wrapped
    if arguments.init == "linear_probe":
        raise ValueError(f"--init {arguments.init} gives class vectors of a cosine head: add --head cosine.")
    _refuse_scale(arguments)
    return model


def _refuse_scale(arguments: ModelArguments) -> None:
    """Of a linear head, which has none."""
    if arguments.cosine_scale is not None or arguments.learnable_scale:
        name = "learnable_scale true" if arguments.cosine_scale is None else f"cosine_scale {arguments.cosine_scale:g}"
        raise ValueError(
            f"--{name} is of a cosine head, and --head {arguments.head} has none: add --head cosine, or leave it out."
        )


def start_from(arguments: ModelArguments, model: PreTrainedModel, sharded: bool = False) -> str | None:
    """What the classifier starts from, as `start_from_images` takes it; None: as it is.

    A new one by default from class means, where it is one linear layer: the stored weights are of no classifier, or of
    other classes.

    Args:
        sharded: whether no process will have all of the model.
    """
    if arguments.init != AUTO:
        return arguments.init if arguments.init in FROM_IMAGES else None
    if not arguments.pretrained or isinstance(model, ClipForLongTail) or sharded:  # features need all of the model
        return None
    stored, num_classes = AutoConfig.from_pretrained(arguments.model), model.config.num_labels
    classifies = stored.model_type == "timm_wrapper" or any(
        name.endswith("Classification") for name in stored.architectures or ()
    )
    if classifies and stored.num_labels == num_classes:
        return None
    try:
        classifier = classifier_of(model, num_classes)
    except ValueError:
        return None
    free = isinstance(classifier, nn.Linear) and not parametrize.is_parametrized(classifier)
    return "class_mean" if free else None


def _refuse_names(arguments: ModelArguments) -> None:
    """As the start of a classifier, which names of classes can be for CLIP alone."""
    if arguments.init == "text":
        raise ValueError(
            f"--init text: {arguments.model} is no CLIP, so it has no text tower. class_mean or linear_probe?"
        )


def adapted(model: PreTrainedModel, arguments: ModelArguments) -> nn.Module:
    """The model with what `--adapter` names, or as it is.

    Raises:
        ValueError: there is no such adapter, or it does not go with the model.
    """
    if arguments.adapter is None:
        return model
    from hf_ltsam.adapters import make_adapter

    args = arguments.adapter_args if isinstance(arguments.adapter_args, dict) else {}
    return make_adapter(model, arguments.adapter, args, model.config.num_labels)


def _lines(path: str, num_classes: int) -> list[str]:
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(lines) != num_classes:
        raise ValueError(
            f"--prompt_names {path} has {len(lines)} names, and there are {num_classes} classes: one on each line."
        )
    return lines


def input_format(model: nn.Module, arguments: ModelArguments, data: DataArguments) -> ImageFormat | Tokenization:
    """What a model takes that was built from these arguments, with an adapter or without.

    Raises:
        OSError: no image processor or tokenizer lies beside the weights that the model started from.
        ValueError: a CLIP of another image size, or texts longer than the model takes.
    """
    inner = without_adapter(model)
    if isinstance(inner, PreTrainedModel) and classifies_texts(inner):
        tokenization = Tokenization.beside(arguments.model)
        with_padding(inner, tokenization.tokenizer)
        return tokenization.cut_at(data.max_length, getattr(encoder_config(inner), "max_position_embeddings", None))
    return clip_format(inner, data.image_size) if isinstance(inner, ClipForLongTail) else wanted_format(arguments)


def clip_format(model: ClipForLongTail, image_size: int | None) -> ImageFormat:
    """The image format that the image tower was trained with.

    Raises:
        ValueError: another size is asked for.
    """
    config = model.config
    if image_size not in (None, config.vision_config.image_size):
        raise ValueError(
            f"--image_size {image_size}: the image tower takes images of {config.vision_config.image_size} pixels and no "
            "others. Leave --image_size out, and images of any size are scaled."
        )
    return ImageFormat(config.vision_config.image_size, (tuple(config.image_mean), tuple(config.image_std)))


def wanted_format(arguments: ModelArguments) -> ImageFormat:
    """The image format that the image processor beside the model's weights states; a new ResNet of ours takes any.

    Raises:
        OSError: there is no model of that name, or no image processor beside it.
        ValueError: pixels that are made in another way than by 1/255, mean and deviation, or a processor without a size.
    """
    if (architecture := _untrained_timm(arguments)) is not None:
        timm = timm_preprocessing(architecture)
        return ImageFormat(timm["input_size"][-1], (tuple(timm["mean"]), tuple(timm["std"])))
    if arguments.model == OURS:
        return ImageFormat()
    stated = saved_image_processor(arguments.model).to_dict()
    if "data_config" in stated:  # timm's
        timm = stated["data_config"]
        return ImageFormat(timm["input_size"][-1], (tuple(timm["mean"]), tuple(timm["std"])))
    if not stated.get("image_mean") or not stated.get("image_std"):
        raise ValueError(
            f"The image processor of {arguments.model} states no mean and deviation: choose another model."
        )
    return ImageFormat(_side(stated, arguments.model), normalisation_of(stated))


def _side(stated: dict[str, Any], model: str) -> int:
    """The side that the model sees: of the crop where there is one."""
    size = (stated.get("crop_size") if stated.get("do_center_crop") else None) or stated.get("size") or {}
    for name in ("height", "shortest_edge"):
        if name in size:
            return int(size[name])
    raise ValueError(f"The image processor of {model} states no size ({size}): choose a model whose processor has one.")
