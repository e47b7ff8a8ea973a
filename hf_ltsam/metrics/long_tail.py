"""Accuracy by class and by group of classes, and calibration. Accuracies are fractions in [0, 1].

Inputs are NumPy arrays, tensors or lists. Shapes: N test samples, C classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.decisions import Decisions, as_array, parts_of

if TYPE_CHECKING:
    from transformers import EvalPrediction

Floats = NDArray[np.float64]

LOWER_IS_BETTER = ("loss", "ece", "nll", "brier", "error", "mce")  # how the names of such metrics end


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
    samples, right = _counted(predictions, labels, num_classes)
    return _shares(right, samples)


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
    accuracies = as_array(per_class).astype(np.float64)
    if accuracies.shape != (statistics.num_classes,):
        raise ValueError(
            f"group_accuracies(per_class=...) must have one entry for each of the {statistics.num_classes} classes, "
            f"got shape {accuracies.shape}."
        )
    groups = {name: accuracies[list(classes)] for name, classes in statistics.groups.items()}
    return {name: float(np.nanmean(values)) for name, values in groups.items() if not np.isnan(values).all()}


def softmax(logits: Any) -> Floats:
    """Probabilities (N, C) of logits (N, C), in float64."""
    values = as_array(logits).astype(np.float64)
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
    bins = ConfidenceBins.empty(num_bins)
    add_probabilities(bins, probabilities, labels)
    return bins.error


@dataclass(frozen=True)
class ConfidenceBins:
    """Sums over the samples in every bin of confidence, ((b - 1)/B, b/B].

    Args:
        samples: their number (B,).
        confidence: sum of their confidences (B,).
        right: number of correct predictions (B,).
    """

    samples: Floats
    confidence: Floats
    right: Floats

    @classmethod
    def empty(cls, num_bins: int = 15) -> ConfidenceBins:
        """Without samples.

        Raises:
            ValueError: fewer than one bin.
        """
        if num_bins < 1:
            raise ValueError(f"ConfidenceBins(num_bins=...) must be at least 1, got {num_bins}.")
        return cls(np.zeros(num_bins), np.zeros(num_bins), np.zeros(num_bins))

    def add(self, confidence: Any, right: Any) -> None:
        """Add samples one after another: batches give the same sums, to the last digit, as all samples at once.

        Args:
            confidence: the largest probability of every sample (n,).
            right: whether its prediction is correct (n,).
        """
        values, num_bins = as_array(confidence).astype(np.float64), len(self.samples)
        bins = np.digitize(values, np.linspace(0, 1, num_bins + 1)[1:-1], right=True)
        for sums, added in ((self.samples, 1.0), (self.confidence, values), (self.right, as_array(right))):
            np.add.at(sums, bins, added)

    @property
    def error(self) -> float:
        """The expected calibration error; NaN if a confidence is."""
        return float(np.abs(self.right - self.confidence).sum() / self.samples.sum())


def confidence_bins(confidence: Any, right: Any, num_bins: int = 15) -> ConfidenceBins:
    """The contents of a reliability diagram.

    Args:
        confidence, right: as in `ConfidenceBins.add` (N,).
        num_bins: B.
    """
    bins = ConfidenceBins.empty(num_bins)
    bins.add(confidence, right)
    return bins


def add_probabilities(bins: ConfidenceBins, probabilities: Any, labels: Any) -> None:
    """Add samples, some at a time.

    Args:
        bins: are changed in place.
        probabilities, labels: as in `expected_calibration_error`.

    Raises:
        ValueError: as `expected_calibration_error`.
    """
    scores, classes = _scored(probabilities, labels)
    for rows in parts_of(scores):
        bins.add(*_judged(as_array(scores[rows]), classes[rows]))


def predicted_classes(logits: Any) -> NDArray[np.int64]:
    """The class with the largest logit (N,); -1, which is no class, for a sample with a NaN.

    Args:
        logits: (N, C).
    """
    values = as_array(logits)
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
    counts = LongTailCounts(statistics)
    counts.add(*_scored(logits, labels))
    return counts.metrics


class LongTailCounts:
    """Counts of predictions, batch by batch, that the metrics follow from.

    Args:
        statistics: of the training set.
    """

    def __init__(self, statistics: ClassStatistics) -> None:
        self._statistics = statistics
        self._samples, self._right = (np.zeros(statistics.num_classes, np.int64) for _ in range(2))  # (C,)
        self._bins: ConfidenceBins | None = ConfidenceBins.empty()  # None: classes without probabilities

    def add(self, outputs: Any, labels: Any) -> None:
        """Add a batch.

        Args:
            outputs: as in `Decisions.of`.
            labels: true classes (n,).

        Raises:
            ValueError: shapes that do not fit, or a label outside [0, C).
        """
        decisions, classes = Decisions.of(outputs, self._statistics.num_classes), as_array(labels)
        samples, right = _counted(decisions.predicted, classes, self._statistics.num_classes)
        self._samples += samples
        self._right += right
        if decisions.confidence is None or self._bins is None:
            self._bins = None
        else:
            self._bins.add(decisions.confidence, decisions.probable == classes)

    @property
    def per_class(self) -> Floats:
        """As `per_class_accuracy` (C,)."""
        return _shares(self._right, self._samples)

    @property
    def metrics(self) -> dict[str, float]:
        """As `long_tail_metrics`; "ece" is left out where there were no probabilities."""
        return {
            "overall": float(self._right.sum() / self._samples.sum()),
            "balanced": float(np.nanmean(self.per_class)),
            **group_accuracies(self.per_class, self._statistics),
            **({} if self._bins is None else {"ece": self._bins.error}),
        }


@dataclass(frozen=True)
class LongTailMetrics:
    """`long_tail_metrics` as the `compute_metrics` of a Trainer, with "accuracy" (the same as "overall") beside them.

    With `batch_eval_metrics` it is called for every batch, and keeps counts.

    Args:
        statistics: of the training set.
    """

    statistics: ClassStatistics
    _begun: list[LongTailCounts] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the metrics, where every class has a test sample."""
        groups = (name for name, classes in self.statistics.groups.items() if classes)
        return ("accuracy", "overall", "balanced", *groups, "ece")

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """The metrics of all samples so far.

        Args:
            prediction: of all samples or of a batch; lists are batches, as `eval_do_concat_batches=False` leaves them.
                Its predictions are logits (n, C), whatever follows them, predicted classes (n,), or what is kept of
                logits (`Decisions.columns`).
            compute_result: whether this is the last batch; otherwise nothing is returned yet.

        Raises:
            ValueError: as `long_tail_metrics`.
        """
        outputs, labels = prediction.predictions, prediction.label_ids
        if not self._begun:
            self._begun.append(LongTailCounts(self.statistics))
        for of_batch, classes in zip(outputs, labels) if isinstance(labels, list) else [(outputs, labels)]:
            self._begun[0].add(of_batch, classes)
        if not compute_result:
            return {}
        metrics = self._begun.pop().metrics
        return {"accuracy": metrics["overall"], **metrics}


