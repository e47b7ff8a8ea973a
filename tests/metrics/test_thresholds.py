"""Two classes at every threshold, against loops over all of them."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from hf_ltsam.metrics.thresholds import threshold_curve


def a_test_set(n=60, seed=0):
    numbers = np.random.default_rng(seed)
    positive = numbers.random(n) < 0.2
    return (numbers.random(n) * 0.6 + 0.4 * positive).round(2), positive  # with equal probabilities


def at(t, p, positive):
    """Taken for positive from t on: precision, recall, F1, false alarms."""
    hits = sum(1 for x, y in zip(p, positive) if x >= t and y)
    alarms = sum(1 for x, y in zip(p, positive) if x >= t and not y)
    precision, recall = hits / (hits + alarms), hits / positive.sum()
    f1 = 0 if hits == 0 else 2 * precision * recall / (precision + recall)
    return precision, recall, f1, alarms / (~positive).sum()


@pytest.mark.parametrize("seed", range(3))
def test_every_threshold_by_hand(seed):
    p, positive = a_test_set(seed=seed)
    curve = threshold_curve(p, positive)
    assert curve.thresholds.tolist() == sorted(set(p))
    found = np.stack([curve.precision, curve.recall, curve.f1, curve.false_alarms], axis=1)
    np.testing.assert_allclose(found, [at(t, p, positive) for t in curve.thresholds], atol=1e-12)
    precision, recall, thresholds = precision_recall_curve(positive, p)
    np.testing.assert_allclose(curve.precision[np.isin(curve.thresholds, thresholds)], precision[:-1])
    np.testing.assert_allclose(curve.recall, recall[:-1])
    assert curve.f1[curve.best] == pytest.approx(max(at(t, p, positive)[2] for t in p))


@pytest.mark.parametrize("prior, miss, alarm", [(0.1, 1, 1), (0.01, 50, 1), (0.5, 1, 3)])
def test_the_cost_is_that_of_the_cheapest_threshold(prior, miss, alarm):
    """Expected cost over that of the worst classifier, which is always wrong."""
    p, positive = a_test_set(seed=4)
    costs = []
    for t in [0, *p, 2]:
        missed, alarms = (positive & (p < t)).sum() / positive.sum(), (~positive & (p >= t)).sum() / (~positive).sum()
        costs.append(prior * missed * miss + (1 - prior) * alarms * alarm)
    worst = prior * miss + (1 - prior) * alarm
    share = prior * miss / worst
    curve = threshold_curve(p, positive)
    assert curve.costs([share]) == pytest.approx([min(costs) / worst])
    assert curve.costs([0, 1]).tolist() == [0, 0] and (curve.costs(np.linspace(0, 1, 9)) <= 0.5).all()
    assert threshold_curve(positive, positive).costs([0.3]).tolist() == [0]
    assert threshold_curve([0.9, 0.1], [False, True]).costs([0.3]).tolist() == [0.3]  # none is taken for positive


def test_one_class_alone_has_no_curve():
    with pytest.raises(ValueError, match="both classes"):
        threshold_curve([0.1, 0.2], [True, True])
