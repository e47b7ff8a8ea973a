"""Intervals against closed forms, and against a case without any difference."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from hf_ltsam.runs.report.comparison.paired_bootstrap import (
    differences_of_means,
    interval,
    resample_classes,
    resample_images,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def binary_pair(both, first, second, neither):
    """(N, 2): images that both runs, only one of them, or none got right."""
    rows = [(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither
    return np.array(rows, dtype=bool)


def test_one_class_has_the_closed_form_of_paired_proportions():
    right = binary_pair(50, 10, 25, 15)
    drawn = resample_images(right, np.zeros(100, dtype=int), {"all": [0]}, rng(), 40_000)["all"]
    own = interval(0.15, drawn[:, 1] - drawn[:, 0])
    deviation = np.sqrt((0.10 + 0.25 - 0.15**2) / 100)
    assert own.low == pytest.approx(0.15 - 1.96 * deviation, abs=0.006)  # steps of 0.01, averaged by their mass
    assert own.high == pytest.approx(0.15 + 1.96 * deviation, abs=0.006)
    assert (drawn[:, 1] - drawn[:, 0]).std() == pytest.approx(deviation, rel=0.02)


def test_images_are_drawn_within_their_class():
    """Classes of 10 and 40 images: the variance of the group's mean is that of the two, over 4."""
    labels = np.repeat([0, 1], [10, 40])
    right = np.concatenate([binary_pair(3, 1, 4, 2), binary_pair(10, 10, 15, 5)])
    drawn = resample_images(right, labels, {"both": [0, 1], "second": [1]}, rng(), 40_000)
    variances = [(0.1 + 0.4 - 0.3**2) / 10, (0.25 + 0.375 - 0.125**2) / 40]
    difference = drawn["both"][:, 1] - drawn["both"][:, 0]
    assert difference.var() == pytest.approx(sum(variances) / 4, rel=0.03)
    assert difference.mean() == pytest.approx((0.3 + 0.125) / 2, abs=0.003)
    assert (drawn["second"][:, 1] - drawn["second"][:, 0]).var() == pytest.approx(variances[1], rel=0.03)


def test_the_same_run_twice_differs_by_nothing():
    right = np.repeat(rng().random((60, 1)) < 0.7, 2, axis=1)
    drawn = resample_images(right, rng(1).integers(0, 3, 60), {"all": [0, 1, 2]}, rng())["all"]
    own = interval(0.0, drawn[:, 1] - drawn[:, 0])
    assert (own.low, own.high) == (0, 0) and not own.beyond_chance


def test_without_a_difference_about_one_interval_in_twenty_excludes_zero():
    """Pairs of runs that are right with the same probability."""
    generator, found = rng(3), 0
    for _ in range(300):
        right = generator.random((200, 2)) < 0.6
        drawn = resample_images(right, np.repeat([0, 1], 100), {"all": [0, 1]}, generator, 1000)["all"]
        observed = right[:, 1].mean() - right[:, 0].mean()
        found += interval(observed, drawn[:, 1] - drawn[:, 0]).beyond_chance
    assert 5 <= found <= 28  # 15 expected, deviation 3.8


def test_a_large_difference_is_found():
    right = binary_pair(30, 0, 60, 10)
    drawn = resample_images(right, np.zeros(100, dtype=int), {"all": [0]}, rng())["all"]
    assert interval(0.6, drawn[:, 1] - drawn[:, 0]).beyond_chance
    assert interval(-0.6, drawn[:, 0] - drawn[:, 1]).beyond_chance


def test_a_level_beyond_the_replicates_is_that_of_a_normal_distribution():
    """One pair of the 190 of twenty configurations: 400 replicates end at 3.0 deviations."""
    normal = NormalDist()
    replicates = np.array([normal.inv_cdf((k + 0.5) / 400) for k in range(400)])
    own = interval(0.0, replicates, 1 - 0.05 / 190)
    assert own.high == pytest.approx(normal.inv_cdf(1 - 0.025 / 190), rel=0.02) and own.low == pytest.approx(-own.high)


def test_classes_have_the_closed_form_of_a_mean():
    per_class = np.stack([rng().random(50), rng(1).random(50)])
    drawn = resample_classes(per_class, {"all": range(50), "one": [3]}, rng(), 40_000)
    assert set(drawn) == {"all"}  # one class cannot be drawn anew
    difference = drawn["all"][:, 1] - drawn["all"][:, 0]
    assert difference.std() == pytest.approx((per_class[1] - per_class[0]).std() / np.sqrt(50), rel=0.02)


