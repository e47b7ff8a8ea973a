"""What a classifier of a long tail is measured by. The `evaluate.Metric` classes are in `evaluate_metrics.py`."""

from .corruption import (
    ALEXNET,
    Baseline,
    corruption_errors,
    corruption_summary,
    error_table,
    mean_corruption_error,
    mean_error,
)
from .long_tail import (
    LongTailMetrics,
    balanced_accuracy,
    confidence_bins,
    expected_calibration_error,
    group_accuracies,
    long_tail_metrics,
    overall_accuracy,
    per_class_accuracy,
    predicted_classes,
    softmax,
)
from .predictions import Predictions, predictions_of, read_predictions, write_predictions
from .run_record import RunRecord, installed_versions, read_metrics, split_results, write_metrics

__all__ = [
    "ALEXNET", "Baseline", "LongTailMetrics", "Predictions", "RunRecord", "balanced_accuracy", "confidence_bins",
    "corruption_errors", "corruption_summary", "error_table", "expected_calibration_error", "group_accuracies",
    "installed_versions", "long_tail_metrics", "mean_corruption_error", "mean_error", "overall_accuracy",
    "per_class_accuracy", "predicted_classes", "predictions_of", "read_metrics", "read_predictions", "softmax",
    "split_results", "write_metrics", "write_predictions",
]
