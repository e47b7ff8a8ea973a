"""How the classifier starts, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_ltsam.hyperparameters import COUNT, nearest, require
from hf_ltsam.models.classifier import classifier_of
from hf_ltsam.models.clip_classifier import ClipForLongTail
from hf_ltsam.models.clip_source import ClipSource
from hf_ltsam.models.clip_templates import check_templates
from hf_ltsam.models.cosine_classifier import CosineClassifier
from hf_ltsam.models.cosine_start import class_means, linear_probe
from hf_ltsam.models.frozen_features import frozen_features

FROM_IMAGES = ("class_mean", "linear_probe")
STARTS = ("text", *FROM_IMAGES, "random")


def check_start(
    init: str, train_dataset: Any, class_names: Sequence[str], templates: Sequence[str], max_per_class: int | None
) -> None:
    """Refuse, before a model is loaded, what cannot be started from.

    Raises:
        ValueError: naming the argument.
    """
    if init not in STARTS:
        raise ValueError(f"from_clip(init=...) does not know {init!r}.{nearest(init, STARTS)}")
    if isinstance(class_names, str) or len(class_names) < 2:
        raise ValueError(f"from_clip(class_names=...) must be two or more names, got {class_names!r}.")
    check_templates(templates, "from_clip(templates=...)")
    if init in FROM_IMAGES and train_dataset is None:
        raise ValueError(f"from_clip(init={init!r}) needs images to start from: pass train_dataset=...")
    if max_per_class is not None:
        require(COUNT, "from_clip", max_per_class=max_per_class)


def start_classifier(
    model: ClipForLongTail,
    source: ClipSource,
    init: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    train_dataset: Any,
    max_per_class: int | None,
    progress: bool,
) -> None:
    """Write the class vectors. Arguments as in `ClipForLongTail.from_clip`.

    Raises:
        ValueError: init="text", and the checkpoint has no text tower.
    """
    if init in FROM_IMAGES:
        start_from_images(model, init, train_dataset, max_per_class, progress=progress)
    elif init == "text":
        if source.text is None:
            raise ValueError(
                f"{source.name} is an image tower alone, and init='text' needs the text tower too: name a whole CLIP (such "
                "as openai/clip-vit-base-patch16), or choose init='class_mean', 'linear_probe' or 'random'."
            )
        source.text.clip.to(model.device)
        _write(model.classifier, source.text.class_weights(class_names, templates, progress))


def start_from_images(
    model: PreTrainedModel,
    init: str,
    train_dataset: Any,
    max_per_class: int | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> None:
    """Write class vectors from the frozen features of training images, into any model with a cosine classifier.

    Args:
        model: a transformers model, its classifier a `CosineClassifier`.
        init: "class_mean" or "linear_probe".
        train_dataset, max_per_class, progress: as in `ClipForLongTail.from_clip`.
        num_workers: processes that prepare images.

    Raises:
        ValueError: the classifier is not a cosine classifier, or a class has no image.
    """
    num_classes: int = model.config.num_labels
    classifier = classifier_of(model, num_classes)
    if not isinstance(classifier, CosineClassifier):
        raise ValueError(
            f"init={init!r} gives class vectors of a cosine classifier, and {type(model).__name__} has a linear one: give "
            "it a cosine head (--head cosine)."
        )
    features, labels = frozen_features(
        model, train_dataset, num_classes, max_per_class, num_workers=num_workers, progress=progress
    )
    if init == "class_mean":
        _write(classifier, class_means(features, labels, num_classes))
    else:
        _write(classifier, linear_probe(features, labels, num_classes, float(classifier.scale)))


@torch.no_grad()
def _write(classifier: CosineClassifier, weights: Tensor) -> None:
    classifier.weight.copy_(weights)
