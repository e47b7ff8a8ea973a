"""Bounds of the reporting groups that fit the data set where none are stated."""

import pytest

from hf_ltsam import ClassStatistics

SIZES = ("many", "medium", "few")


@pytest.mark.parametrize(
    ("counts", "bounds", "sizes"),
    [
        ((500, 120, 60, 20, 19), (100, 20), (2, 2, 1)),  # the usual ones leave no group empty
        ((90, 45, 20, 10, 5, 3), (20, 10), (2, 2, 2)),
        ((3, 5, 10, 20, 45, 90), (20, 10), (2, 2, 2)),  # whatever the order
        ((403, 407, 900), (500, 405), (1, 1, 1)),
        ((2000, 150, 12), (100, 20), (2, 0, 1)),  # no medium, but a head and a tail
        ((5000, 4800, 4700, 3, 2), (100, 20), (3, 0, 2)),
        ((5000, 4800, 60, 55, 50), (2000, 60), (2, 1, 2)),  # a wide gap
        ((500, 150), (200, 200), (1, 0, 1)),  # two counts: the rare class is few
        ((15,) * 5 + (2,), (10, 10), (5, 0, 1)),
        ((2, 1), (1, 2), (1, 0, 1)),  # no whole number lies between
        ((7, 3), (5, 5), (1, 0, 1)),
        ((11, 13), (100, 20), (0, 0, 2)),  # nearly balanced: there is no tail to show
        ((1300, 732), (100, 20), (2, 0, 0)),
        ((20, 10), (15, 15), (1, 0, 1)),
        ((6, 6, 6, 3, 3, 1), (5, 2), (3, 2, 1)),  # classes of one count are never parted
        ((4, 3, 2, 1), (2, 2), (2, 1, 1)),
        ((7, 7, 7), (100, 20), (0, 0, 3)),  # nothing to part
    ],
)
def test_bounds_that_fit_the_counts(counts, bounds, sizes):
    statistics = ClassStatistics(counts)
    assert (statistics.many_above, statistics.few_below) == bounds
    assert tuple(len(statistics.groups[name]) for name in SIZES) == sizes
    assert statistics.has_fitted_bounds == (bounds != (100, 20))
    labels = [c for c, n in enumerate(counts) for _ in range(n)]
    assert ClassStatistics.from_labels(labels) == statistics == ClassStatistics.from_dict(statistics.to_dict())


@pytest.mark.parametrize(
    ("stated", "bounds"),
    [
        ({"many_above": 100, "few_below": 20}, (100, 20)),
        ({"many_above": 7, "few_below": 0}, (7, 0)),
        ({"many_above": 200}, (200, 20)),
        ({"many_above": 5}, (5, 6)),
        ({"few_below": 10}, (100, 10)),
        ({"few_below": 200}, (199, 200)),
        ({"group_sizes": (1, 1, 1)}, (100, 20)),
    ],
)
def test_a_stated_bound_stays(stated, bounds):
    statistics = ClassStatistics((40, 12, 5), **stated)
    assert (statistics.many_above, statistics.few_below) == bounds and not statistics.has_fitted_bounds
    assert ClassStatistics((40, 12, 5)).bounds == {"many_above": 20, "few_below": 10}
