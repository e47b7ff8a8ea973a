"""Two classes at every threshold: what is found, what is right, and what it costs. Shapes: N samples, T thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdCurve:
    """A sample is taken for the positive class where its probability is at least the threshold.

    Args:
        thresholds: ascending (T,), the distinct probabilities.
        precision, recall, f1: of the positive class (T,).
        false_alarms: share of the other class's samples that are taken for the positive one (T,).
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    false_alarms: Floats

    @property
    def best(self) -> int:
        """The place of the largest F1; of equally good ones the lowest threshold, which finds most."""
        return int(self.f1.argmax())

    def costs(self, shares: Any) -> Floats:
        """The least normalised expected cost over all thresholds, taking all and none for positive among them (S,).

        With pi the frequency of the positive class, and m and f the costs of missing one and of a false alarm, it is
        min_t x (1 - recall_t) + (1 - x) false_alarms_t at x = pi m / (pi m + (1 - pi) f): 0 for a perfect model, and
        min(x, 1 - x) without one.

        Args:
            shares: x, in [0, 1] (S,).

        Source: Drummond & Holte 2006, the lower envelope of the cost lines.
        """
        x = np.asarray(shares, dtype=np.float64)[:, None]
        misses, alarms = np.append(1 - self.recall, 1.0), np.append(self.false_alarms, 0.0)  # and a threshold above all
        costs: Floats = (x * misses + (1 - x) * alarms).min(axis=1)
        return costs


def threshold_curve(probabilities: Any, positive: Any) -> ThresholdCurve:
    """The curve of one class of two.

    Args:
        probabilities: of the positive class (N,).
        positive: whether a sample is of it (N,).

    Raises:
        ValueError: samples of one class only.
    """
    from sklearn.metrics import roc_curve

    positive = np.asarray(positive, dtype=bool)
    if positive.all() or not positive.any():
        raise ValueError("A threshold curve needs samples of both classes.")
    alarms, recall, thresholds = roc_curve(
        positive, np.asarray(probabilities, dtype=np.float64), drop_intermediate=False
    )
    alarms, recall, thresholds = (values[:0:-1] for values in (alarms, recall, thresholds))  # without the one above all
    true, false = recall * positive.sum(), alarms * (~positive).sum()
    precision, f1 = true / (true + false), 2 * true / (true + false + positive.sum())
    return ThresholdCurve(thresholds, precision, recall, f1, alarms)