def _paired(predictions: Any, labels: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    predictions, labels = as_array(predictions), as_array(labels)
    if predictions.shape != labels.shape or labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            "Predicted and true classes must be two lists of the same length, not empty, "
            f"got shapes {predictions.shape} and {labels.shape}. For logits (N, C) pass predicted_classes(logits)."
        )
    return predictions, labels


def _counted(predictions: Any, labels: Any, num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples and correct predictions of every class (C,)."""
    predictions, labels = _paired(predictions, labels)
    _check_range(labels, num_classes)
    samples = np.bincount(labels, minlength=num_classes)
    return samples, np.bincount(labels[predictions == labels], minlength=num_classes)


def _shares(right: NDArray[np.int64], samples: NDArray[np.int64]) -> Floats:
    return np.divide(right, samples, out=np.full(len(samples), np.nan), where=samples > 0)


def _scored(scores: Any, labels: Any) -> tuple[Any, NDArray[Any]]:
    """Scores (N, C) and labels (N,), checked."""
    values, classes = scores if isinstance(scores, Tensor) else np.asarray(scores), as_array(labels)
    if values.ndim != 2 or classes.shape != (len(values),) or classes.size == 0:
        shape = tuple(values.shape)
        raise ValueError(f"Expected scores (N, C) and labels (N,) with N > 0, got {shape} and {classes.shape}.")
    _check_range(classes, values.shape[1])
    return values, classes


def _check_range(labels: NDArray[Any], num_classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        raise ValueError(f"Label {wrong} is outside the class range 0 to {num_classes - 1}.")


def _judged(probabilities: NDArray[Any], labels: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """The largest probabilities (n,), in float64, and whether they are the true classes'."""
    values = probabilities.astype(np.float64)
    confidence = values.max(axis=1)
    if not np.isnan(confidence).any():
        _check_probabilities(values)
    return confidence, values.argmax(axis=1) == labels


def _check_probabilities(values: Floats) -> None:
    # a row of bfloat16 probabilities sums to 1 within its 8 bits only
    if values.min() < 0 or np.abs(values.sum(axis=1) - 1).max() > 0.02:
        raise ValueError(
            "expected_calibration_error(probabilities=...) needs rows of non-negative numbers that sum to 1. "
            "For logits pass softmax(logits)."
        )
