"""Errors under corruption and mCE, for `evaluate.load(FOLDER)`."""

from hf_ltsam.metrics.evaluate_metrics import MeanCorruptionError

__all__ = ["MeanCorruptionError"]
