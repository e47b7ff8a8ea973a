"""The metrics of `long_tail.py` and `corruption.py` as `evaluate.Metric` classes, instantiated directly: no network.

metric = LongTailAccuracy(statistics)
for batch in loader:
    metric.add_batch(predictions=..., references=...)
metric.compute()
"""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
from datasets import Features, List, Value

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics import long_tail
from hf_ltsam.metrics.corruption import Baseline, corruption_summary, error_table
from hf_ltsam.metrics.reliability import ConfidenceBins, add_probabilities

_CLASSES = {"predictions": Value("int64"), "references": Value("int64")}
_CORRUPTED = {**_CLASSES, "corruption": Value("string"), "severity": Value("int64")}
_PROBABILITIES = {"predictions": List(Value("float64")), "references": Value("int64")}


class _InMemory(evaluate.Metric):
    """A metric that keeps its batches in memory.

    Args:
        cache_dir: a folder that `evaluate` creates in any case; it stays empty.
    """

    description = ""
    inputs: dict[str, Any] = _CLASSES

    def __init__(self, cache_dir: str | None = None) -> None:
        super().__init__(keep_in_memory=True, cache_dir=cache_dir)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description="predictions and references, one entry per test sample.",
            features=Features(self.inputs),
        )


class BalancedAccuracy(_InMemory):
    """`{"balanced_accuracy": ...}` of predicted and true classes (N,): the mean over the classes with a test sample."""

    description = "Mean of the per-class accuracies over the classes that have a test sample."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        num_classes = int(np.max(references)) + 1
        return {"balanced_accuracy": long_tail.balanced_accuracy(predictions, references, num_classes)}


class GroupAccuracy(_InMemory):
    """`{"many", "medium", "few"}` of predicted and true classes (N,).

    Args:
        statistics: of the training set. A group without a test sample is left out.
    """

    description = "Mean per-class accuracy of the classes with many, a medium number of and few training images."

    def __init__(self, statistics: ClassStatistics, cache_dir: str | None = None) -> None:
        super().__init__(cache_dir)
        self.statistics = statistics

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        per_class = long_tail.per_class_accuracy(predictions, references, self.statistics.num_classes)
        return long_tail.group_accuracies(per_class, self.statistics)


class LongTailAccuracy(GroupAccuracy):
    """`{"overall", "balanced", "many", "medium", "few"}` of predicted and true classes (N,).

    Args:
        statistics: of the training set. A group without a test sample is left out.
    """

    description = "Accuracy overall, as class mean, and by how many training images a class has."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {
            "overall": long_tail.overall_accuracy(predictions, references),
            "balanced": long_tail.balanced_accuracy(predictions, references, self.statistics.num_classes),
            **super()._compute(predictions, references),
        }


class CalibrationError(_InMemory):
    """`{"ece": ...}` of probabilities (N, C) and true classes (N,). Sums are kept, not the probabilities.

    Args:
        num_bins: equally wide bins of confidence.
    """

    description = "Expected calibration error (Guo et al. 2017)."
    inputs = _PROBABILITIES

    def __init__(self, num_bins: int = 15, cache_dir: str | None = None) -> None:
        super().__init__(cache_dir)
        self.num_bins = num_bins
        self._bins: ConfidenceBins | None = None

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """One sample, as `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Add samples.

        Raises:
            ValueError: as `expected_calibration_error`.
        """
        bins = ConfidenceBins.empty(self.num_bins) if self._bins is None else self._bins
        add_probabilities(bins, predictions, references)
        self._bins = bins

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float]:
        """The error of the samples added since the last time, and of these.

        Raises:
            ValueError: as `add_batch`; there are no samples.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if self._bins is None:
            raise ValueError("CalibrationError has no samples: add_batch(predictions=..., references=...) first.")
        error, self._bins = self._bins.error, None
        return {"ece": error}


class CorruptionErrors(_InMemory):
    """`corruption_summary` of predicted and true classes (N,) and, for each sample, its corruption and severity.

        metric.add_batch(predictions=..., references=..., corruption=["fog", ...], severity=[3, ...])

    Args:
        baseline: that CE and mCE are relative to, such as `corruption.ALEXNET` for ImageNet-C; None: errors alone.
    """

    description = "Error per corruption, relative to a baseline's, and their means (Hendrycks & Dietterich 2019)."
    inputs = _CORRUPTED

    def __init__(self, baseline: Baseline | None = None, cache_dir: str | None = None) -> None:
        super().__init__(cache_dir)
        self.baseline = baseline

    def _compute(self, predictions: Any, references: Any, corruption: Any, severity: Any) -> dict[str, Any]:
        table = error_table(predictions, references, corruption, severity)
        return corruption_summary(table, self.baseline)
