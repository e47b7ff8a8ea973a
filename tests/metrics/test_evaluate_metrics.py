"""The `evaluate.Metric` classes: batches, reuse, combination, and no network."""

import socket

import evaluate
import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics import ALEXNET, MODULES, corruption_summary
from hf_ltsam.metrics.evaluate_metrics import CalibrationError, LongTailAccuracy, MeanCorruptionError
from hf_ltsam.metrics.long_tail import LongTailMetrics
from hf_ltsam.metrics.reliability import expected_calibration_error

COUNTS = (200, 50, 5)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("a metric used the network"))


def test_batches_add_up_and_the_metric_can_be_used_again(tmp_path):
    metric = LongTailAccuracy(COUNTS, cache_dir=str(tmp_path))
    metric.add_batch(predictions=[0, 1], references=[0, 0])
    metric.add_batch(predictions=np.array([1, 2]), references=torch.tensor([1, 2]))
    metric.add(prediction=2, reference=1)
    accuracies = {"overall": 3 / 5, "balanced": 2 / 3, "worst": 0.5, "many": 0.5, "medium": 0.5, "few": 1}
    assert metric.compute() == pytest.approx(accuracies | {"macro_precision": (1 + 0.5 + 0.5) / 3, "macro_f1": 11 / 18})
    again = metric.compute(predictions=[0], references=[0])
    assert again["many"] == again["overall"] == 1 and "few" not in again
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("num_bins", [2, 15])
def test_calibration_error_over_batches(tmp_path, num_bins):
    probabilities = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    labels = torch.arange(20) % 3
    metric = CalibrationError(num_bins, cache_dir=str(tmp_path))
    for rows in (slice(0, 7), slice(7, 20)):
        metric.add_batch(predictions=probabilities[rows], references=labels[rows])
    assert metric.compute() == {"ece": expected_calibration_error(probabilities, labels, num_bins)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where `evaluate` copies modules and keeps batches."""
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return str(tmp_path / "cache")


def test_a_folder_is_loaded_as_evaluate_documents_it_and_agrees_with_the_trainer(cache):
    numbers = np.random.default_rng(0)
    predictions, labels = numbers.integers(0, 3, 50), numbers.integers(0, 3, 50)
    metric = evaluate.load(str(MODULES / "long_tail_accuracy"), counts=list(COUNTS), many_above=60, cache_dir=cache)
    assert metric.name == "long_tail_accuracy"
    for rows in np.array_split(np.arange(50), 3):
        metric.add_batch(predictions=predictions[rows], references=labels[rows])
    trainers = LongTailMetrics(ClassStatistics(COUNTS, many_above=60))(EvalPrediction(predictions, labels))
    del trainers["accuracy"]
    assert metric.compute() == trainers
    file = MODULES / "mean_corruption_error" / "mean_corruption_error.py"
    errors = evaluate.load(str(file), baseline="alexnet", cache_dir=cache)
    wrong = {"predictions": [0, 1], "references": [0, 0], "corruption": ["fog", "snow"]}
    with pytest.raises(ValueError, match="evaluate the same severities"):
        errors.compute(**wrong, severity=[1, 1])
    samples = [(c, s) for c in ("fog", "snow") for s in range(1, 6)]
    found = errors.compute(
        predictions=[1] * 10, references=[0] * 10, corruption=[c for c, _ in samples], severity=[s for _, s in samples]
    )
    assert found == corruption_summary({c: dict.fromkeys(range(1, 6), 1.0) for c in ("fog", "snow")}, ALEXNET)
    ece = evaluate.load(str(MODULES / "calibration_error"), num_bins=2, cache_dir=cache)
    assert ece.compute(predictions=[[0.4, 0.6]], references=[1]) == pytest.approx({"ece": 0.4})


def test_groups_by_rank_are_those_of_the_trainer(cache):
    """As the rows of Rangwani et al. 2022 report; the smallest class is in the middle here."""
    metric = evaluate.load(
        str(MODULES / "long_tail_accuracy"), counts=[200, 5, 50], group_sizes=[1, 1, 1], cache_dir=cache
    )
    found = metric.compute(predictions=[0, 1, 1], references=[0, 1, 2])
    assert (found["many"], found["medium"], found["few"]) == (1, 0, 1)


def test_combined_by_folder_and_by_object(cache, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", cache)
    known = LongTailAccuracy(COUNTS, cache_dir=cache)
    both = evaluate.combine({"plain": str(MODULES / "long_tail_accuracy"), "groups": known})
    both.add_batch(predictions=[0, 1, 1], references=[0, 0, 1])
    found = both.compute()
    assert found["plain_balanced"] == found["groups_balanced"] == 0.75
    assert found["many"] == 0.5 and found["medium"] == 1.0


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'resnet'.*alexnet"):
        MeanCorruptionError("resnet", cache_dir=str(tmp_path))
    with pytest.raises(TypeError, match="count"):
        LongTailAccuracy(count=[3, 4], cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="one process"):
        CalibrationError(num_process=2, keep_in_memory=False, cache_dir=str(tmp_path))
