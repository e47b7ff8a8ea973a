"""The `evaluate.Metric` classes: batches, reuse, combination, and no network."""

import socket

import evaluate
import numpy as np
import pytest
import torch

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.evaluate_metrics import BalancedAccuracy, CalibrationError, GroupAccuracy, LongTailAccuracy
from hf_ltsam.metrics.reliability import expected_calibration_error

STATISTICS = ClassStatistics(counts=(200, 50, 5))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("a metric used the network"))


def test_batches_add_up_and_the_metric_can_be_used_again(tmp_path):
    metric = LongTailAccuracy(STATISTICS, cache_dir=str(tmp_path))
    metric.add_batch(predictions=[0, 1], references=[0, 0])
    metric.add_batch(predictions=np.array([1, 2]), references=torch.tensor([1, 2]))
    metric.add(prediction=2, reference=1)
    expected = {"overall": 3 / 5, "balanced": 2 / 3, "many": 0.5, "medium": 0.5, "few": 1}
    assert metric.compute() == pytest.approx(expected)
    assert metric.compute(predictions=[0], references=[0]) == {"overall": 1, "balanced": 1, "many": 1}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_balanced_accuracy(tmp_path):
    metric = BalancedAccuracy(cache_dir=str(tmp_path))
    assert metric.compute(predictions=[0, 1, 1, 7], references=[0, 0, 1, 2]) == pytest.approx(
        {"balanced_accuracy": (0.5 + 1 + 0) / 3}
    )


@pytest.mark.parametrize("num_bins", [2, 15])
def test_calibration_error_over_batches(tmp_path, num_bins):
    probabilities = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    labels = torch.arange(20) % 3
    metric = CalibrationError(num_bins, cache_dir=str(tmp_path))
    for rows in (slice(0, 7), slice(7, 20)):
        metric.add_batch(predictions=probabilities[rows], references=labels[rows])
    assert metric.compute() == {"ece": expected_calibration_error(probabilities, labels, num_bins)}


def test_two_metrics_in_one(tmp_path):
    both = evaluate.combine([BalancedAccuracy(str(tmp_path)), GroupAccuracy(STATISTICS, str(tmp_path))])
    assert both.compute(predictions=[0, 1, 1], references=[0, 0, 1]) == {
        "balanced_accuracy": 0.75,
        "many": 0.5,
        "medium": 1.0,
    }
