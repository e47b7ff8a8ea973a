"""What is chosen for a finished model on held-out samples: logit adjustment, temperature, conformal sets.

calibration = Calibration.fit(logits, labels, statistics.counts)       # of samples that were never trained on, nor tested on
calibration.probabilities(new_logits)                                  # (N, C)
calibration.sets(new_logits, coverage=0.9)                             # (N, C): the classes that are not excluded

Shapes: N samples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_ltsam.hyperparameters import nearest
from hf_ltsam.metrics.decisions import as_array, checked_scores
from hf_ltsam.metrics.long_tail import softmax

SCHEMA_VERSION = 1
TAUS = tuple(k / 20 for k in range(-20, 41))  # -1 takes a logit-adjusted model back to the training set's frequencies
TEMPERATURES = (0.02, 50.0)
COVERAGE = 0.9
_STEP = 1e-6  # to which scores are rounded up, so that sets never lose coverage

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Adjustment:
    """p = softmax((z - tau log pi) / T) of logits z, for the class frequencies pi of the training set.

    Args:
        tau: of the post-hoc logit adjustment (Menon et al. 2021, Eq. 9).
        temperature: T, positive (Guo et al. 2017, Sec. 4.2).
    """

    tau: float
    temperature: float


@dataclass(frozen=True)
class Calibration:
    """Choices that were made on held-out samples.

    Args:
        counts: training samples by class (C,).
        samples: number of the held-out ones.
        balanced: for a world in which all classes are equally frequent, as long-tailed recognition is tested: tau has the
            best mean of accuracies per class, T the smallest log-loss, in which every class counts the same.
        training: for a world with the class frequencies of the training set: tau has the best accuracy, T the smallest
            log-loss.
        scores: by class, 1 - p_y of its held-out samples by the model's own probabilities, ascending.
        source: what the held-out samples are; empty: samples that the training left out.
    """

    counts: tuple[int, ...]
    samples: int
    balanced: Adjustment
    training: Adjustment
    scores: tuple[tuple[float, ...], ...]
    source: str = ""

    @classmethod
    def fit(cls, logits: Any, labels: Any, counts: Sequence[int], source: str = "") -> Calibration:
        """Choose by held-out samples.

        Args:
            logits: (N, C); a row with a NaN is left out.
            labels: true classes (N,).
            counts: training samples by class (C,).
            source: what the samples are; empty: they were drawn as the training set was. Others may have any frequencies
                of classes: `training` then weighs every class by its share of the training set.

        Raises:
            ValueError: shapes that do not fit, a label outside [0, C), or nothing but NaN.
        """
        values, classes = checked_scores(logits, labels)
        z = as_array(values).astype(np.float64)
        if z.shape[1] != len(counts):
            raise ValueError(f"Calibration.fit: {z.shape[1]} logits do not fit counts of {len(counts)} classes.")
        finite = ~np.isnan(z).any(axis=1)
        if not finite.any():
            raise ValueError("Calibration.fit: every row of the logits has a NaN; the model has diverged.")
        z, y = z[finite], classes[finite]
        in_class = np.bincount(y, minlength=len(counts))
        log_prior = _log_prior(counts)
        as_in_training = np.ones(len(y)) if not source else np.exp(log_prior)[y] / in_class[y]
        scores = np.ceil((1 - softmax(z)[np.arange(len(y)), y]) / _STEP) * _STEP
        return cls(
            tuple(map(int, counts)),
            len(y),
            _adjustment(z, y, log_prior, 1 / in_class[y]),
            _adjustment(z, y, log_prior, as_in_training),
            tuple(tuple(np.sort(scores[y == c]).round(6).tolist()) for c in range(len(counts))),
            source,
        )

    def adjusted(self, logits: Any, prior: str = "balanced") -> Floats:
        """(z - tau log pi) / T (N, C).

        Args:
            prior: "balanced" or "training", see above.

        Raises:
            ValueError: another prior.
        """
        if prior not in PRIORS:
            raise ValueError(f"There is no prior {prior!r}.{nearest(prior, PRIORS)}")
        chosen: Adjustment = getattr(self, prior)
        return _adjusted(as_array(logits).astype(np.float64), _log_prior(self.counts), chosen)

    def probabilities(self, logits: Any, prior: str = "balanced") -> Floats:
        """Calibrated probabilities (N, C). Arguments and errors as of `adjusted`."""
        return softmax(self.adjusted(logits, prior))

    def sets(self, logits: Any, coverage: float = COVERAGE) -> NDArray[np.bool_]:
        """Whether a class is in the prediction set of a sample (N, C); a set may be empty.

        A new sample of a class has it in its set with probability `coverage` at least, over the draw of the held-out
        samples too, whatever the model: class by class, where the class has enough held-out samples; for the other
        classes taken together (`pooled`). A class of which too little is known even so is in every set.

        Args:
            coverage: in (0, 1).

        Source: class-conditional split conformal prediction (Vovk 2012; the score of Sadinle et al. 2019); rare classes
        together as in Ding et al. 2023.

        Raises:
            ValueError: coverage out of its range.
        """
        return 1 - softmax(logits) <= self.thresholds(coverage)

    def thresholds(self, coverage: float = COVERAGE) -> Floats:
        """The largest 1 - p_c with which a class is in a set (C,). Errors as of `sets`."""
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must lie between 0 and 1, got {coverage!r}.")
        thresholds = np.array([_quantile(np.array(scores), coverage) for scores in self.scores])
        pooled = self.pooled(coverage)
        together = np.sort(np.concatenate([[], *(self.scores[c] for c in pooled)]))
        thresholds[list(pooled)] = _quantile(together, coverage)
        return thresholds

    def pooled(self, coverage: float = COVERAGE) -> tuple[int, ...]:
        """Classes with too few held-out samples for a threshold of their own: fewer than 1 / (1 - coverage) - 1."""
        return tuple(c for c, scores in enumerate(self.scores) if _rank(len(scores), coverage) > len(scores))

    @cached_property
    def held_out(self) -> tuple[int, ...]:
        """Held-out samples by class (C,)."""
        return tuple(map(len, self.scores))

    def to_json(self) -> dict[str, Any]:
        values = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return values if self.source else {name: value for name, value in values.items() if name != "source"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: another schema, or parts that do not fit.
        """
        if values["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema_version is {values['schema_version']!r}, this release reads {SCHEMA_VERSION}")
        balanced, training = (
            Adjustment(float(values[p]["tau"]), float(values[p]["temperature"])) for p in ("balanced", "training")
        )
        counts = tuple(int(n) for n in values["counts"])
        scores = tuple(tuple(float(s) for s in of_class) for of_class in values["scores"])
        if len(counts) != len(scores) or min(balanced.temperature, training.temperature) <= 0:
            raise ValueError("its classes or its temperatures are none")
        return cls(counts, int(values["samples"]), balanced, training, scores, str(values.get("source", "")))


