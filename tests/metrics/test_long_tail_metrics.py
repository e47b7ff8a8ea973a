"""Accuracies against scikit-learn and by hand, calibration by hand, and test sets that lack classes."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    recall_score,
    top_k_accuracy_score,
)
from transformers import EvalPrediction

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.long_tail import (
    LongTailMetrics,
    balanced_accuracy,
    greater_is_better,
    group_accuracies,
    long_tail_metrics,
    overall_accuracy,
    per_class_accuracy,
    predicted_classes,
    softmax,
)
from hf_ltsam.metrics.reliability import expected_calibration_error

STATISTICS = ClassStatistics(counts=(300, 101, 100, 20, 19, 2))  # many 0 1, medium 2 3, few 4 5


def a_test_set(seed=0, n=300, classes=range(6)):
    generator = np.random.default_rng(seed)
    labels = generator.choice(list(classes), size=n)
    logits = generator.normal(size=(n, 6))
    logits[np.arange(n), labels] += 1.0
    return logits, labels


@pytest.mark.parametrize("classes", [range(6), (0, 2, 5)], ids=["all classes", "three classes"])
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_accuracies_agree_with_scikit_learn(classes):
    logits, labels = a_test_set(classes=classes)
    predictions = logits.argmax(1)
    assert overall_accuracy(predictions, labels) == pytest.approx(accuracy_score(labels, predictions))
    assert balanced_accuracy(predictions, labels, 6) == pytest.approx(balanced_accuracy_score(labels, predictions))
    present = sorted(classes)
    recalls = recall_score(labels, predictions, labels=present, average=None)
    per_class = per_class_accuracy(predictions, labels, 6)
    np.testing.assert_allclose(per_class[present], recalls)
    assert np.isnan(per_class[[c for c in range(6) if c not in present]]).all()


def test_groups_are_means_over_classes_not_over_samples():
    per_class = [1.0, 0.0, 0.5, 0.7, 0.2, 0.4]
    assert group_accuracies(per_class, STATISTICS) == pytest.approx({"many": 0.5, "medium": 0.6, "few": 0.3})


def test_a_class_without_test_sample_does_not_count_and_an_empty_group_is_absent():
    labels, predictions = [0, 0, 0, 2, 2], [0, 0, 1, 2, 5]
    per_class = per_class_accuracy(predictions, labels, 6)
    assert group_accuracies(per_class, STATISTICS) == pytest.approx({"many": 2 / 3, "medium": 0.5})
    assert balanced_accuracy(predictions, labels, 6) == pytest.approx((2 / 3 + 1 / 2) / 2)
    everything_is_many = ClassStatistics(counts=(500,) * 6)
    assert group_accuracies(np.full(6, 0.25), everything_is_many) == {"many": 0.25}
    assert group_accuracies([0, 0, math.nan, math.nan, 1, 1], STATISTICS) == {"many": 0.0, "few": 1.0}


def test_calibration_by_hand():
    """Two bins, (0, .5] and (.5, 1]: sum |right - confidence| per bin = |1 - (.4 + .5)| and |1 - (.6 + .9 + .7)|."""
    probabilities = [[0.4, 0.3, 0.3], [0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.05, 0.9, 0.05], [0.1, 0.2, 0.7]]
    labels = [0, 1, 1, 1, 0]
    assert expected_calibration_error(probabilities, labels, num_bins=2) == pytest.approx((0.1 + 1.2) / 5)
    assert expected_calibration_error(probabilities, labels, num_bins=1) == pytest.approx(abs(2 - 3.1) / 5)


def test_calibration_as_the_equation_reads():
    """Guo 2017 Eq. 3 bin by bin: sum_b |B_b|/N |acc(B_b) - conf(B_b)|."""
    logits, labels = a_test_set(seed=1)
    probabilities = softmax(2 * logits)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(300) if b / 15 < confidence[i] <= (b + 1) / 15]
        if inside:
            expected += len(inside) / 300 * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    assert expected > 0.05
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)


def test_a_certain_and_right_model_is_calibrated():
    assert expected_calibration_error(np.eye(4), np.arange(4)) == 0
    assert expected_calibration_error(np.eye(4), (np.arange(4) + 1) % 4) == 1


def test_softmax_is_torchs_and_does_not_overflow():
    logits, _ = a_test_set()
    np.testing.assert_allclose(softmax(logits), torch.from_numpy(logits).softmax(1).numpy(), rtol=1e-12)
    assert softmax([[1e4, 0.0]]).tolist() == [[1.0, 0.0]]


def test_all_in_one():
    logits, labels = a_test_set()
    predictions = logits.argmax(1)
    precisions, recalls, f1, _ = precision_recall_fscore_support(labels, predictions, zero_division=0)
    assert long_tail_metrics(logits, labels, STATISTICS) == pytest.approx(
        {
            "overall": accuracy_score(labels, predictions),
            "balanced": recalls.mean(),
            "worst": recalls.min(),
            "many": recalls[:2].mean(),
            "medium": recalls[2:4].mean(),
            "few": recalls[4:].mean(),
            "macro_precision": precisions.mean(),
            "macro_f1": f1.mean(),
            "macro_auprc": average_precision_score(np.eye(6)[labels], softmax(logits), average="macro"),
            "ece": expected_calibration_error(torch.from_numpy(logits).softmax(1), labels),
        }
    )


@pytest.mark.parametrize("classes", [range(12), (0, 3, 7, 11)], ids=["all classes", "four classes"])
def test_numbers_of_every_class_agree_with_scikit_learn(classes):
    """One class is never predicted: its precision and F1 are 0."""
    C, generator = 12, np.random.default_rng(1)
    labels, logits = generator.choice(list(classes), 200), generator.normal(size=(200, C))
    logits[np.arange(200), labels] += 1
    logits[:, 7] -= 9
    logits[50:100] = logits[0]  # equal probabilities
    tested, predictions, probabilities = np.unique(labels), logits.argmax(1), softmax(logits)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, labels=tested, zero_division=0)
    auprc = [average_precision_score(labels == c, probabilities[:, c]) for c in tested]
    metrics = LongTailMetrics(ClassStatistics(range(1, C + 1)), per_class=True)
    for batches in (1, 9):
        for part in np.array_split(np.arange(200), batches):
            found = metrics(EvalPrediction(logits[part], labels[part]), compute_result=part[-1] == 199)
        for name, expected in {"recall": recall, "precision": precision, "f1": f1, "auprc": auprc}.items():
            np.testing.assert_allclose(np.array(found[f"{name}_per_class"])[tested], expected, rtol=1e-12)
            assert np.isnan(np.delete(found[f"{name}_per_class"], tested)).all()
            macro = {"recall": "balanced"}.get(name, f"macro_{name}")
            assert found[macro] == pytest.approx(np.mean(expected))
        assert found["worst"] == recall.min() == 0
        assert found["top5"] == top_k_accuracy_score(labels, probabilities, k=5, labels=range(C))
        assert (np.array(found["confusion"]) == confusion_matrix(labels, predictions, labels=range(C))).all()


def test_the_fifth_place_of_equal_logits_is_that_of_the_first_class():
    """As argmax: of 12 equal logits the classes 0 to 4 are the leading five; with a NaN none is."""
    metrics = LongTailMetrics(ClassStatistics([9] * 12))
    assert metrics(EvalPrediction(np.zeros((12, 12)), np.arange(12)))["top5"] == 5 / 12
    assert metrics(EvalPrediction(np.zeros((12, 12)), np.full(12, 4)))["top5"] == 1
    assert metrics(EvalPrediction(np.zeros((12, 12)), np.full(12, 5)))["top5"] == 0
    assert metrics(EvalPrediction(np.full((12, 12), np.nan), np.arange(12)))["top5"] == 0


@pytest.mark.parametrize(
    "convert",
    [
        np.float32,
        lambda x: x.tolist(),
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
    ],
)
def test_arrays_tensors_and_lists(convert):
    logits, labels = a_test_set()
    expected = long_tail_metrics(logits, labels, STATISTICS)
    assert long_tail_metrics(convert(logits), labels, STATISTICS) == pytest.approx(expected, abs=1e-6)
    assert long_tail_metrics(logits, torch.from_numpy(labels), STATISTICS) == expected


def test_bfloat16_logits():
    logits, labels = a_test_set()
    half = torch.from_numpy(logits).bfloat16()
    assert long_tail_metrics(half, labels, STATISTICS) == long_tail_metrics(half.double(), labels, STATISTICS)
    assert expected_calibration_error(half.softmax(1), labels) == pytest.approx(
        expected_calibration_error(softmax(half), labels), abs=0.02
    )


def test_a_diverged_model_is_not_credited_with_class_0():
    metrics = long_tail_metrics(np.full((4, 6), np.nan), [0, 0, 2, 4], STATISTICS)
    assert math.isnan(metrics.pop("ece")) and math.isnan(metrics.pop("macro_auprc")) and set(metrics.values()) == {0.0}
    assert predicted_classes([[math.nan, 1.0], [0.0, 1.0]]).tolist() == [-1, 1]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, np.zeros((300, 7))), lambda x: [x]])
def test_as_compute_metrics_of_a_trainer(wrap):
    logits, labels = a_test_set()
    prediction = EvalPrediction(predictions=wrap(logits), label_ids=labels)
    expected = long_tail_metrics(logits, labels, STATISTICS)
    assert LongTailMetrics(STATISTICS)(prediction) == {"accuracy": expected["overall"], **expected}


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_in_batches(rows, monkeypatch):
    """As `eval_do_concat_batches=False` gives them, as `batch_eval_metrics` does, and as memory asks for."""
    logits, labels = a_test_set()
    whole = LongTailMetrics(STATISTICS)(EvalPrediction(predictions=logits, label_ids=labels))
    pieces = [slice(i, i + rows) for i in range(0, len(labels), rows)]
    batches = [(logits[p], np.zeros((1, 7))) for p in pieces], [labels[p] for p in pieces]
    assert LongTailMetrics(STATISTICS)(EvalPrediction(*batches)) == whole
    metrics, seen = LongTailMetrics(STATISTICS), []
    for p in pieces:
        of_batch = EvalPrediction(torch.tensor(logits[p]), torch.tensor(labels[p]))
        seen.append(metrics(of_batch, compute_result=p is pieces[-1]))
    assert seen == [{}] * (len(pieces) - 1) + [whole]
    other = EvalPrediction(logits[:100], labels[:100])  # of which nothing is left of the first evaluation
    assert metrics(other, compute_result=True) == LongTailMetrics(STATISTICS)(other) != whole
    monkeypatch.setattr("hf_ltsam.metrics.decisions.VALUES", rows * logits.shape[1])
    assert long_tail_metrics(logits, labels, STATISTICS) == {k: v for k, v in whole.items() if k != "accuracy"}


def test_of_predicted_classes():
    logits, labels = a_test_set()
    expected = long_tail_metrics(logits, labels, STATISTICS)
    del expected["ece"], expected["macro_auprc"]
    classes = EvalPrediction(predictions=predicted_classes(logits), label_ids=labels)
    assert LongTailMetrics(STATISTICS)(classes) == {"accuracy": expected["overall"], **expected}


def test_memory_does_not_grow_with_the_logits():
    """80 MB of logits, and less than them beside them; it was nine times as much."""
    logits, labels = np.zeros((200_000, 100), dtype=np.float32), np.arange(200_000) % 100
    tracemalloc.start()
    long_tail_metrics(logits, labels, ClassStatistics([30] * 100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.9 * logits.nbytes


@pytest.mark.parametrize("prefix", ["", "eval_", "eval_sketch_", "test_"])
@pytest.mark.parametrize(
    ("name", "larger"),
    [("overall", True), ("accuracy", True), ("balanced", True), ("many", True), ("few", True), ("ece", False), ("loss", False),
     ("nll", False), ("brier", False), ("mean_error", False), ("mce", False), ("my_loss", False), ("piece", True)],
)  # fmt: skip
def test_which_value_of_a_metric_is_better(prefix, name, larger):
    assert greater_is_better(prefix + name) is larger


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: per_class_accuracy([0, 1], [0], 2), r"\(2,\) and \(1,\)"),
        (lambda: per_class_accuracy([], [], 2), r"not empty"),
        (lambda: per_class_accuracy(np.eye(2), [0, 1], 2), r"predicted_classes"),
        (lambda: per_class_accuracy([0, 1], [0, 2], 2), r"Label 2 is outside the class range 0 to 1"),
        (lambda: per_class_accuracy([0, 1], [0, -100], 2), r"Label -100"),
        (lambda: per_class_accuracy([0, 1], [0.0, 1.0], 2), r"integers"),
        (lambda: group_accuracies([0.5, 0.5], STATISTICS), r"6 classes.*\(2,\)"),
        (lambda: expected_calibration_error([[2.0, -1.0]], [0]), r"softmax"),
        (lambda: expected_calibration_error([[3.0, 1.0]], [0]), r"softmax"),
        (lambda: expected_calibration_error([[0.5, 0.5]], [0], num_bins=0), r"num_bins=.*0"),
        (lambda: expected_calibration_error([[0.5, 0.5]], [0, 1]), r"\(1, 2\) and \(2,\)"),
        (lambda: long_tail_metrics(np.zeros((1, 7)), [0], STATISTICS), r"7 logits.*6 classes"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
