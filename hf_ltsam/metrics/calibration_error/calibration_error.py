"""Expected calibration error, for `evaluate.load(FOLDER)`."""

from hf_ltsam.metrics.evaluate_metrics import CalibrationError

__all__ = ["CalibrationError"]
