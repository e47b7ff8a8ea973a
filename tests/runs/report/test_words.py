"""Report, card and what commands print say images of a run of images, and texts of one of texts; a figure too."""

import json
import re

import numpy as np
import pytest
from matplotlib.text import Text
from runs.report.html_page import Page
from runs.report.made_runs import complete_run, metrics, sharpness, shifted, write, write_run
from runs.report.made_runs import test_result as result_of

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.cli.train.results import print_results
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.card.card import card_files
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.record import calibrated_results
from hf_ltsam.runs.report.configurations import configurations, samples_of_all
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report
from hf_ltsam.runs.sharpness.figures import save_figures, subset_label
from hf_ltsam.runs.shift.report import markdown

KINDS = {"text": ("texts", "image"), "image": ("images", "text")}
LABELS = np.repeat(range(5), 10)
CONFIGS = {
    "text": {"architectures": ["BertForSequenceClassification"], "model_type": "bert"},
    "image": {"architectures": ["ViTForImageClassification"], "model_type": "vit"},
}


def results():
    """With what a calibration makes of them."""
    z = np.random.default_rng(0).normal(size=(50, 5)) + 2 * np.eye(5)[LABELS]
    statistics = ClassStatistics((40, 30, 12, 5, 2), many_above=20, few_below=10)
    calibration = Calibration.fit(z, LABELS, statistics.counts)
    return {"test": result_of((1.0, 0.9, 0.7, 0.3, 0.1)), **calibrated_results(calibration, z, LABELS, statistics)}


def made(folder, task, seed=0, **record):
    """A run that lacks nothing."""
    per_class = (1.0, 0.9, 0.7, 0.3, 0.1)
    right = np.concatenate([np.arange(10) < round(10 * share) for share in per_class])
    data = {"dataset": "mine", "task": task, "training_labels_sha256": "00"}
    calibrated = json.loads(json.dumps(results()))
    complete_run(folder, seed, per_class, right, LABELS, data=data, **{"results": calibrated, **record})
    for name, change in {"sharpness/sharpness.json": {"task": task}, "config.json": CONFIGS[task]}.items():
        file = folder / name
        values = json.loads(file.read_text()) if file.is_file() else {"id2label": {str(c): f"c{c}" for c in range(5)}}
        file.write_text(json.dumps({**values, **change}))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def runs(request, tmp_path_factory):
    """Two configurations of a kind."""
    root = tmp_path_factory.mktemp(request.param)
    first = made(root / "a", request.param)
    second = made(root / "b", request.param, method="focal_sam", args={"rho": 0.1})
    return request.param, [first, second]


def report(runs, monkeypatch, tmp_path):
    """The page, and every word in its figures."""
    return _drawn(monkeypatch, lambda: _page(write_report([read_run(run) for run in runs[1]], tmp_path)))


def _page(file):
    return "\n".join(e["text"] for tag in ("h2", "p", "th", "td", "caption", "figcaption", "li") for e in Page(file.read_text()).all(tag))  # fmt: skip


def _drawn(monkeypatch, make):
    from matplotlib.figure import Figure

    words = []

    def savefig(figure, file, **kwargs):
        """Nothing is rendered, which would take seconds; what was to be written is kept."""
        words.extend(part.get_text() for part in figure.findobj(Text))
        if str(file).endswith(".svg"):
            file.write_text("<svg/>")

    monkeypatch.setattr(Figure, "savefig", savefig)
    return "\n".join([make(), *words])


def card(runs, monkeypatch, tmp_path):
    facts = read_facts(runs[1][0], shifted({"fog": {1: 0.2}}), json.loads((runs[1][0] / "sharpness/sharpness.json").read_text()))  # fmt: skip
    return _drawn(monkeypatch, lambda: str(model_card(facts, "me/mine")) + str(len(card_files(facts, "me/mine"))))


def closing_table(runs, monkeypatch, tmp_path):
    import io
    from contextlib import redirect_stdout

    record = RunFolder(runs[1][0]).finished_record()
    with redirect_stdout(io.StringIO()) as said:
        print_results(record, "FOLDER")
    return said.getvalue()


def evaluation(runs, monkeypatch, tmp_path):
    entry = {**result_of((1.0, 0.9, 0.7, 0.3, 0.1)), "identity": {"test_time": "none"}, "note": ""}
    checkpoint = {"name": "mine", "fingerprint": "0" * 64, "num_classes": 5, "task": runs[0]}
    statistics = json.loads((runs[1][0] / "metrics.json").read_text())["class_statistics"]
    return markdown({"checkpoint": checkpoint, "class_statistics": statistics, "sets": {"new": {"result": entry}}})


def curvature(runs, monkeypatch, tmp_path):
    results = {**sharpness(), "task": runs[0]}
    (tmp_path / "s").mkdir()
    write(tmp_path / "s" / "sharpness.json", results)

    def labels():
        save_figures(tmp_path / "s" / "sharpness.json")
        return "\n".join(subset_label(name, results) for name in results["spectra"])

    return _drawn(monkeypatch, labels)


PAGES = {page.__name__: page for page in (report, card, closing_table, evaluation, curvature)}


@pytest.mark.parametrize("page", PAGES)
def test_the_word_is_that_of_the_run(runs, monkeypatch, tmp_path, page):
    samples, other = KINDS[runs[0]]
    words = PAGES[page](runs, monkeypatch, tmp_path)
    assert samples in words
    wrong = [line for line in words.splitlines() if re.search(rf"\b{other}s?\b", line, re.IGNORECASE)]
    assert not wrong, wrong


def test_a_report_on_both_says_samples(tmp_path):
    runs = [made(tmp_path / "a", "text"), made(tmp_path / "b", "image", method="focal_sam")]
    assert samples_of_all(configurations([read_run(run) for run in runs])) == "samples"


def test_a_record_without_a_task_is_of_images(tmp_path):
    assert read_run(write_run(tmp_path, metrics((1.0,) * 5))).metrics.record.samples == "images"
