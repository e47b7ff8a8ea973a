"""Accuracy, precision, F1 and average precision by class and group of classes, and calibration: fractions in [0, 1].

Inputs are NumPy arrays, tensors or lists. Shapes: N test samples, C classes, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.decisions import (
    FEW_CLASSES,
    Decisions,
    as_array,
    check_range,
    checked_scores,
    label_ranks,
    logits_in,
    parts_of,
)
from hf_ltsam.metrics.reliability import ConfidenceBins

if TYPE_CHECKING:
    from transformers import EvalPrediction

Floats = NDArray[np.float64]

TOP = 5  # of the top-k accuracy, among more than twice as many classes
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


def predicted_classes(logits: Any) -> NDArray[np.int64]:
    """The class with the largest logit (N,); -1, which is no class, for a sample with a NaN.

    Args:
        logits: (N, C).
    """
    values = as_array(logits)
    return np.where(np.isnan(values).any(axis=1), -1, values.argmax(axis=1))


def long_tail_metrics(logits: Any, labels: Any, statistics: ClassStatistics) -> dict[str, float]:
    """ "overall", "balanced" (the macro recall), "worst" (class), "many", "medium", "few", "macro_precision", "macro_f1",
    "top5" of more than 10 classes, "macro_auprc" of up to 100, and "ece"; an empty group is left out.

    Means are over the classes with a test sample. The precision of a class that is never predicted is 0; AUPRC is the
    average precision of a class against all others, by its probability.

    Args:
        logits: (N, C).
        labels: true classes (N,), or shares of the classes (N, C), by which a sample counts in each.
        statistics: of the training set, whose groups apply to every test set, shifted ones included.

    Raises:
        ValueError: shapes that do not fit, or a label outside [0, C).
    """
    counts = LongTailCounts(statistics.num_classes)
    counts.add(*((logits, labels) if as_array(labels).ndim == 2 else checked_scores(logits, labels)))
    return counts.metrics(statistics)


class LongTailCounts:
    """Counts of predictions, batch by batch, that the metrics follow from.

    Args:
        num_classes: C.
        with_confusion: whether pairs of classes are counted too: C^2 numbers.
    """

    def __init__(self, num_classes: int, with_confusion: bool = False) -> None:
        C = self._num_classes = num_classes
        self.confusion = np.zeros((C, C), np.int64) if with_confusion else None  # samples of a class, taken for a class
        self._samples, self._right, self._taken = (np.zeros(C, np.int64) for _ in range(3))  # (C,)
        self._bins: ConfidenceBins | None = ConfidenceBins.empty()  # None: classes without probabilities
        self._top: float | None = 0 if C > 2 * TOP else None  # samples whose class is among the first; None: not known
        self._scored: list[tuple[Any, Any]] | None = [] if C <= FEW_CLASSES else None  # logits and labels

    def add(self, outputs: Any, labels: Any) -> None:
        """Add a batch.

        Args:
            outputs: as in `Decisions.of`; behind its columns there may be a log-likelihood and `label_ranks`.
            labels: true classes (n,), or shares of the classes (n, C), by which a sample counts in each.

        Raises:
            ValueError: shapes that do not fit, or a label outside [0, C).
        """
        decisions, classes = Decisions.of(outputs, self._num_classes), as_array(labels)
        if classes.ndim == 2:
            self._add_shares(outputs, decisions, classes.astype(np.float64))
            return
        samples, right = _counted(decisions.predicted, classes, self._num_classes)
        self._samples = self._samples + samples
        self._right = self._right + right
        self._taken += np.bincount(decisions.predicted.clip(-1) + 1, minlength=len(samples) + 1)[1 : len(samples) + 1]
        if self.confusion is not None:
            valid = (decisions.predicted >= 0) & (decisions.predicted < len(samples))
            np.add.at(self.confusion, (classes[valid], decisions.predicted[valid]), 1)
        if decisions.confidence is None or self._bins is None:
            self._bins = None
        else:
            self._bins.add(decisions.confidence, decisions.probable == classes)
        self._add_scores(outputs, classes)

    def _add_shares(self, outputs: Any, decisions: Decisions, shares: Floats) -> None:
        """The same where a sample is of several classes: a mean over them."""
        C, predicted, logits = self._num_classes, decisions.predicted, logits_in(outputs)
        if shares.shape != (len(predicted), C):
            raise ValueError(f"Shares of classes must be ({len(predicted)}, {C}), got {shares.shape}.")
        if not (np.abs(shares.sum(axis=1) - 1) < 0.01).all():
            raise ValueError("Shares of classes must add up to 1 in each row.")
        valid = (predicted >= 0) & (predicted < C)
        rows, classes = shares.nonzero()
        self._samples = self._samples + shares.sum(axis=0)
        right = shares[valid.nonzero()[0], predicted[valid]]
        self._right = self._right + np.bincount(predicted[valid], right, minlength=C)
        self._taken += np.bincount(predicted[valid], minlength=C)
        if self.confusion is not None:
            self.confusion = self.confusion.astype(np.float64)
            pairs = valid[rows]
            np.add.at(self.confusion, (classes[pairs], predicted[rows[pairs]]), shares[rows, classes][pairs])
        if decisions.confidence is None or self._bins is None:
            self._bins = None
        else:
            self._bins.add(decisions.confidence, shares[np.arange(len(shares)), decisions.probable])
        self._scored = None if self._scored is None or logits is None else [*self._scored, (logits, shares)]
        if self._top is not None:
            first = None if logits is None else label_ranks(logits[rows], classes) < TOP
            self._top = None if first is None else self._top + float(shares[rows, classes][first].sum())

    def _add_scores(self, outputs: Any, labels: NDArray[np.int64]) -> None:
        logits = logits_in(outputs)
        self._scored = None if self._scored is None or logits is None else [*self._scored, (logits, labels)]
        if self._top is None:
            return
        if logits is not None:
            ranks: NDArray[Any] | None = label_ranks(logits, labels)
        else:
            ranks = as_array(outputs[4]) if isinstance(outputs, tuple) and len(outputs) == 5 else None
        self._top = None if ranks is None else self._top + int((ranks < TOP).sum())

    @property
    def per_class(self) -> Floats:
        """As `per_class_accuracy` (C,): the recall."""
        return _shares(self._right, self._samples)

    @property
    def precision(self) -> Floats:
        """Share of the samples taken for a class that are of it (C,): 0 where there are none; NaN as in `per_class`."""
        return self._of_tested(self._right / np.maximum(self._taken, 1))

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall (C,); NaN as in `per_class`."""
        return self._of_tested(2 * self._right / np.maximum(self._samples + self._taken, 1))

    @cached_property
    def auprc(self) -> Floats | None:
        """Average precision of every class against all others, by its probability (C,); NaN as in `per_class`, and for a
        model with a logit that is NaN. None where not all logits were given, or of too many classes.
        """
        return None if self._scored is None else average_precisions(self._scored)

    @property
    def of_classes(self) -> dict[str, list[float]]:
        """ "recall", "precision", "f1" and, as far as it is known, "auprc": a number of every class each."""
        columns = {"recall": self.per_class, "precision": self.precision, "f1": self.f1}
        return {
            name: values.tolist() for name, values in {**columns, "auprc": self.auprc}.items() if values is not None
        }

    def _of_tested(self, values: Floats) -> Floats:
        return np.where(self._samples > 0, values, np.nan)

    def metrics(self, statistics: ClassStatistics | None = None) -> dict[str, float]:
        """As `long_tail_metrics`; "top5", "macro_auprc" and "ece" are left out where there were no probabilities.

        Args:
            statistics: of the training set; None: there are no groups.
        """
        groups = {} if statistics is None else group_accuracies(self.per_class, statistics)
        auprc = self.auprc
        return {
            "overall": float(self._right.sum() / self._samples.sum()),
            "balanced": float(np.nanmean(self.per_class)),
            "worst": float(np.nanmin(self.per_class)),
            **groups,
            "macro_precision": float(np.nanmean(self.precision)),
            "macro_f1": float(np.nanmean(self.f1)),
            **({} if self._top is None else {f"top{TOP}": float(self._top / self._samples.sum())}),
            **({} if auprc is None else {"macro_auprc": float(np.mean(auprc[self._samples > 0]))}),
            **({} if self._bins is None else {"ece": self._bins.error}),
        }


