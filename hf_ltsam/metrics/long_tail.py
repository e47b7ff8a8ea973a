"""Accuracy by class and by group of classes, and calibration. Accuracies are fractions in [0, 1].

Inputs are NumPy arrays, tensors or lists. Shapes: N test samples, C classes, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_ltsam.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from transformers import EvalPrediction

Floats = NDArray[np.float64]

LOWER_IS_BETTER = ("loss", "ece", "nll", "brier", "error", "mce")  # how the names of such metrics end
_VALUES_AT_A_TIME = 2**20  # of the logits, 8 MB in float64


def greater_is_better(metric: str) -> bool:
    """Whether a larger value is better, by the end of a metric's name: `eval_` and a data set's name may precede."""
    return not (metric.endswith("loss") or f"_{metric}".endswith(tuple(f"_{name}" for name in LOWER_IS_BETTER)))


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
    return _calibration_error(values.max(axis=1), values.argmax(axis=1) == classes, num_bins)


def _calibration_error(confidence: Floats, right: NDArray[Any], num_bins: int = 15) -> float:
    if np.isnan(confidence).any():
        return float("nan")
    bins = confidence_bins(confidence, right, num_bins)
    return float(np.abs(bins.right - bins.confidence).sum() / len(confidence))


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
    return _metrics(_decisions(logits, labels, statistics.num_classes), statistics)


@dataclass(frozen=True)
class LongTailMetrics:
    """`long_tail_metrics` as the `compute_metrics` of a Trainer, with "accuracy" (the same as "overall") beside them.

    With `batch_eval_metrics` it is called for every batch, and keeps four numbers of each sample.

    Args:
        statistics: of the training set.
    """

    statistics: ClassStatistics
    _batches: list[_Decisions] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the metrics, where every class has a test sample."""
        groups = (name for name, classes in self.statistics.groups.items() if classes)
        return ("accuracy", "overall", "balanced", *groups, "ece")

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Of logits (N, C), or of predicted classes (N,), as `preprocess_logits_for_metrics` may make them: without "ece".

        Args:
            prediction: of all samples, or of a batch; lists are batches, as `eval_do_concat_batches=False` leaves them.
            compute_result: whether this was the last batch.

        Raises:
            ValueError: as in `long_tail_metrics`.
        """
        outputs, labels = prediction.predictions, prediction.label_ids
        for of_batch, classes in zip(outputs, labels) if isinstance(labels, list) else [(outputs, labels)]:
            # further outputs of the model, if any, follow the logits
            first = of_batch[0] if isinstance(of_batch, tuple | list) else of_batch
            self._batches.append(_decisions(first, classes, self.statistics.num_classes))
        if not compute_result:
            return {}
        decisions = _joined(self._batches)
        self._batches.clear()
        metrics = _metrics(decisions, self.statistics)
        return {"accuracy": metrics["overall"], **metrics}


@dataclass(frozen=True)
class _Decisions:
    """What the metrics read of n samples.

    Args:
        labels, predictions: true and predicted classes (n,).
        confidence: the largest probability (n,); None: only classes were predicted.
        right: whether it is that of the true class (n,).
    """

    labels: NDArray[Any]
    predictions: NDArray[Any]
    confidence: Floats | None
    right: NDArray[Any]


def _decisions(predictions: Any, labels: Any, num_classes: int) -> _Decisions:
    """Of logits (n, C), some rows at a time, so that no copy of all of them is made; or of predicted classes (n,).

    Raises:
        ValueError: shapes that do not fit, or a label outside [0, C).
    """
    scores, classes = _array(predictions), _array(labels)
    if scores.ndim == 1 and scores.dtype.kind in "iu":
        scores, classes = _paired(scores, classes)
        return _Decisions(classes, scores, None, scores == classes)
    if scores.ndim != 2 or classes.shape != (len(scores),) or not classes.size:
        raise _misfit(scores, classes)
    if scores.shape[1] != num_classes:
        raise ValueError(f"{scores.shape[1]} logits do not fit class statistics of {num_classes} classes.")
    rows = max(1, _VALUES_AT_A_TIME // num_classes)
    return _joined([_of_rows(scores[i : i + rows], classes[i : i + rows]) for i in range(0, len(scores), rows)])


def _of_rows(logits: NDArray[Any], labels: NDArray[Any]) -> _Decisions:
    values, classes = _scored(logits, labels)
    probabilities = softmax(values)
    right = probabilities.argmax(axis=1) == classes
    return _Decisions(classes, predicted_classes(values), probabilities.max(axis=1), right)


def _joined(parts: Sequence[_Decisions]) -> _Decisions:
    """Those of several batches, one after another."""
    confidences = [part.confidence for part in parts if part.confidence is not None]
    return _Decisions(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.predictions for part in parts]),
        np.concatenate(confidences) if confidences else None,
        np.concatenate([part.right for part in parts]),
    )


def _metrics(decisions: _Decisions, statistics: ClassStatistics) -> dict[str, float]:
    """Those of `long_tail_metrics`, as far as they can be known."""
    labels, predictions, confidence = decisions.labels, decisions.predictions, decisions.confidence
    per_class = per_class_accuracy(predictions, labels, statistics.num_classes)
    return {
        "overall": overall_accuracy(predictions, labels),
        "balanced": float(np.nanmean(per_class)),
        **group_accuracies(per_class, statistics),
        **({} if confidence is None else {"ece": _calibration_error(confidence, decisions.right)}),
    }


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
        raise _misfit(values, classes)
    _check_range(classes, values.shape[1])
    return values, classes


def _misfit(scores: NDArray[Any], labels: NDArray[Any]) -> ValueError:
    return ValueError(f"Expected scores (N, C) and labels (N,) with N > 0, got {scores.shape} and {labels.shape}.")


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
