"""The logits in the output of a classifier, their means over views, and checks of logits, labels and losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_ltsam.data.labels import NO_CLASSES
from hf_ltsam.data.soft_labels import are_soft, check_several, check_shares


def logits_of(outputs: Any) -> Tensor:
    """The logits (n, C) in the output of a model.

    Args:
        outputs: a tensor, a mapping or output object with `logits`, or a tuple that starts with them.

    Raises:
        TypeError: any other output.
    """
    if isinstance(outputs, Tensor):
        return outputs
    logits = (
        outputs.get("logits") if isinstance(outputs, Mapping) else outputs[0] if isinstance(outputs, tuple) else None
    )
    if isinstance(logits, Tensor):
        return logits
    kind = f"a mapping with {sorted(outputs)}" if isinstance(outputs, Mapping) else type(outputs).__name__
    raise TypeError(f"The model must return logits (n, C), as a tensor or under the key 'logits'; it returned {kind}.")


def averaged_logits(model: nn.Module, views: Tensor) -> Tensor:
    """Mean of the logits over the views of every image (n, C), in float32 or wider.

    One pass for every view, each over n images, takes as much memory as a test without views.

    Args:
        model: called with `pixel_values=`.
        views: (n, V, channels, height, width), as `Preprocessing.views` makes them.
    """
    per_view = [logits_of(model(pixel_values=view)) for view in views.unbind(dim=1)]
    wide = [logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in per_view]
    return torch.stack(wide).mean(dim=0)


def check_num_classes(num_logits: int, num_classes: int) -> None:
    """Refuse a model with another number of classes than the training set.

    Raises:
        ValueError: naming both numbers.
    """
    if num_logits != num_classes:
        other = (
            "for regression take loss='model'" if num_logits == 1 else "pass the class_statistics of all its classes"
        )
        raise ValueError(
            f"The model has {num_logits} logits but the class statistics have {num_classes} classes. "
            f"Build the model with num_labels={num_classes}, or {other}."
        )


def check_losses(losses: Tensor, labels: Tensor) -> None:
    """Refuse a loss that reduces or broadcasts.

    Args:
        losses: (n,).
        labels: (n,), or soft ones (n, C).

    Raises:
        ValueError: not one loss per sample.
    """
    if losses.shape != labels.shape[:1]:
        raise ValueError(
            f"The loss returned shape {tuple(losses.shape)} for {len(labels)} samples; it must be one value per sample, "
            f"({len(labels)},). Do not reduce: cross_entropy(..., reduction='none')."
        )


def check_logits(logits: Tensor, labels: Tensor, num_classes: int, several: bool = False) -> None:
    """Refuse shapes that do not fit, before they broadcast into nonsense.

    Args:
        several: whether labels are 0 or 1 for every class, and not shares of classes.

    Raises:
        ValueError: logits that are not (n, C), a label outside [0, C), or soft labels (n, C) that are no shares.
    """
    if not are_soft(labels) and (labels.ndim != 1 or labels.is_floating_point()):
        raise ValueError(
            f"Labels must be class indices (n,) of an integer type, or shares of the classes (n, C), got shape "
            f"{tuple(labels.shape)} of {labels.dtype}. {NO_CLASSES}"
        )
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"Logits must be (n, C) with one row per label, got {tuple(logits.shape)} for {len(labels)} labels. "
            "A model of tokens or pixels trains by its own loss: loss='model'."
        )
    if several:
        check_several(labels, num_classes)
    elif are_soft(labels):
        check_shares(labels, num_classes)
    # On an accelerator this would wait for the device; the label column was checked before the training.
    elif labels.device.type == "cpu" and len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"Labels from {labels.min()} to {labels.max()} are outside the class range 0 to {num_classes - 1}."
        )
    check_num_classes(logits.shape[1], num_classes)