def average_precisions(scored: Sequence[tuple[Any, Any]]) -> Floats:
    """Average precision of every class against all others (C,), by its probability; NaN for a class without a sample.

    Args:
        scored: batches of logits (n, C) and true classes (n,), or shares of classes (n, C). Logits are read class by class,
            without a copy of them.
    """
    labels = np.concatenate([as_array(classes) for _, classes in scored])
    logits = [as_array(values) for values, _ in scored]
    evidence = np.concatenate([_log_sums(values) for values in logits])  # (N,)
    precisions = np.full(logits[0].shape[1], np.nan)
    soft = labels.ndim == 2
    present = np.flatnonzero(labels.sum(axis=0)) if soft else np.unique(labels)
    for c in [] if np.isnan(evidence).any() else present:
        scores = np.exp(np.concatenate([values[:, c] for values in logits]).astype(np.float64) - evidence)
        shares = labels[:, c] if soft else labels == c
        precisions[c] = average_precision(shares, scores)
    return precisions


def average_precision(shares: NDArray[Any], scores: Floats) -> float:
    """sum_t (R_t - R_(t-1)) P_t over the distinct scores t, the largest first. As scikit-learn's, which is not loaded.

    Args:
        shares: of one class in each sample, 0 and 1 where samples are of whole classes; not all 0 (N,).
        scores: of that class (N,).
    """
    shares, order = shares.astype(np.float64), np.argsort(-scores, kind="stable")
    hits, ends = np.cumsum(shares[order]), np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = hits[ends]
    return float(np.diff(found, prepend=0) @ (found / (ends + 1)) / hits[-1])


