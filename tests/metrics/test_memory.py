"""Metrics without a copy of the logits: bounded memory, and the numbers of the plain equations to the last digit."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import EvalPrediction

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.decisions import PARTS, Decisions
from hf_ltsam.metrics.evaluate_metrics import CalibrationError
from hf_ltsam.metrics.long_tail import LongTailMetrics, long_tail_metrics, softmax
from hf_ltsam.metrics.reliability import expected_calibration_error
from hf_ltsam.runs.predictions import predictions_of
from hf_ltsam.runs.record import split_results
from hf_ltsam.training.evaluation import _mean_cross_entropy, decisions_of_batch

C = 2000
STATISTICS = ClassStatistics(counts=tuple(2 + 3 * c for c in range(C))[::-1])


def a_test_set(n, seed=0, dtype=np.float32):
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, C, n)
    logits = numbers.normal(scale=2, size=(n, C)).astype(dtype)
    logits[np.arange(n), labels] += 6
    return logits, labels


def plainly(logits, labels):
    """All at once, as the equations read, in float64."""
    z = np.asarray(logits, dtype=np.float64)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    right, predicted = p.argmax(1) == labels, np.where(np.isnan(z).any(1), -1, z.argmax(1))
    bins = np.digitize(p.max(1), np.linspace(0, 1, 16)[1:-1], right=True)
    gaps = np.bincount(bins, right, 15) - np.bincount(bins, p.max(1), 15)
    samples = np.bincount(labels, minlength=C)
    with np.errstate(invalid="ignore"):
        per_class = np.bincount(labels[predicted == labels], minlength=C) / samples
    of_groups = {name: per_class[list(classes)] for name, classes in STATISTICS.groups.items()}
    groups = {name: np.nanmean(shares) for name, shares in of_groups.items() if not np.isnan(shares).all()}
    taken, right_of = np.bincount(predicted.clip(0), minlength=C), np.bincount(labels[predicted == labels], minlength=C)
    untested = np.where(samples > 0, 0, np.nan)
    before = (z > z[np.arange(len(z)), labels][:, None]).sum(1)
    return {
        "overall": (predicted == labels).mean(),
        "balanced": np.nanmean(per_class),
        "worst": np.nanmin(per_class),
        **groups,
        "macro_precision": np.nanmean(right_of / taken.clip(1) + untested),
        "macro_f1": np.nanmean(2 * right_of / (samples + taken).clip(1) + untested),
        "top5": (before < 5).mean(),
        "ece": np.abs(gaps).sum() / len(labels),
    }


def in_batches(metrics, outputs, labels, size):
    starts = range(0, len(labels), size)
    for start in starts:
        batch = EvalPrediction(predictions=outputs(slice(start, start + size)), label_ids=labels[start : start + size])
        result = metrics(batch, compute_result=start == starts[-1])
        assert (result == {}) == (start != starts[-1])
    return result


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100, 333])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_numbers_are_those_of_all_samples_at_once_to_the_last_digit(n, dtype):
    logits, labels = a_test_set(n, n, dtype)
    expected, metrics = plainly(logits, labels), LongTailMetrics(STATISTICS)
    assert long_tail_metrics(logits, labels, STATISTICS) == expected
    expected = {"accuracy": expected["overall"], **expected}
    assert metrics(EvalPrediction(predictions=logits, label_ids=labels)) == expected
    assert (
        metrics(EvalPrediction(predictions=list(np.array_split(logits, 3)), label_ids=list(np.array_split(labels, 3))))
        == expected
        if n > 3
        else True
    )
    for size in (1, 7, n):
        assert in_batches(metrics, lambda rows: (logits[rows], np.zeros((1, 1))), labels, size) == expected
        assert in_batches(metrics, lambda rows: torch.from_numpy(logits[rows]), labels, size) == expected
        kept = [
            decisions_of_batch(*map(torch.tensor, (logits[i : i + size], labels[i : i + size])))
            for i in range(0, n, size)
        ]
        kept = tuple(torch.cat(column).numpy() for column in zip(*kept))
        assert (
            in_batches(metrics, lambda rows, kept=kept: tuple(column[rows] for column in kept), labels, size)
            == expected
        )
    assert expected_calibration_error(softmax(logits), labels) == expected["ece"]
    result = split_results(Decisions.of(logits).columns, labels, STATISTICS)
    assert (result["overall"], result["balanced"], result["ece"]) == tuple(
        expected[k] for k in ("overall", "balanced", "ece")
    )
    kept = predictions_of(Decisions.of(logits).columns, labels, [""] * C)
    np.testing.assert_array_equal(kept.confidence, softmax(logits).max(1).round(4))


@pytest.mark.parametrize("n", [1, 17, 333, 3000])
def test_the_mean_loss_is_that_of_all_logits_to_the_last_digit(n):
    logits = torch.randn(n, 150, generator=torch.Generator().manual_seed(n)) * 3
    labels = torch.randint(0, 150, (n,), generator=torch.Generator().manual_seed(n))
    kept = [decisions_of_batch(z, y) for z, y in zip(logits.split(8), labels.split(8))]
    columns = tuple(torch.cat(column).numpy() for column in zip(*kept))
    assert _mean_cross_entropy(columns, labels.numpy()) == float(F.cross_entropy(logits.double(), labels))
    assert _mean_cross_entropy(logits.numpy(), labels.numpy()) == float(F.cross_entropy(logits.double(), labels))


def test_a_diverged_model(recwarn):
    logits, labels = a_test_set(40)
    logits[7, 3] = np.nan
    metrics = in_batches(LongTailMetrics(STATISTICS), lambda rows: logits[rows], labels, 8)
    assert (
        np.isnan(metrics.pop("ece"))
        and metrics["overall"] == np.mean(np.delete(logits, 7, 0).argmax(1) == np.delete(labels, 7)) * 39 / 40
    )
    assert predictions_of(logits, labels, [""] * C).predicted[7] == -1


def peak(call):
    """Bytes that were allocated at the worst moment of a call, beside what was there before."""
    call()  # what is imported or cached once
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


N = 32 * PARTS
LOGITS, LABELS = a_test_set(N)
COUNTS = C * 8 * 12  # some vectors of all classes
PROBABILITIES = softmax(LOGITS).astype(np.float32)
CALLS = {
    "metrics": lambda: LongTailMetrics(STATISTICS)(EvalPrediction(predictions=LOGITS, label_ids=LABELS)),
    "metrics of tensors": lambda: LongTailMetrics(STATISTICS)(
        EvalPrediction(predictions=torch.from_numpy(LOGITS), label_ids=LABELS)
    ),
    "metrics by batch": lambda: in_batches(LongTailMetrics(STATISTICS), lambda rows: LOGITS[rows], LABELS, 64),
    "record": lambda: split_results(LOGITS, LABELS, STATISTICS),
    "predictions": lambda: predictions_of(LOGITS, LABELS, [""] * C),
    "calibration": lambda: expected_calibration_error(PROBABILITIES, LABELS),
    "evaluate": lambda: CalibrationError().compute(predictions=PROBABILITIES, references=LABELS),
}


@pytest.mark.parametrize("what", CALLS)
def test_beside_the_logits_a_fifth_of_them_at_most(what):
    assert peak(CALLS[what]) < 0.2 * LOGITS.nbytes + COUNTS


def test_a_calibration_error_keeps_sums_of_its_batches(tmp_path):
    metric = CalibrationError(cache_dir=str(tmp_path))

    def batches():
        for start in range(0, N, 64):
            metric.add_batch(predictions=PROBABILITIES[start : start + 64], references=LABELS[start : start + 64])
        return metric.compute()

    assert batches() == {"ece": expected_calibration_error(PROBABILITIES, LABELS)}
    assert peak(batches) < 0.5 * PROBABILITIES[:64].nbytes + COUNTS
    for p, y in zip(PROBABILITIES[:5], LABELS[:5]):
        metric.add(prediction=p, reference=y)
    assert metric.compute() == {"ece": expected_calibration_error(PROBABILITIES[:5], LABELS[:5])}
    with pytest.raises(ValueError, match="no samples"):
        metric.compute()
