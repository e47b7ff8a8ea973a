"""Accuracy by class and by group of classes, and calibration. Accuracies are fractions in [0, 1].

Inputs are NumPy arrays, tensors or lists. Shapes: N test samples, C classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_ltsam.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from transformers import EvalPrediction

Floats = NDArray[np.float64]


def per_class_accuracy(predictions: Any, labels: Any, num_classes: int) -> Floats:
    """Accuracy on the samples of each class (C,); NaN for a class without a test sample.

    Args:
        predictions: predicted classes (N,); one outside [0, C) counts as wrong.
        labels: true classes (N,), integers in [0, C).
        num_classes: C.

    Raises:
        ValueError: no samples, different lengths, or a label outside [0, C).
    """
    predictions, labels = _paired(predictions, labels)
    _check_range(labels, num_classes)
    samples = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[predictions == labels], minlength=num_classes)
    return np.divide(right, samples, out=np.full(num_classes, np.nan), where=samples > 0)


def overall_accuracy(predictions: Any, labels: Any) -> float:
    """Accuracy on all samples.

    Args:
        predictions, labels: predicted and true classes (N,).

    Raises:
        ValueError: no samples, or different lengths.
    """
    predictions, labels = _paired(predictions, labels)
    return float((predictions == labels).mean())


def balanced_accuracy(predictions: Any, labels: Any, num_classes: int) -> float:
    """Mean of the per-class accuracies over the classes with a test sample. Arguments as in `per_class_accuracy`."""
    return float(np.nanmean(per_class_accuracy(predictions, labels, num_classes)))


def group_accuracies(per_class: Any, statistics: ClassStatistics) -> dict[str, float]:
    """Mean per-class accuracy of the groups "many", "medium" and "few" of the training set.

    Classes without a test sample (NaN) do not count; a group without any class that counts is left out, never 0.

    Args:
        per_class: accuracies (C,), as returned by `per_class_accuracy`.
        statistics: of the training set.

    Raises:
        ValueError: not C accuracies.
    """
    accuracies = _array(per_class).astype(np.float64)
    if accuracies.shape != (statistics.num_classes,):
        raise ValueError(
            f"group_accuracies(per_class=...) must have one entry for each of the {statistics.num_classes} classes, "
            f"got shape {accuracies.shape}."
        )
    groups = {name: accuracies[list(classes)] for name, classes in statistics.groups.items()}
    return {name: float(np.nanmean(values)) for name, values in groups.items() if not np.isnan(values).all()}


def softmax(logits: Any) -> Floats:
    """Probabilities (N, C) of logits (N, C), in float64."""
    values = _array(logits).astype(np.float64)
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def expected_calibration_error(probabilities: Any, labels: Any, num_bins: int = 15) -> float:
    """Mean of |accuracy - confidence| over equally wide bins of confidence, weighted by their samples.

    Args:
        probabilities: (N, C), rows summing to 1 (`softmax(logits)`); the confidence is the largest of a row.
        labels: true classes (N,).
        num_bins: bins are ((b - 1)/num_bins, b/num_bins].

    Returns:
        A number in [0, 1]; NaN if a probability is NaN, as for a diverged model.

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C), rows that are no probabilities, or fewer than one bin.

    Source: Guo et al. 2017 Eq. 3, with 15 bins as in Sec. 5.
    """
    if num_bins < 1:
        raise ValueError(f"expected_calibration_error(num_bins=...) must be at least 1, got {num_bins}.")
    values, classes = _scored(probabilities, labels)
    if np.isnan(values).any():
        return float("nan")
    _check_probabilities(values)
    bins = confidence_bins(values.max(axis=1), values.argmax(axis=1) == classes, num_bins)
    return float(np.abs(bins.right - bins.confidence).sum() / len(classes))


@dataclass(frozen=True)
class ConfidenceBins:
    """Sums over the samples in every bin of confidence.

    Args:
        samples: their number (B,).
        confidence: sum of their confidences (B,).
        right: number of correct predictions (B,).
    """

    samples: Floats
    confidence: Floats
    right: Floats


def confidence_bins(confidence: Any, right: Any, num_bins: int = 15) -> ConfidenceBins:
    """The contents of a reliability diagram, in bins ((b - 1)/num_bins, b/num_bins].

    Args:
        confidence: the largest probability of every sample (N,).
        right: whether its prediction is correct (N,).
        num_bins: B.
    """
    values = _array(confidence).astype(np.float64)
    bins = np.digitize(values, np.linspace(0, 1, num_bins + 1)[1:-1], right=True)
    samples = np.bincount(bins, minlength=num_bins).astype(np.float64)
    sums = (
        np.bincount(bins, weights=weights, minlength=num_bins).astype(np.float64) for weights in (values, _array(right))
    )
    return ConfidenceBins(samples, *sums)


def predicted_classes(logits: Any) -> NDArray[np.int64]:
    """The class with the largest logit (N,); -1, which is no class, for a sample with a NaN.

    Args:
        logits: (N, C).
    """
    values = _array(logits)
    return np.where(np.isnan(values).any(axis=1), -1, values.argmax(axis=1))


def long_tail_metrics(logits: Any, labels: Any, statistics: ClassStatistics) -> dict[str, float]:
    """Keys "overall", "balanced", "many", "medium", "few" and "ece"; an empty group is left out.

    Args:
        logits: (N, C).
        labels: true classes (N,).
        statistics: of the training set, whose groups apply to every test set, shifted ones included.

    Raises:
        ValueError: shapes that do not fit, or a label outside [0, C).
    """
    values, classes = _scored(logits, labels)
    if values.shape[1] != statistics.num_classes:
        raise ValueError(f"{values.shape[1]} logits do not fit class statistics of {statistics.num_classes} classes.")
    predictions = predicted_classes(values)
    per_class = per_class_accuracy(predictions, classes, statistics.num_classes)
    return {
        "overall": overall_accuracy(predictions, classes),
        "balanced": float(np.nanmean(per_class)),
        **group_accuracies(per_class, statistics),
        "ece": expected_calibration_error(softmax(values), classes),
    }


@dataclass(frozen=True)
class LongTailMetrics:
    """`long_tail_metrics` as the `compute_metrics` of a Trainer.

    Args:
        statistics: of the training set.
    """

    statistics: ClassStatistics

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        outputs = prediction.predictions  # further outputs of the model, if any, follow the logits
        logits = outputs[0] if isinstance(outputs, tuple | list) else outputs
        return long_tail_metrics(logits, prediction.label_ids, self.statistics)


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return np.asarray(values)


def _paired(predictions: Any, labels: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    predictions, labels = _array(predictions), _array(labels)
    if predictions.shape != labels.shape or labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            "Predicted and true classes must be two lists of the same length, not empty, "
            f"got shapes {predictions.shape} and {labels.shape}. For logits (N, C) pass predicted_classes(logits)."
        )
    return predictions, labels


def _scored(scores: Any, labels: Any) -> tuple[Floats, NDArray[Any]]:
    """Scores (N, C) in float64 and labels (N,), checked."""
    values, classes = _array(scores).astype(np.float64), _array(labels)
    if values.ndim != 2 or classes.shape != (len(values),) or classes.size == 0:
        raise ValueError(f"Expected scores (N, C) and labels (N,) with N > 0, got {values.shape} and {classes.shape}.")
    _check_range(classes, values.shape[1])
    return values, classes


def _check_range(labels: NDArray[Any], num_classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        raise ValueError(f"Label {wrong} is outside the class range 0 to {num_classes - 1}.")


def _check_probabilities(values: Floats) -> None:
    # a row of bfloat16 probabilities sums to 1 within its 8 bits only
    if values.min() < 0 or np.abs(values.sum(axis=1) - 1).max() > 0.02:
        raise ValueError(
            "expected_calibration_error(probabilities=...) needs rows of non-negative numbers that sum to 1. "
            "For logits pass softmax(logits)."
        )
