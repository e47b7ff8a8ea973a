"""Whether a confidence of 80 % means 80 % right: bins of confidence, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_ltsam.metrics.decisions import as_array, checked_scores, parts_of

Floats = NDArray[np.float64]


def expected_calibration_error(probabilities: Any, labels: Any, num_bins: int = 15) -> float:
    """Mean of |accuracy - confidence| over equally wide bins of confidence, weighted by their samples.

    Args:
        probabilities: (N, C), rows summing to 1 (`softmax(logits)`); the confidence is the largest of a row.
        labels: true classes (N,).
        num_bins: bins are ((b - 1)/num_bins, b/num_bins].

    Returns:
        A number in [0, 1]; NaN if a probability is NaN, as for a diverged model.

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C), rows that are no probabilities, or fewer than one bin.

    Source: Guo et al. 2017 Eq. 3, with 15 bins as in Sec. 5.
    """
    bins = ConfidenceBins.empty(num_bins)
    add_probabilities(bins, probabilities, labels)
    return bins.error


@dataclass(frozen=True)
class ConfidenceBins:
    """Sums over the samples in every bin of confidence, ((b - 1)/B, b/B].

    Args:
        samples: their number (B,).
        confidence: sum of their confidences (B,).
        right: number of correct predictions (B,).
    """

    samples: Floats
    confidence: Floats
    right: Floats

    @classmethod
    def empty(cls, num_bins: int = 15) -> ConfidenceBins:
        """Without samples.

        Raises:
            ValueError: fewer than one bin.
        """
        if num_bins < 1:
            raise ValueError(f"ConfidenceBins(num_bins=...) must be at least 1, got {num_bins}.")
        return cls(np.zeros(num_bins), np.zeros(num_bins), np.zeros(num_bins))

    def add(self, confidence: Any, right: Any) -> None:
        """Add samples one after another: batches give the same sums, to the last digit, as all samples at once.

        Args:
            confidence: the largest probability of every sample (n,).
            right: whether its prediction is correct (n,).
        """
        values, num_bins = as_array(confidence).astype(np.float64), len(self.samples)
        bins = np.digitize(values, np.linspace(0, 1, num_bins + 1)[1:-1], right=True)
        for sums, added in ((self.samples, 1.0), (self.confidence, values), (self.right, as_array(right))):
            np.add.at(sums, bins, added)

    @property
    def error(self) -> float:
        """The expected calibration error; NaN if a confidence is, and without samples."""
        samples = self.samples.sum()
        return float(np.abs(self.right - self.confidence).sum() / samples) if samples else float("nan")


def confidence_bins(confidence: Any, right: Any, num_bins: int = 15) -> ConfidenceBins:
    """The contents of a reliability diagram.

    Args:
        confidence, right: as in `ConfidenceBins.add` (N,).
        num_bins: B.
    """
    bins = ConfidenceBins.empty(num_bins)
    bins.add(confidence, right)
    return bins


def add_probabilities(bins: ConfidenceBins, probabilities: Any, labels: Any) -> None:
    """Add samples, some at a time.

    Args:
        bins: are changed in place.
        probabilities, labels: as in `expected_calibration_error`.

    Raises:
        ValueError: as `expected_calibration_error`.
    """
    scores, classes = checked_scores(probabilities, labels)
    for rows in parts_of(scores):
        bins.add(*_judged(as_array(scores[rows]), classes[rows]))


def _judged(probabilities: NDArray[Any], labels: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """The largest probabilities (n,), in float64, and whether they are the true classes'."""
    values = probabilities.astype(np.float64)
    confidence = values.max(axis=1)
    if not np.isnan(confidence).any():
        _check_probabilities(values)
    return confidence, values.argmax(axis=1) == labels


def _check_probabilities(values: Floats) -> None:
    # a row of bfloat16 probabilities sums to 1 within its 8 bits only
    if values.min() < 0 or np.abs(values.sum(axis=1) - 1).max() > 0.02:
        raise ValueError(
            "expected_calibration_error(probabilities=...) needs rows of non-negative numbers that sum to 1. "
            "For logits pass softmax(logits)."
        )
