"""Precision, recall and F1 in the report; thresholds where there are two classes."""

import json

import numpy as np
import pytest
from runs.report.html_page import Page
from runs.report.made_runs import metrics, predictions, statistics, write_run

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.metrics.thresholds import threshold_curve
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.record import calibrated_results, split_results
from hf_ltsam.runs.report.by_class import rarer_class_curve
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report


def a_run(folder, counts, seed=0, n=80):
    """Logits of a model that is right more often than not."""
    numbers, C = np.random.default_rng(seed), len(counts)
    labels = np.arange(n) % C
    logits = numbers.normal(size=(n, C)) + 1.5 * np.eye(C)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = {**predictions([True] * n, labels, [f"c{c}" for c in range(C)])}
    found["test"] |= {"predicted": p.argmax(1).tolist(), "confidence": p.max(1).round(4).tolist()}
    result = split_results(logits, labels, ClassStatistics(counts, many_above=20, few_below=10))
    record = metrics([0.5] * 5, seed, class_statistics=statistics(counts), results={"test": result})
    return write_run(folder, record, predictions=found), result, p, labels


def test_the_page_has_the_numbers_of_every_class_the_rarest_first(tmp_path):
    folder, result, _, _ = a_run(tmp_path / "run", (40, 5, 12))
    page = Page(write_report([read_run(folder)], tmp_path / "report").read_text())
    header, row = page.table("Means over classes")
    assert header == ["configuration", "precision", "recall", "F1", "AUPRC", "worst class"]
    names = ("macro_precision", "balanced", "macro_f1", "macro_auprc", "worst")
    assert row[1:] == [f"{100 * result[name]:.1f}" for name in names]
    header, *rows = page.table("CE + SGD: every class")
    assert header == ["class", "training images", "precision", "recall", "F1", "AUPRC"]
    assert [row[:2] for row in rows] == [["c1", "5"], ["c2", "12"], ["c0", "40"]]
    assert rows[0][2:] == [f"{100 * result[name][1]:.1f}" for name in ("precision", "per_class", "f1", "auprc")]
    assert not (tmp_path / "report" / "thresholds.svg").exists()


def test_the_calibration_stands_beside_the_model_as_trained(tmp_path):
    folder, _, _, labels = a_run(tmp_path / "run", (40, 5, 12))
    statistics_, numbers = ClassStatistics((40, 5, 12), many_above=20, few_below=10), np.random.default_rng(1)
    logits = numbers.normal(size=(80, 3)) + np.eye(3)[labels]
    results = calibrated_results(Calibration.fit(logits, labels, (40, 5, 12)), logits, labels, statistics_)
    record = json.loads((folder / "metrics.json").read_text())
    record["results"] |= results
    (folder / "metrics.json").write_text(json.dumps(record))
    page = Page(write_report([read_run(folder)], tmp_path / "report").read_text())
    header, trained, balanced, training = page.table("As trained, and as its calibration")
    assert header == ["configuration", "overall", "all classes", "many", "medium", "few", "ECE", "tau", "T"]
    assert [row[0] for row in (trained, balanced, training)] == [
        "CE + SGD, as trained", "CE + SGD, classes equally frequent", "CE + SGD, as frequent as in training",
    ]  # fmt: skip
    for row, result in ((balanced, results["balanced_prior"]), (training, results["training_prior"])):
        shown = [100 * result["overall"], 100 * result["balanced"], *(100 * v for v in result["groups"].values())]
        assert row[1:7] == [f"{v:.1f}" for v in (*shown, 100 * result["ece"])]
        assert row[7:] == [f"{result['tau']:.2f}", f"{result['temperature']:.2f}"]
    sets = results["conformal_sets"]
    _, row = page.table("Test images whose conformal set")
    assert row[1:3] == ["90", f"{100 * sets['coverage']:.1f}"] and row[-2:] == [f"{sets['size']:.2f}", "0"]
    text = card(folder)
    assert "### Calibrated" in text and f"{sets['size']:.1f} classes in a set" in text
    assert f"| {results['balanced_prior']['tau']:.2f} | {results['balanced_prior']['temperature']:.2f} |" in text


def card(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    return str(model_card(read_facts(folder, None, None), "me/images"))


def test_a_run_of_an_earlier_release_says_so(tmp_path):
    folder = write_run(tmp_path / "run", metrics((0.5,) * 5))
    page = write_report([read_run(folder)], tmp_path / "report").read_text()
    assert "Not recorded by the release that trained it: CE + SGD" in page


def test_two_classes_have_a_threshold_and_costs(tmp_path):
    folder, _, p, labels = a_run(tmp_path / "run", (90, 5))
    runs = [read_run(folder)]
    curve, expected = rarer_class_curve(configurations(runs)[0]), threshold_curve(p[:, 1].round(4), labels == 1)
    assert curve.best == expected.best
    np.testing.assert_allclose(curve.f1, expected.f1)
    page = Page(write_report(runs, tmp_path / "report").read_text())
    _, half, best = page.table("Thresholds of the rarer class")
    taken = p[:, 1] >= 0.5
    assert half[1:4] == ["0.5", f"{100 * (labels[taken] == 1).mean():.1f}", f"{100 * taken[labels == 1].mean():.1f}"]
    assert float(best[4]) == pytest.approx(100 * expected.f1.max(), abs=0.051)
    assert (tmp_path / "report" / "thresholds.svg").is_file()
