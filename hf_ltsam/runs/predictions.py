"""Label, predicted class and confidence of every test image of a run: what is kept of its logits.

Confusion, calibration and paired comparisons of two runs follow from them. In JSON 50,000 images of 1,000 classes take
0.9 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_ltsam.metrics.decisions import Decisions

SCHEMA_VERSION = 1
DECIMALS = 4  # of a confidence


@dataclass(frozen=True)
class Predictions:
    """Of one split, in the order of its images.

    Args:
        class_names: C names.
        labels: true classes (N,).
        predicted: the class with the largest logit (N,); -1 where a logit is NaN.
        confidence: the largest probability (N,), with 4 decimals; NaN where a logit is NaN.
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def __post_init__(self) -> None:
        C = len(self.class_names)
        lengths = {len(self.labels), len(self.predicted), len(self.confidence)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(f"Predictions need lists of one length, at least 1, got lengths {sorted(lengths)}.")
        for name, values, lowest in (("labels", self.labels, 0), ("predicted", self.predicted, -1)):
            if values.min() < lowest or values.max() >= C:
                raise ValueError(f"Predictions({name}=...) must lie in {lowest} to {C - 1}, the {C} classes.")

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image was recognized (N,)."""
        return self.predicted == self.labels

    def to_json(self) -> dict[str, Any]:
        """`schema_version`, `class_names`, and the lists under the name of the split, "test"."""
        lists = {"labels": self.labels, "predicted": self.predicted, "confidence": self.confidence}
        return {"schema_version": SCHEMA_VERSION, "class_names": list(self.class_names), "test": lists}

    @classmethod
    def from_json(cls, values: Any) -> Predictions:
        """The predictions that `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: another schema, no such split, or lists that do not fit.
        """
        if values["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema_version is {values['schema_version']!r}, this release reads {SCHEMA_VERSION}")
        lists = values["test"]
        labels, predicted = (np.asarray(lists[key], dtype=np.int64) for key in ("labels", "predicted"))
        confidence = np.asarray(lists["confidence"], dtype=np.float64)
        return cls(tuple(map(str, values["class_names"])), labels, predicted, confidence)


def predictions_of(outputs: Any, labels: Any, class_names: Sequence[str]) -> Predictions:
    """Predictions from logits (N, C), or what is kept of them (`Decisions`), and labels (N,).

    Raises:
        ValueError: classes without probabilities.
    """
    decisions = Decisions.of(outputs)
    if decisions.confidence is None:
        raise ValueError("Predictions need the probability of the predicted class: give logits (N, C).")
    confidence = np.round(decisions.confidence, DECIMALS)
    return Predictions(tuple(class_names), np.asarray(labels, dtype=np.int64), decisions.predicted, confidence)
