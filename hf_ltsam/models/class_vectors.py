"""Where a new classifier starts: from class names, from class means, or from a linear probe.

Shapes: M samples, C classes, D features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize
from transformers import PreTrainedModel, default_data_collator

from hf_ltsam.data.sample_labels import Collator
from hf_ltsam.hyperparameters import COUNT, nearest, require
from hf_ltsam.models.classifier import classifier_of
from hf_ltsam.models.clip_templates import check_templates
from hf_ltsam.models.clip_towers import ClipTowers
from hf_ltsam.models.cosine_classifier import CosineClassifier
from hf_ltsam.models.frozen_features import features_in_training, frozen_features

FROM_IMAGES = ("class_mean", "linear_probe")
STARTS = ("text", *FROM_IMAGES, "random")
AUTO = "auto"  # of `ltsam train`: one of these, or none
_SCALE_OF_MEANS = 10.0
_TOO_FAR = 2  # times chance: pretrained networks with batch norm begin at up to 1.6, and train well from there


def check_start(
    init: str, train_dataset: Any, class_names: Sequence[str], templates: Sequence[str], max_per_class: int | None
) -> None:
    """Refuse impossible arguments of `ClipForLongTail.from_clip` before a model is loaded.

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
    model: PreTrainedModel,
    towers: ClipTowers,
    init: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    train_dataset: Any,
    max_per_class: int | None,
    progress: bool,
) -> None:
    """Set the class vectors of a `ClipForLongTail`. Arguments as in `ClipForLongTail.from_clip`.

    Raises:
        ValueError: init="text", and the checkpoint has no text tower.
    """
    if init in FROM_IMAGES:
        start_from_images(model, init, train_dataset, max_per_class, progress=progress)
    elif init == "text":
        if towers.text is None:
            raise ValueError(
                f"{towers.name} is an image tower alone, and init='text' needs the text tower too: name a whole CLIP (such "
                "as openai/clip-vit-base-patch16), or choose init='class_mean', 'linear_probe' or 'random'."
            )
        towers.text.clip.to(model.device)
        _write(model.classifier, towers.text.class_weights(class_names, templates, progress))


