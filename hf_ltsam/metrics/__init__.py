"""What a classifier of a long tail is measured by. The `evaluate.Metric` classes are in `evaluate_metrics.py`."""

from .long_tail import (
    LongTailMetrics,
    balanced_accuracy,
    expected_calibration_error,
    group_accuracies,
    long_tail_metrics,
    overall_accuracy,
    per_class_accuracy,
    predicted_classes,
    softmax,
)
from .run_record import RunRecord, installed_versions, read_metrics, split_results, write_metrics

__all__ = [
    "LongTailMetrics", "RunRecord", "balanced_accuracy", "expected_calibration_error", "group_accuracies",
    "installed_versions", "long_tail_metrics", "overall_accuracy", "per_class_accuracy", "predicted_classes",
    "read_metrics", "softmax", "split_results", "write_metrics",
]
