"""Metrics of long-tailed classification; `evaluate.load(str(MODULES / "long_tail_accuracy"))` has them for `evaluate`."""

from pathlib import Path

from hf_ltsam.metrics.corruption import (
    ALEXNET,
    Baseline,
    corruption_errors,
    corruption_summary,
    error_table,
    mean_corruption_error,
    mean_error,
)
from hf_ltsam.metrics.long_tail import (
    LongTailMetrics,
    balanced_accuracy,
    group_accuracies,
    long_tail_metrics,
    overall_accuracy,
    per_class_accuracy,
    predicted_classes,
    softmax,
)
from hf_ltsam.metrics.reliability import confidence_bins, expected_calibration_error

# holds the folders that `evaluate.load` takes: long_tail_accuracy, mean_corruption_error, calibration_error
MODULES = Path(__file__).parent

__all__ = [
    "ALEXNET",
    "MODULES",
    "Baseline",
    "LongTailMetrics",
    "balanced_accuracy",
    "confidence_bins",
    "corruption_errors",
    "corruption_summary",
    "error_table",
    "expected_calibration_error",
    "group_accuracies",
    "long_tail_metrics",
    "mean_corruption_error",
    "mean_error",
    "overall_accuracy",
    "per_class_accuracy",
    "predicted_classes",
    "softmax",
]
