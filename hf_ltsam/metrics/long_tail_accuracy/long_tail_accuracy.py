"""Accuracy by group of classes, worst class and F1, for `evaluate.load(FOLDER)`."""

from hf_ltsam.metrics.evaluate_metrics import LongTailAccuracy

__all__ = ["LongTailAccuracy"]
