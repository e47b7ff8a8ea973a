"""Metrics of samples with several labels at a time: average precision and F1 of every label, by group.

Shapes: N test samples, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.decisions import as_array, logits_in
from hf_ltsam.metrics.long_tail import LongTailMetrics, average_precision, group_accuracies

if TYPE_CHECKING:
    from transformers import EvalPrediction


def several_label_metrics(logits: Any, labels: Any, statistics: ClassStatistics) -> dict[str, float]:
    """ "map" (mean average precision over labels), "map_many", "map_medium", "map_few", "macro_f1", "micro_f1" at the
    threshold 0 of the logits, and "exact", the share of samples with all labels right. Labels without a test sample do not
    count in means.

    Args:
        logits: (N, C).
        labels: 0 or 1 (N, C).
        statistics: of the training set.

    Raises:
        ValueError: shapes that do not fit, or other labels.
    """
    scores, truth = as_array(logits).astype(np.float64), as_array(labels)
    if scores.shape != truth.shape or scores.ndim != 2 or not np.isin(truth, (0, 1)).all():
        raise ValueError(f"Expected logits (N, C) and labels 0 or 1 (N, C), got {scores.shape} and {truth.shape}.")
    members, taken = truth.sum(axis=0), (scores > 0).sum(axis=0)
    right = ((scores > 0) & (truth > 0)).sum(axis=0)
    tested, valid = members > 0, not np.isnan(scores).any()
    precision, f1 = np.full((2, len(members)), np.nan)
    f1[tested] = 2 * right[tested] / (members + taken)[tested]
    for c in np.flatnonzero(tested) if valid else []:
        precision[c] = average_precision(truth[:, c], scores[:, c])
    groups = group_accuracies(precision, statistics) if valid else {}
    return {
        "map": float(np.mean(precision[tested])),
        **{f"map_{name}": value for name, value in groups.items()},
        "macro_f1": float(np.nanmean(f1)),
        "micro_f1": float(2 * right.sum() / max(members.sum() + taken.sum(), 1)),
        "exact": float(((scores > 0) == (truth > 0)).all(axis=1).mean()),
    }


@dataclass(frozen=True)
class SeveralLabelMetrics(LongTailMetrics):
    """`several_label_metrics` as the `compute_metrics` of a Trainer."""

    _batches: list[tuple[Any, Any]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        groups = (f"map_{name}" for name, labels in self.statistics.groups.items() if labels)
        return ("map", *groups, "macro_f1", "micro_f1", "exact")

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """The metrics of all samples so far; see `LongTailMetrics`."""
        outputs, labels = prediction.predictions, prediction.label_ids
        for of_batch, truth in zip(outputs, labels) if isinstance(labels, list) else [(outputs, labels)]:
            self._batches.append((as_array(logits_in(of_batch)), as_array(truth)))
        if not compute_result:
            return {}
        logits, truth = (np.concatenate(parts) for parts in zip(*self._batches))
        self._batches.clear()
        return several_label_metrics(logits, truth, self.statistics)