PRIORS = ("balanced", "training")


def _log_prior(counts: Sequence[int]) -> Floats:
    """log pi (C,); a class without a training sample counts as one with a single sample."""
    n = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    return np.log(n / n.sum())


def _adjusted(logits: Floats, log_prior: Floats, by: Adjustment) -> Floats:
    return (logits - by.tau * log_prior) / by.temperature


def _adjustment(z: Floats, y: NDArray[Any], log_prior: Floats, weights: Floats) -> Adjustment:
    """The tau of the best weighted accuracy, of equally good ones the nearest to 0; T of the least weighted log-loss."""
    from scipy.optimize import minimize_scalar

    def accuracy(tau: float) -> float:
        right = (z - tau * log_prior).argmax(axis=1) == y
        return round(float(weights @ right / weights.sum()), 12)

    def log_loss(log_temperature: float) -> float:
        scaled = _adjusted(z, log_prior, Adjustment(tau, math.exp(log_temperature)))
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(weights @ (np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(y)), y]))

    tau = max(TAUS, key=lambda tau: (accuracy(tau), -abs(tau)))
    found = minimize_scalar(log_loss, bounds=tuple(map(math.log, TEMPERATURES)), method="bounded")
    return Adjustment(tau, math.exp(found.x))


def _rank(samples: int, coverage: float) -> int:
    """k of the k-th smallest of n scores that a new one exceeds with probability 1 - coverage at most."""
    return math.ceil(round((samples + 1) * coverage, 9))


def _quantile(scores: Floats, coverage: float) -> float:
    """Of ascending scores; 1, which excludes nothing, where they are too few."""
    k = _rank(len(scores), coverage)
    return float(scores[k - 1]) if k <= len(scores) else 1.0
