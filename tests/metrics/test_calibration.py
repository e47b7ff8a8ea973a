"""Logit adjustment, temperature and conformal sets: against grids, naive loops and simulated coverage."""

import json
import math

import numpy as np
import pytest

from hf_ltsam.metrics.calibration import PRIORS, TAUS, Calibration

COUNTS = (600, 200, 60, 20)


def drawn(n, prior, seed, sharpness=1.0, distance=2.0):
    """Samples of Gaussian classes, and the logits of the Bayes classifier for `COUNTS`, times `sharpness`."""
    numbers = np.random.default_rng(seed)
    y = numbers.choice(4, n, p=np.asarray(prior) / np.sum(prior))
    centres = distance * np.eye(4)
    x = centres[y] + numbers.normal(size=(n, 4))
    log_density = -((x[:, None] - centres) ** 2).sum(2) / 2
    return sharpness * (log_density + np.log(np.array(COUNTS) / sum(COUNTS))), y


def log_loss(z, y, tau, T, weights):
    total = 0.0
    log_prior = [math.log(n / sum(COUNTS)) for n in COUNTS]
    for row, c, w in zip(z, y, weights):
        scaled = [(v - tau * p) / T for v, p in zip(row, log_prior)]
        total += w * (math.log(sum(math.exp(s) for s in scaled)) - scaled[c])
    return total


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("seed", range(2))
def test_tau_and_temperature_are_the_best_of_a_grid(prior, seed):
    z, y = drawn(250, COUNTS, seed, sharpness=3.0)
    chosen = getattr(Calibration.fit(z, y, COUNTS), prior)
    samples = [int((y == c).sum()) for c in range(4)]
    weights = [1 / samples[c] if prior == "balanced" else 1.0 for c in y]
    accuracies = {}
    for tau in TAUS:
        hits = 0.0
        for row, c, w in zip(z, y, weights):
            shifted = [v - tau * math.log(n / sum(COUNTS)) for v, n in zip(row, COUNTS)]
            hits += w * (shifted.index(max(shifted)) == c)
        accuracies[tau] = round(hits, 9)
    best = [tau for tau in TAUS if accuracies[tau] == max(accuracies.values())]
    assert abs(chosen.tau) == min(map(abs, best)) and chosen.tau in best
    grid = np.exp(np.linspace(math.log(0.3), math.log(20), 120))
    losses = [log_loss(z, y, chosen.tau, T, weights) for T in grid]
    at = int(np.argmin(losses))
    assert grid[at - 1] < chosen.temperature < grid[at + 1]
    assert log_loss(z, y, chosen.tau, chosen.temperature, weights) <= min(losses)