def _log_sums(logits: NDArray[Any]) -> Floats:
    """log sum_c exp z_c (n,), in float64."""
    sums = np.empty(len(logits))
    for rows in parts_of(logits):
        values = logits[rows].astype(np.float64)
        largest = values.max(axis=1)
        sums[rows] = largest + np.log(np.exp(values - largest[:, None]).sum(axis=1))
    return sums


@dataclass(frozen=True)
class LongTailMetrics:
    """`long_tail_metrics` as the `compute_metrics` of a Trainer, with "accuracy" (the same as "overall") beside them.

    With `batch_eval_metrics` it is called for every batch, and keeps counts.

    Args:
        statistics: of the training set.
        per_class: add lists: "recall_per_class", "precision_per_class", "f1_per_class", "auprc_per_class" (C,), and
            "confusion" (C, C), the samples of a class (row) that are taken for a class (column).
    """

    statistics: ClassStatistics
    per_class: bool = False
    _begun: list[LongTailCounts] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the metrics, where every class has a test sample."""
        C = self.statistics.num_classes
        groups = (name for name, classes in self.statistics.groups.items() if classes)
        top, area = [f"top{TOP}"] * (C > 2 * TOP), ["macro_auprc"] * (C <= FEW_CLASSES)
        return ("accuracy", "overall", "balanced", "worst", *groups, "macro_precision", "macro_f1", *top, *area, "ece")

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, Any]:
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
            self._begun.append(LongTailCounts(self.statistics.num_classes, self.per_class))
        for of_batch, classes in zip(outputs, labels) if isinstance(labels, list) else [(outputs, labels)]:
            self._begun[0].add(of_batch, classes)
        if not compute_result:
            return {}
        counts = self._begun.pop()
        values = counts.metrics(self.statistics)
        metrics: dict[str, Any] = {"accuracy": values["overall"], **values}
        if counts.confusion is not None:
            metrics |= {f"{name}_per_class": values for name, values in counts.of_classes.items()}
            metrics["confusion"] = counts.confusion.tolist()
        return metrics


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
    check_range(labels, num_classes)
    samples = np.bincount(labels, minlength=num_classes)
    return samples, np.bincount(labels[predictions == labels], minlength=num_classes)


def _shares(right: NDArray[np.int64], samples: NDArray[np.int64]) -> Floats:
    return np.divide(right, samples, out=np.full(len(samples), np.nan), where=samples > 0)