def test_classes_without_test_images_do_not_count():
    per_class = np.array([[0.5, np.nan, 0.7, 0.1], [0.5, 0.2, np.nan, 0.3]])
    drawn = resample_classes(per_class, {"all": range(4)}, rng(), 5000)["all"]
    assert set(np.round(drawn[:, 0], 6)) == {0.1, 0.3, 0.5}  # classes 0 and 3 only


def test_groups_without_test_images_are_left_out():
    drawn = resample_images(binary_pair(2, 1, 1, 0), np.array([0, 0, 1, 1]), {"few": [2], "many": [0, 2]}, rng(), 10)
    assert set(drawn) == {"many"} and drawn["many"].shape == (10, 2)


def of_seeds(first, second, level=0.95):
    drawn = differences_of_means(np.tile(first, (60_000, 1)), np.tile(second, (60_000, 1)), rng(), level)
    difference = np.mean(second) - np.mean(first)
    assert drawn.mean() == pytest.approx(difference, abs=1e-3)
    return interval(difference, drawn, level)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.992])
def test_seeds_have_the_closed_form_of_students_interval(level):
    """By scipy, from the accuracies themselves: the first three vary less than the second."""
    first, second = np.array([0.70, 0.74, 0.75]), np.array([0.80, 0.81, 0.90])
    own, exact = of_seeds(first, second, level), stats.ttest_ind(second, first).confidence_interval(level)
    assert (own.low, own.high) == (pytest.approx(exact.low, abs=3e-3), pytest.approx(exact.high, abs=3e-3))


@pytest.mark.parametrize(
    ("first", "second", "wider"),
    [
        ([0.70, 0.74, 0.75], [0.80, 0.81, 0.82, 0.80], "Welch"),
        ([0.70, 0.71, 0.70], [0.80, 0.81, 0.90, 0.86, 0.88, 0.84], "Student"),
    ],
    ids=["the fewer vary more", "the more vary more"],
)
@pytest.mark.parametrize("swapped", [False, True], ids=["as they are", "the other way round"])
def test_of_two_numbers_of_seeds_the_wider_interval_counts(first, second, wider, swapped):
    """Student's, for which both vary alike, and Welch's, by scipy."""
    if swapped:
        first, second = second, first
    exact = {
        name: stats.ttest_ind(second, first, equal_var=name == "Student").confidence_interval()
        for name in ("Student", "Welch")
    }
    assert max(exact, key=lambda name: exact[name].high) == wider
    own = of_seeds(np.array(first), np.array(second))
    assert (own.low, own.high) == (
        pytest.approx(exact[wider].low, abs=3e-3),
        pytest.approx(exact[wider].high, abs=3e-3),
    )


def test_one_run_beside_several_is_taken_to_vary_as_they_do():
    """A new value against three: Student's interval of a prediction."""
    several = np.array([0.70, 0.74, 0.75])
    own = of_seeds([0.9], several)
    half = stats.t.ppf(0.975, 2) * several.std(ddof=1) * np.sqrt(1 + 1 / 3)
    assert own.high - own.difference == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize(
    ("seeds", "deviations"),
    [((2, 2), (1, 1)), ((3, 3), (1, 1)), ((5, 5), (1, 3)), ((3, 1), (1, 1)), ((20, 2), (1, 1)), ((20, 3), (1, 2))],
    ids=str,
)
def test_seeds_without_a_difference_are_told_apart_once_in_twenty_times(seeds, deviations):
    """With the normal distribution's width three seeds each would be in one case of eight, two in one of five."""
    generator, found = rng(5), 0
    for _ in range(400):
        first, second = (generator.normal(0.5, 0.02 * d, size) for size, d in zip(seeds, deviations))
        drawn = differences_of_means(np.tile(first, (400, 1)), np.tile(second, (400, 1)), generator)
        found += interval(second.mean() - first.mean(), drawn).beyond_chance
    assert 7 <= found <= 34  # 20 expected, deviation 4.4


def test_one_run_each_is_left_as_it_is():
    first, second = rng().random((100, 1)), rng(1).random((100, 1))
    np.testing.assert_array_equal(differences_of_means(first, second, rng()), (second - first)[:, 0])


def test_seeds_that_agree_add_nothing():
    first, second = np.full((100, 3), 0.5), np.full((100, 2), 0.75)
    np.testing.assert_array_equal(differences_of_means(first, second, rng()), np.full(100, 0.25))
