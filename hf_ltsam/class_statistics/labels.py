"""Labels of a training set as they are given: whole numbers, shares of classes or several labels of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHOWN = 10  # classes that a message names
NAMES_TO_NUMBERS = (
    "Names of classes must be mapped to 0 to C-1 in the data set itself: dataset.class_encode_column('labels') does it for "
    "one of `datasets`; elsewhere number = {name: c for c, name in enumerate(sorted(set(labels)))} and number[y] in the "
    "place of y."
)


def check_label_range(labels: Tensor, num_classes: int) -> None:
    """Refuse labels (N,) outside [0, C).

    Raises:
        ValueError: naming the label and its first position.
    """
    largest, smallest = int(labels.max()), int(labels.min())
    if smallest < 0 or largest >= num_classes:
        wrong = smallest if smallest < 0 else largest
        where = int((labels == wrong).nonzero()[0, 0])
        raise ValueError(
            f"Label {wrong} (first at position {where}) is outside the class range 0 to {num_classes - 1}. "
            "Number the labels from 0, or build the model with enough classes."
        )


def check_no_gaps(labels: Tensor, num_classes: int) -> None:
    """Refuse more classes than labels before anything of their number is made: a label of 1e9 would take minutes."""
    if num_classes <= labels.numel():
        return
    present = set(labels.tolist())
    missing = list(islice((c for c in range(num_classes) if c not in present), SHOWN + 1))
    largest = int(labels.max())
    raise ValueError(
        f"{classes_have(missing, num_classes - len(present))} no training sample: {labels.numel()} labels, the largest is "
        f"{largest} (first at position {int((labels == largest).nonzero()[0, 0])}), for {num_classes} classes. Number the "
        "labels from 0 without gaps, or correct that one."
    )


def are_names(labels: Any) -> bool:
    """Whether labels (N,) are names of classes."""
    return isinstance(labels, Sequence | np.ndarray) and len(labels) > 0 and all(isinstance(y, str) for y in labels)


def are_several(labels: Tensor) -> bool:
    """Whether rows (N, C) are zeros and ones, and not one of each class: some sample has several labels, or none."""
    return bool(((labels == 0) | (labels == 1)).all()) and not bool((labels.sum(1) == 1).all())


def sums_of_shares(labels: Tensor, num_classes: int | None) -> tuple[int, ...]:
    whole = bool(((labels.double().sum(1) - 1).abs() < 0.01).all())
    if num_classes not in (None, labels.shape[1]) or not (whole or are_several(labels)):
        what = f"labels of shape {tuple(labels.shape)} must be shares{f' of {num_classes} classes' * bool(num_classes)}"
        raise ValueError(f"{what}, which add up to 1 in each row, or 0 and 1.")
    return tuple(labels.double().sum(0).round().long().tolist())


def label_tensor(labels: Iterable[Any] | Tensor) -> Tensor:
    """Labels of any kind as a tensor, on their device: integers (N,), or a row for each sample (N, C)."""
    if not isinstance(labels, Tensor):
        # one slice of a data set's column is far faster than its items one by one
        array = np.asarray(labels[:] if isinstance(labels, Sequence | np.ndarray) else list(labels))
        if are_names(array.ravel()):
            what = f"the numbers of classes, got {array.size} names ({str(array.flat[0])!r})"
            raise ValueError(f"labels must be integers, {what}. {NAMES_TO_NUMBERS}")
        if array.dtype.kind not in ("biuf" if array.ndim == 2 else "biu"):
            raise ValueError(f"labels must be a non-empty list of integers, got {array.size} entries of {array.dtype}.")
        labels = torch.as_tensor(array)
    is_real = labels.is_floating_point() or labels.is_complex()
    if labels.ndim not in (1, 2) or labels.numel() == 0 or (labels.ndim == 1 and is_real):
        what = "a non-empty list of integers, or rows of shares"
        raise ValueError(f"labels must be {what}, got shape {tuple(labels.shape)} of {labels.dtype}.")
    return labels


def classes_have(classes: Sequence[int], total: int | None = None) -> str:
    total = len(classes) if total is None else total
    shown = ", ".join(map(str, classes[:SHOWN])) + (", ..." if len(classes) > SHOWN else "")
    return f"class {shown} has" if total == 1 else f"classes {shown} ({total} in all) have"