def start_from_images(
    model: PreTrainedModel,
    init: str,
    train_dataset: Any,
    max_per_class: int | None = None,
    num_workers: int = 0,
    progress: bool = True,
    collator: Collator = default_data_collator,
) -> None:
    """Set the classifier of any model from the frozen features of training images or texts.

    Args:
        model: a transformers model.
        init: "class_mean", or for a `CosineClassifier` "linear_probe".
        train_dataset, max_per_class, progress: as in `ClipForLongTail.from_clip`.
        num_workers: processes that prepare samples.
        collator: makes batches of samples.

    Raises:
        ValueError: a linear probe for a linear layer, a classifier that is frozen or spectrally normalised, or a class
            without a sample.
    """
    num_classes: int = model.config.num_labels
    classifier = classifier_of(model, num_classes, way_out="init='random'")
    if parametrize.is_parametrized(classifier, "weight"):  # it would be written to and stay as it is
        raise ValueError(
            f"init={init!r}: the classifier is spectrally normalised, so its weights are not free to start there. Choose "
            "init='random', or normalise other layers."
        )
    if init == "linear_probe" and not isinstance(classifier, CosineClassifier):
        raise ValueError(
            f"init={init!r} gives class vectors of a cosine classifier, and {type(model).__name__} has a linear one: give "
            "it a cosine head (--head cosine)."
        )
    features, labels = frozen_features(
        model, train_dataset, num_classes, max_per_class, num_workers=num_workers, progress=progress, collator=collator
    )
    _require_every_class(labels, num_classes, model.config.id2label)
    if not isinstance(classifier, CosineClassifier):
        weights, biases = nearest_mean(features, labels, num_classes, classifier.bias is not None)
        moved = features_in_training(model, train_dataset, num_classes, num_workers, collator)
        share = share_in_training(weights, biases, *moved)
        if share < 1:
            warnings.warn(_not_told_apart(init, share), stacklevel=2)
        _write(classifier, share * weights, share * biases)
    elif init == "class_mean":
        _write(classifier, class_means(features, labels, num_classes))
    else:
        _write(classifier, linear_probe(features, labels, num_classes, float(classifier.scale)))


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The direction of the mean unit feature of each class: the unit vector with the largest mean cosine to them.

    Args:
        features: (M, D).
        labels: (M,).
        num_classes: C.

    Returns:
        Unit vectors (C, D).

    Raises:
        ValueError: a class without a sample.
    """
    _require_every_class(labels, num_classes)
    sums = torch.zeros(num_classes, features.shape[1]).index_add_(0, labels, F.normalize(features))
    return F.normalize(sums)


def nearest_mean(features: Tensor, labels: Tensor, num_classes: int, centred: bool = True) -> tuple[Tensor, Tensor]:
    """A linear layer that tells classes by the angle to their mean feature: ours.

    With mu_c the mean of the features of class c, mu that of the C means (0 if not `centred`) and r the mean of
    ||x_i - mu||, logit_c(x) = s (mu_c - mu) . (x - mu) / (||mu_c - mu|| r): s times the cosine, for an x of mean distance.
    s is 10, so that the training starts near these decisions and can still leave them.

    Args:
        features: (M, D).
        labels: (M,).
        num_classes: C.
        centred: False for a layer without a bias.

    Returns:
        Weights (C, D) and biases (C,).

    Raises:
        ValueError: a class without a sample.
    """
    _require_every_class(labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes)[:, None]  # (C, 1)
    means = torch.zeros(num_classes, features.shape[1]).index_add_(0, labels, features) / counts
    centre = means.mean(0) if centred else torch.zeros(features.shape[1])
    distance = (features - centre).norm(dim=1).mean().clamp(min=torch.finfo(features.dtype).tiny)
    weights = _SCALE_OF_MEANS * F.normalize(means - centre) / distance
    return weights, -weights @ centre


def share_in_training(weights: Tensor, biases: Tensor, features: Tensor, labels: Tensor) -> float:
    """The share of a linear layer that a training can start from: 1, unless its cross-entropy there is twice that of chance.

    Where dropout and batch norm move a sample further than classes are apart, as in a network that is not trained, large
    weights would make of it the largest losses. Then it is the best of 1/2, 1/4, ..., by that cross-entropy.

    Args:
        weights: (C, D).
        biases: (C,).
        features: (M, D), of `features_in_training`.
        labels: (M,).
    """
    logits = features @ weights.T + biases
    if F.cross_entropy(logits, labels) <= _TOO_FAR * math.log(len(weights)):
        return 1.0
    return min((0.5**k for k in range(1, 17)), key=lambda share: float(F.cross_entropy(share * logits, labels)))


def _not_told_apart(init: str, share: float) -> str:
    return (
        f"init={init!r}: while training, dropout and batch norm move the features of a sample further than classes are "
        f"apart, so the classifier starts from {share:.1g} of the class means. Are the weights pretrained? If not, start "
        "with init='random', and train from scratch."
    )


def linear_probe(features: Tensor, labels: Tensor, num_classes: int, scale: float) -> Tensor:
    """The directions of a multinomial logistic regression without intercept.

    Minimises sum_i a_i CE(scale w x_i / ||x_i||, y_i) + ||w||^2 / 2 by L-BFGS (scikit-learn's `LogisticRegression` with
    C = 1), where a_i = M / (C n_{y_i}) gives all classes the same total weight.

    Args:
        features: (M, D).
        labels: (M,).
        num_classes: C, at least 2.
        scale: of the cosine classifier.

    Returns:
        Unit vectors (C, D).

    Raises:
        ValueError: a class without a sample.
    """
    from sklearn.linear_model import LogisticRegression

    _require_every_class(labels, num_classes)
    solver = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000, class_weight="balanced")
    solver.fit((scale * F.normalize(features)).double().numpy(), labels.numpy())
    weights = torch.from_numpy(solver.coef_).float()
    if num_classes == 2:  # scikit-learn fits one vector, for the second class
        weights = torch.cat([-weights, weights])
    return F.normalize(weights)


def _require_every_class(labels: Tensor, num_classes: int, names: Mapping[int, str] | None = None) -> None:
    counts = torch.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"Label {len(counts) - 1} is outside the class range 0 to {num_classes - 1}.")
    if int(counts.min()) == 0:
        empty = int(counts.argmin())
        raise ValueError(
            f"Class {(names or {}).get(empty, empty)!r} has no training sample, so its vector cannot start from one: "
            "choose init text or random."
        )


@torch.no_grad()
def _write(classifier: Any, weights: Tensor, biases: Tensor | None = None) -> None:
    classifier.weight.copy_(weights)
    if biases is not None and classifier.bias is not None:
        classifier.bias.copy_(biases)
