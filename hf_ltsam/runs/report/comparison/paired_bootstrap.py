"""Is one configuration better than another by more than chance? Percentile intervals of paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from hf_ltsam.runs.report.content import are_equal, digits_apart
from hf_ltsam.runs.report.saved_parts import Floats

REPLICATES = 2000
LEVEL = 0.95
ByGroup = dict[str, Floats]  # group -> (B, R): accuracy of R runs in each of B replicates


@dataclass(frozen=True)
class Interval:
    """A difference of accuracies, fractions.

    Args:
        low, high: of the interval around it.
    """

    difference: float
    low: float
    high: float

    @property
    def beyond_chance(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def is_empty(self) -> bool:
        """Whether every replicate had no difference."""
        return are_equal(self.low, 0) and are_equal(self.high, 0)

    @property
    def digits(self) -> int:
        """After the point of its percentages: enough to see on which side of zero it lies."""
        return max(digits_apart(end, 0) for end in (self.low, self.high)) if self.beyond_chance else digits_apart(0, 0)


def resample_images(
    right: NDArray[Any],
    labels: NDArray[np.int64],
    groups: Mapping[str, Sequence[int]],
    generator: np.random.Generator,
    replicates: int = REPLICATES,
) -> ByGroup:
    """Accuracies by group, where the test images of every class are drawn anew, the same ones for all runs.

    Images that the same runs got right are interchangeable, so it is their numbers that are drawn: exact, and fast also for
    1,000 classes.

    Args:
        right: (N, R) whether run r recognized image i.
        labels: true classes (N,).
        groups: name -> classes. The accuracy of a group is the mean of its classes' that have a test image.
    """
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = {name: np.zeros((replicates, right.shape[1])) for name in groups}
    members = {name: set(classes) & set(present.tolist()) for name, classes in groups.items()}
    for c, rows in zip(present.tolist(), np.split(order, starts[1:])):
        patterns, number = np.unique(right[rows], axis=0, return_counts=True)  # (K, R), (K,)
        drawn = generator.multinomial(len(rows), number / len(rows), size=replicates)  # (B, K)
        accuracy = drawn @ patterns.astype(np.float64) / len(rows)  # (B, R)
        for name in groups:
            if c in members[name]:
                sums[name] += accuracy
    return {name: total / len(members[name]) for name, total in sums.items() if members[name]}


def resample_classes(
    per_class: Floats, groups: Mapping[str, Sequence[int]], generator: np.random.Generator, replicates: int = REPLICATES
) -> ByGroup:
    """Accuracies by group, where the classes of every group are drawn anew; groups of fewer than two are left out.

    Args:
        per_class: (R, C); NaN for a class without test image.
    """
    tested = set(np.flatnonzero(np.isfinite(per_class).all(axis=0)).tolist())
    members = {name: np.array([c for c in classes if c in tested], dtype=np.int64) for name, classes in groups.items()}
    drawn = {
        n: pool[generator.integers(len(pool), size=(replicates, len(pool)))]
        for n, pool in members.items()
        if len(pool) > 1
    }
    return {name: np.stack([run[classes].mean(axis=1) for run in per_class], axis=1) for name, classes in drawn.items()}


def differences_of_means(first: Floats, second: Floats, generator: np.random.Generator, level: float = LEVEL) -> Floats:
    """Mean over the second runs minus that over the first (B,), as other test samples and other runs might have it.

    How far other runs would move the difference is drawn from a normal distribution, as wide as Student's interval is: three
    runs hardly show how much runs vary. (Drawn anew in its place, as test samples are, three equal runs each would be told
    apart in one case of eight.)

    Args:
        first, second: accuracies (B, S) and (B, S') of S and S' runs; of one run each nothing is known about others.
        level: that `interval` is asked for.
    """
    difference = np.asarray(second.mean(axis=1) - first.mean(axis=1))
    half = _half_width(first.mean(axis=0), second.mean(axis=0), level)
    return np.asarray(difference + half / _deviations(level) * generator.standard_normal(len(difference)))


def _half_width(first: Floats, second: Floats, level: float) -> float:
    """To each side of Student's interval of the difference between two means of runs, (S,) and (S',); 0 with one run each.

    Runs of both sides are taken to vary alike, a single one as those beside it. That matters where one side has more: 20 of
    them and 3 that vary twice as much would be told apart in one case of four. There the interval is the wider one of
    Student's and Welch's, which takes each side as it varies.
    """
    numbers = np.array([len(first), len(second)])
    squares = np.array([((runs - runs.mean()) ** 2).sum() for runs in (first, second)])
    freedom = numbers - 1
    if freedom.sum() == 0:
        return 0.0
    half = _student(level, freedom.sum()) * np.sqrt(squares.sum() / freedom.sum() * (1 / numbers).sum())
    if freedom.all() and freedom[0] != freedom[1] and squares.any():
        errors = squares / freedom / numbers
        welch = errors.sum() ** 2 / (errors**2 / freedom).sum()
        half = max(half, _student(level, welch) * np.sqrt(errors.sum()))
    return float(half)


def interval(difference: float, replicates: Floats, level: float = LEVEL) -> Interval:
    """The middle 95 % of the replicates (B,) around a difference.

    For another level each side is longer as that of a normal distribution is: the replicates are too few to show where a
    level near 1 ends.
    """
    longer = _deviations(level) / _deviations(LEVEL)
    low, high = (
        difference + longer * (float(end) - difference)
        for end in np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    )
    return Interval(difference, low, high)


def _student(level: float, freedom: float) -> float:
    """How many standard errors Student's interval of the level reaches to each side."""
    return float(student.ppf((1 + level) / 2, freedom))


def _deviations(level: float) -> float:
    """How many standard deviations a normal interval of the level reaches to each side."""
    return NormalDist().inv_cdf((1 + level) / 2)
