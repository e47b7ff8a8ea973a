"""predictions.json: compact, exact, and refused when damaged."""

import json

import numpy as np
import pytest

from hf_ltsam.metrics import confidence_bins, expected_calibration_error, softmax
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.predictions import predictions_of

NAMES = ["cat", "dog", "eel"]
LOGITS = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, np.nan, 0.0], [0.5, 0.5, 0.0]])
LABELS = np.array([0, 1, 2, 1])


def test_written_and_read_again(tmp_path):
    RunFolder(tmp_path).write_predictions(predictions_of(LOGITS, LABELS, NAMES))
    told = RunFolder(tmp_path).predictions
    assert told.class_names == ("cat", "dog", "eel") and told.labels.tolist() == [0, 1, 2, 1]
    assert told.predicted.tolist() == [0, 2, -1, 0] and told.right.tolist() == [True, False, False, False]
    expected = [
        np.exp(2) / (np.exp(2) + 2),
        np.exp(3) / (np.exp(3) + np.e + 1),
        np.nan,
        np.exp(0.5) / (2 * np.exp(0.5) + 1),
    ]
    np.testing.assert_allclose(told.confidence, expected, atol=5e-5)


def test_the_file_is_small(tmp_path):
    rng = np.random.default_rng(0)
    RunFolder(tmp_path).write_predictions(
        predictions_of(rng.normal(size=(2000, 1000)), rng.integers(0, 1000, 2000), [""] * 1000)
    )
    assert (tmp_path / "predictions.json").stat().st_size < 2000 * 20 + 1000 * 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(schema_version=7), "schema_version is 7"),
        (lambda v: v["test"].pop("confidence"), "confidence"),
        (lambda v: v["test"]["labels"].pop(), "lengths"),
        (lambda v: v["test"]["predicted"].__setitem__(0, 3), "predicted"),
        (lambda v: v["test"]["labels"].__setitem__(0, -1), "labels"),
        (lambda v: v.pop("test"), "test"),
    ],
)
def test_damage_is_named(tmp_path, change, words):
    path = RunFolder(tmp_path).write_predictions(predictions_of(LOGITS, LABELS, NAMES))
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=words) as error:
        assert RunFolder(tmp_path).predictions
    assert str(path) in str(error.value)


def test_half_a_file_and_none(tmp_path):
    (tmp_path / "predictions.json").write_text('{"schema_version": 1, "cla')
    with pytest.raises(ValueError, match=r"predictions\.json is damaged"):
        assert RunFolder(tmp_path).predictions
    assert RunFolder(tmp_path / "elsewhere").predictions is None


def test_the_bins_of_a_reliability_diagram():
    bins = confidence_bins([0.1, 0.25, 0.5, 0.6, 1.0], [True, False, True, True, True], num_bins=4)
    assert bins.samples.tolist() == [2, 1, 1, 1]  # an edge belongs to the bin below it
    np.testing.assert_allclose(bins.confidence, [0.35, 0.5, 0.6, 1.0])
    assert bins.right.tolist() == [1, 1, 1, 1]


def test_the_error_of_the_bins_is_the_calibration_error():
    rng = np.random.default_rng(1)
    probabilities, labels = softmax(2 * rng.normal(size=(300, 3))), rng.integers(0, 3, 300)
    bins = confidence_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
    by_hand = sum(abs(r - c) for r, c in zip(bins.right, bins.confidence)) / 300
    assert expected_calibration_error(probabilities, labels) == pytest.approx(by_hand)
