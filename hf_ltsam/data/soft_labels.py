"""Labels of several classes: shares of each sample (n, C) in the place of one class index (n,).

Shares are not negative and a row adds up to 1: those of mixed images, smoothed labels, the probabilities of a teacher. Where
classes have a value, a sample has the mean of these values over its shares: with all of a row in one class the value of
that class, to the last bit. Shapes: n samples, C classes, K values of each class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_ltsam.class_statistics import check_label_range

ROUNDING = 0.01  # of a row's sum: shares may come in bfloat16


def are_soft(labels: Tensor) -> bool:
    """Whether a row of C numbers stands for a sample, not a class index."""
    return labels.ndim == 2


def of_samples(values: Tensor, labels: Tensor) -> Tensor:
    """What samples have of the values of classes: (C,) -> (n,), (C, K) -> (n, K).

    Args:
        values: floating-point.
        labels: class indices (n,), or shares (n, C), on the same device.
    """
    return labels.to(values.dtype) @ values if are_soft(labels) else values[labels]


def shares_of(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices (n,) as shares (n, C), float32; shares as they are.

    Raises:
        ValueError: a label on the host outside [0, C).
    """
    if are_soft(labels):
        return labels
    if labels.device.type == "cpu" and len(labels):  # elsewhere it would wait for the device
        check_label_range(labels, num_classes)
    shares = torch.zeros(len(labels), num_classes, device=labels.device)
    return shares.scatter_(1, labels.unsqueeze(1), 1.0)


def smoothed(labels: Tensor, num_classes: int, factor: float) -> Tensor:
    """(1 - factor) q + factor / C (n, C) of labels q, the target of label smoothing.

    Args:
        labels: class indices (n,), or shares (n, C); those of a row that adds up to w become (1 - factor) q + factor w / C.
        factor: in [0, 1].

    Source: Szegedy et al. 2016 Sec. 7; `label_smoothing_factor` of transformers.
    """
    shares = shares_of(labels, num_classes)
    return (1 - factor) * shares + factor / num_classes * shares.sum(1, keepdim=True)


def as_shares(labels: Tensor, most_frequent: int) -> Tensor:
    """Zeros and ones (n, C) as shares: each label of a sample alike; a sample without one is of the most frequent class."""
    none = labels.sum(1, keepdim=True) == 0
    filled = labels.float().masked_fill(
        none & (torch.arange(labels.shape[1], device=labels.device) == most_frequent), 1.0
    )
    return filled / filled.sum(1, keepdim=True)


def present_classes(labels: Tensor) -> list[int]:
    """The classes that samples on the host are of, if in part, in increasing order."""
    if are_soft(labels):
        return (labels > 0).any(0).nonzero().flatten().tolist()
    return sorted(set(labels.tolist()))


def class_sums(labels: Tensor, num_classes: int) -> Tensor:
    """How many samples each class has (C,), of labels on the host; of shares their sums, in float64."""
    return labels.double().sum(0) if are_soft(labels) else torch.bincount(labels, minlength=num_classes)


def check_shares(labels: Tensor, num_classes: int) -> None:
    """Refuse rows that are no shares of C classes.

    Raises:
        ValueError: naming the first such row.
    """
    if labels.shape[1] != num_classes:
        raise ValueError(
            f"Soft labels must be (n, {num_classes}), one column for each class, got {tuple(labels.shape)}."
        )
    if labels.device.type != "cpu" or not len(labels):  # elsewhere it would wait for the device
        return
    sums = labels.double().sum(1)
    wrong = (labels.amin(1) < 0) | ~((sums - 1).abs() <= ROUNDING)  # NaN too
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"Soft labels must be shares of classes: not negative, and each row adds up to 1. Row {row} adds up to "
            f"{float(sums[row]):.4g}, and its smallest number is {float(labels[row].min()):.4g}. Of logits take "
            "softmax(1); for several labels of a sample at a time take loss='binary_cross_entropy'."
        )


def check_several(labels: Tensor, num_classes: int) -> None:
    """Refuse labels that are not between 0 and 1 for each of C classes; between them, since they may have been mixed.

    Raises:
        ValueError: naming the shape or the value.
    """
    if not are_soft(labels):
        raise ValueError(
            f"A loss of several labels takes a 0 or 1 for every class, labels (n, {num_classes}), got "
            f"{tuple(labels.shape)}: for one class of each sample take loss='cross_entropy'."
        )
    if labels.shape[1] != num_classes:
        raise ValueError(f"Labels must be (n, {num_classes}), 0 or 1 for each class, got {tuple(labels.shape)}.")
    if labels.device.type == "cpu" and len(labels) and not bool(((labels >= 0) & (labels <= 1)).all()):
        wrong = labels[~((labels >= 0) & (labels <= 1))][0]
        raise ValueError(f"Labels must be 0 or 1 for each of {num_classes} classes, got {wrong.item():g}.")
