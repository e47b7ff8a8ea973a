"""The metrics of `long_tail.py`, `reliability.py` and `corruption.py` for `evaluate`, with plain arguments.

metric = evaluate.load(str(MODULES / "long_tail_accuracy"), counts=[300, 40, 5])    # hf_ltsam.metrics.MODULES
for batch in loader:
    metric.add_batch(predictions=..., references=...)
metric.compute()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import evaluate
import numpy as np
from datasets import Features, List, Value

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.corruption import ALEXNET, Baseline, corruption_summary, error_table
from hf_ltsam.metrics.long_tail import LongTailCounts
from hf_ltsam.metrics.reliability import ConfidenceBins, add_probabilities

_CLASSES = {"predictions": Value("int64"), "references": Value("int64")}
_CORRUPTED = {**_CLASSES, "corruption": Value("string"), "severity": Value("int64")}
_PROBABILITIES = {"predictions": List(Value("float64")), "references": Value("int64")}


class _Metric(evaluate.Metric):
    """A metric with the arguments that `evaluate.load` hands on; batches are kept in memory unless it says otherwise."""

    description = ""
    inputs: dict[str, Any] = _CLASSES

    def __init__(
        self,
        config_name: str | None = None,
        keep_in_memory: bool = True,
        cache_dir: str | None = None,
        num_process: int = 1,
        process_id: int = 0,
        seed: int | None = None,
        experiment_id: str | None = None,
        hash: str | None = None,
    ) -> None:
        super().__init__(config_name, keep_in_memory, cache_dir, num_process, process_id, seed, experiment_id, hash)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description="predictions and references, one entry per test sample.",
            features=Features(self.inputs),
        )


class LongTailAccuracy(_Metric):
    """Of predicted and true classes (N,): "overall", "balanced", "worst", "macro_precision", "macro_f1", as
    `long_tail_metrics`, and "many", "medium", "few" where the training set is known.

    Args:
        counts: training samples by class (C,); None: not known, and there are no groups.
        many_above, few_below, group_sizes: as in `ClassStatistics`. A group without a test sample is left out.
        stock: of `evaluate.load`, such as `cache_dir` and `experiment_id`.
    """

    description = (
        "Accuracy overall, as class mean, of the worst class, and by how many training samples a class has; F1."
    )

    def __init__(
        self,
        counts: Sequence[int] | None = None,
        many_above: int | None = None,
        few_below: int | None = None,
        group_sizes: Sequence[int] | None = None,
        **stock: Any,
    ) -> None:
        super().__init__(**stock)
        self.statistics = None
        if counts is not None:
            bounds: Any = {"many_above": many_above, "few_below": few_below}
            sizes = None if group_sizes is None else cast(tuple[int, int, int], tuple(group_sizes))
            self.statistics = ClassStatistics(tuple(map(int, counts)), **bounds, group_sizes=sizes)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        num_classes = int(np.max(references)) + 1 if self.statistics is None else self.statistics.num_classes
        counts = LongTailCounts(num_classes)
        counts.add(np.asarray(predictions), np.asarray(references))
        return counts.metrics(self.statistics)


class CalibrationError(_Metric):
    """`{"ece": ...}` of probabilities (N, C) and true classes (N,). Sums are kept, not the probabilities.

    Args:
        num_bins: equally wide bins of confidence.
        stock: as in `LongTailAccuracy`; one process alone.
    """

    description = "Expected calibration error (Guo et al. 2017)."
    inputs = _PROBABILITIES

    def __init__(self, num_bins: int = 15, **stock: Any) -> None:
        super().__init__(**stock)
        if self.num_process > 1:
            raise ValueError("CalibrationError keeps sums and no samples: gather them, and compute in one process.")
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


class MeanCorruptionError(_Metric):
    """`corruption_summary` of predicted and true classes (N,) and, for each sample, its corruption and severity.

        metric.add_batch(predictions=..., references=..., corruption=["fog", ...], severity=[3, ...])

    Args:
        baseline: what CE and mCE are relative to: "alexnet" for ImageNet-C, or corruption -> mean error over the
            severities, a fraction; None: errors alone.
        severities: of the baseline's means.
        stock: as in `LongTailAccuracy`.
    """

    description = "Error per corruption, relative to a baseline's, and their means (Hendrycks & Dietterich 2019)."
    inputs = _CORRUPTED

    def __init__(
        self,
        baseline: str | Mapping[str, float] | None = None,
        severities: Sequence[int] = (1, 2, 3, 4, 5),
        **stock: Any,
    ) -> None:
        super().__init__(**stock)
        if isinstance(baseline, str) and baseline != "alexnet":
            raise ValueError(f"MeanCorruptionError(baseline={baseline!r}): 'alexnet', or the errors of another model.")
        self.baseline = ALEXNET if baseline == "alexnet" else None
        if isinstance(baseline, Mapping):
            self.baseline = Baseline("the baseline", dict(baseline), tuple(severities))

    def _compute(self, predictions: Any, references: Any, corruption: Any, severity: Any) -> dict[str, Any]:
        return corruption_summary(error_table(predictions, references, corruption, severity), self.baseline)