def test_a_sample_of_another_source_stands_for_as_many_as_the_training_set_has():
    """As if each were there so often: the shares of the classes are then those of the training set."""
    z, y = drawn(120, (1, 1, 1, 1), 3, sharpness=3.0)
    sizes = (20, 10, 12, 5)
    held_out = [np.flatnonzero(y == c)[:size] for c, size in enumerate(sizes)]
    rows = np.concatenate(held_out)
    often = np.concatenate([np.repeat(of, n // size) for of, n, size in zip(held_out, COUNTS, sizes)])
    given = Calibration.fit(z[rows], y[rows], COUNTS, source="validation").training
    replicated = Calibration.fit(z[often], y[often], COUNTS).training
    assert given.tau == replicated.tau
    assert given.temperature == pytest.approx(replicated.temperature, rel=1e-4)


@pytest.mark.parametrize("prior", [(1, 1, 1, 1), (4, 5, 8, 3)], ids=["balanced", "otherwise"])
def test_samples_of_any_frequencies_stand_for_those_of_the_training_set(prior):
    """`training` weighs each class by its share of the training set: the Bayes classifier of that needs no adjustment."""
    z, y = drawn(20_000, prior, 5, sharpness=3.0)
    given = Calibration.fit(z, y, COUNTS, source="validation")
    assert given.training.tau == pytest.approx(0, abs=0.21) and given.training.temperature == pytest.approx(3, rel=0.1)
    assert given.balanced == Calibration.fit(z, y, COUNTS).balanced and given.source == "validation"
    share = np.array(COUNTS) / sum(COUNTS) / np.bincount(y)
    losses = [log_loss(z[:2000], y[:2000], given.training.tau, T, share[y[:2000]]) for T in (2.2, 3.0, 4.2)]
    assert min(losses) == losses[1]
    assert Calibration.from_json(json.loads(json.dumps(given.to_json()))) == given
    assert "source" not in Calibration.fit(z, y, COUNTS).to_json()


def test_what_was_done_to_the_logits_is_found_again():
    """The Bayes classifier of the training set, its logits three times too large."""
    z, y = drawn(20_000, COUNTS, 5, sharpness=3.0)
    calibration = Calibration.fit(z, y, COUNTS)
    assert calibration.balanced.tau == pytest.approx(3, abs=0.5) or calibration.balanced.tau == max(TAUS)
    assert calibration.training.tau == pytest.approx(0, abs=0.11)
    assert calibration.training.temperature == pytest.approx(3, rel=0.1)
    z, y = drawn(20_000, COUNTS, 6)
    plain = Calibration.fit(z, y, COUNTS)
    assert plain.balanced.tau == pytest.approx(1, abs=0.2) and plain.training.temperature == pytest.approx(1, rel=0.1)
    expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(plain.probabilities(z, "training"), expected, atol=0.06)
    few = y == 3
    assert (plain.adjusted(z).argmax(1) == y)[few].mean() > (z.argmax(1) == y)[few].mean() + 0.2


def by_hand(scores, coverage):
    """Vovk 2012: the ceil((n + 1) coverage)-th smallest."""
    k = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return sorted(scores)[k - 1] if k <= len(scores) else 1.0


def test_the_thresholds_by_hand_and_rare_classes_together():
    z, y = drawn(200, (100, 60, 20, 2), 3)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    of_class = [[1 - p[i, c] for i in range(200) if y[i] == c] for c in range(4)]
    calibration = Calibration.fit(z, y, COUNTS)
    assert calibration.held_out == tuple(map(len, of_class)) and calibration.samples == 200
    for coverage in (0.5, 0.8, 0.9, 0.99):
        rare = [c for c in range(4) if len(of_class[c]) + 1 < 1 / (1 - coverage) - 1e-9]
        assert calibration.pooled(coverage) == tuple(rare)
        together = by_hand([s for c in rare for s in of_class[c]], coverage)
        expected = [together if c in rare else by_hand(of_class[c], coverage) for c in range(4)]
        np.testing.assert_allclose(calibration.thresholds(coverage), expected, atol=2e-6)
    assert 3 in calibration.pooled(0.9)
    assert calibration.sets(z[:0].reshape(0, 4), 0.9).shape == (0, 4)


def test_sets_cover_every_class_as_often_as_they_promise():
    """The mean over 300 draws of the held-out samples is exact to 1 / (n_c + 1): within 3 standard errors of it."""
    coverage, held_out = 0.8, (60, 30, 12, 9)
    new = np.repeat(np.arange(4), 200)
    covered = np.zeros((300, 4))
    for draw in range(300):
        numbers = np.random.default_rng(draw)
        y = np.repeat(np.arange(4), held_out)
        x, x_new = (numbers.normal(size=(len(c), 4)) + 1.0 * np.eye(4)[c] for c in (y, new))  # an arbitrary model
        sets = Calibration.fit(x, y, COUNTS).sets(x_new, coverage)
        covered[draw] = [sets[new == c, c].mean() for c in range(4)]
    errors = 3 * covered.std(axis=0) / math.sqrt(300)
    for c, n in enumerate(held_out):
        exact = math.ceil((n + 1) * coverage - 1e-9) / (n + 1)
        assert coverage - errors[c] <= covered[:, c].mean() == pytest.approx(exact, abs=errors[c] + 1e-3)


def test_a_class_of_which_nothing_is_known_is_in_every_set():
    z, y = drawn(50, (1, 1, 0, 0), 1)
    calibration = Calibration.fit(z, y, COUNTS)
    assert calibration.thresholds(0.9)[2:].tolist() == [1, 1] and calibration.sets(z)[:, 2:].all()


def test_it_is_saved_whole():
    z, y = drawn(80, COUNTS, 2)
    calibration = Calibration.fit(z, y, COUNTS)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


def test_rows_with_nan_are_left_out():
    z, y = drawn(80, COUNTS, 2)
    damaged = np.vstack([z, np.full((2, 4), np.nan)])
    assert Calibration.fit(damaged, np.append(y, [0, 1]), COUNTS) == Calibration.fit(z, y, COUNTS)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda z, y: Calibration.fit(z, y, COUNTS[:3]), "4 logits do not fit counts of 3"),
        (lambda z, y: Calibration.fit(z * np.nan, y, COUNTS), "diverged"),
        (lambda z, y: Calibration.fit(z, y + 4, COUNTS), "outside the class range"),
        (lambda z, y: Calibration.fit(z, y, COUNTS).probabilities(z, "balance"), "'balance'.*balanced"),
        (lambda z, y: Calibration.fit(z, y, COUNTS).sets(z, 90), "between 0 and 1, got 90"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*drawn(20, COUNTS, 0))
