"""What is kept of logits (N, C) of many classes: three numbers of every sample. Records and `predictions.json` need no more.

Logits are read some rows at a time, so that no second array of their size is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PARTS = 16  # a batch is read in so many parts, in float64: an eighth of a batch in float32
VALUES = 2**20  # logits in a part, at most: 8 MB
FEW_CLASSES = 100  # up to so many all logits are kept, 400 bytes of a sample: areas under curves need every probability


@dataclass(frozen=True)
class Decisions:
    """Of N samples.

    Args:
        predicted: the class with the largest logit (N,); -1, which is no class, where a logit is NaN.
        probable: the class with the largest probability (N,): another one where two of them round to the same.
        confidence: that probability (N,), float64, NaN where a logit is NaN; None: only classes were predicted.
    """

    predicted: NDArray[np.int64]
    probable: NDArray[np.int64]
    confidence: NDArray[np.float64] | None

    @classmethod
    def of(cls, outputs: Any, num_classes: int | None = None) -> Decisions:
        """Of what a Trainer predicts.

        Args:
            outputs: logits (N, C), with further outputs of the model behind them or without; predicted classes (N,); or
                `columns`, as arrays or tensors.
            num_classes: C; None: any.

        Raises:
            ValueError: none of these, or other than C logits.
        """
        logits = logits_in(outputs)
        if logits is not None:
            if num_classes not in (None, logits.shape[1]):
                raise ValueError(f"{logits.shape[1]} logits do not fit class statistics of {num_classes} classes.")
            return _of_logits(logits)
        several = _are_several(outputs)
        classes = as_array(outputs[0] if several else outputs)
        if classes.ndim != 1 or classes.dtype.kind not in "iu":
            raise ValueError(f"Expected logits (N, C) with N > 0, or predicted classes (N,), got {classes.shape}.")
        if several and len(outputs) > 2:
            return cls(classes, as_array(outputs[1]), as_array(outputs[2]))
        return cls(classes, classes, None)

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """What `of` reads again: `predicted`, `probable`, `confidence`."""
        return (self.predicted, self.probable, *(() if self.confidence is None else (self.confidence,)))


def logits_in(outputs: Any) -> Any:
    """The logits (N, C) among what `Decisions.of` takes; None where there are none, or no samples."""
    first = outputs[0] if _are_several(outputs) else outputs
    first = first if isinstance(first, torch.Tensor) else np.asarray(first)
    return first if first.ndim == 2 and len(first) else None


def label_ranks(logits: Any, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of classes before the true one, by their logits (N,): of equal ones the first. C where a logit is NaN.

    Args:
        logits: (N, C).
        labels: (N,).
    """
    ranks, C = np.empty(len(labels), np.int64), logits.shape[1]
    for rows in parts_of(logits):
        values, true = as_array(logits[rows]), labels[rows, None]
        own = np.take_along_axis(values, true, axis=1)
        before = (values > own) | ((values == own) & (np.arange(C) < true))
        ranks[rows] = np.where(np.isnan(values).any(axis=1), C, before.sum(axis=1))
    return ranks


def _are_several(outputs: Any) -> bool:
    return isinstance(outputs, tuple) or (isinstance(outputs, list) and np.ndim(outputs[0]) > 1)


def _of_logits(logits: Any) -> Decisions:
    N = len(logits)
    predicted, probable, confidence = np.empty(N, np.int64), np.empty(N, np.int64), np.empty(N)
    for rows in parts_of(logits):
        predicted[rows], probable[rows], confidence[rows] = _of_part(logits[rows])
    return Decisions(predicted, probable, confidence)


def _of_part(logits: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Softmax in place, in float64: one copy at a time."""
    values = np.array(as_array(logits), dtype=np.float64)
    largest = values.max(axis=1, keepdims=True)
    predicted = np.where(np.isnan(largest[:, 0]), -1, values.argmax(axis=1))
    values -= largest
    np.exp(values, out=values)
    values /= values.sum(axis=1, keepdims=True)
    return predicted, values.argmax(axis=1), values.max(axis=1)


def parts_of(values: Any) -> Iterator[slice]:
    """Rows of (N, C) that are read together."""
    N, C = values.shape
    rows = max(1, min(N // PARTS, VALUES // max(C, 1)))
    return (slice(start, start + rows) for start in range(0, N, rows))


def as_array(values: Any) -> NDArray[Any]:
    """As a NumPy array, without a copy where there need be none."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return np.asarray(values)


def checked_scores(scores: Any, labels: Any) -> tuple[Any, NDArray[Any]]:
    """Scores (N, C) and labels (N,).

    Raises:
        ValueError: shapes that do not fit, or a label outside [0, C).
    """
    values, classes = scores if isinstance(scores, torch.Tensor) else np.asarray(scores), as_array(labels)
    if values.ndim != 2 or classes.shape != (len(values),) or classes.size == 0:
        shape = tuple(values.shape)
        raise ValueError(f"Expected scores (N, C) and labels (N,) with N > 0, got {shape} and {classes.shape}.")
    check_range(classes, values.shape[1])
    return values, classes


def check_range(labels: NDArray[Any], num_classes: int) -> None:
    """Refuse labels that are no classes.

    Raises:
        ValueError: naming the first one.
    """
    if labels.dtype.kind not in "iu":
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        raise ValueError(f"Label {wrong} is outside the class range 0 to {num_classes - 1}.")
