"""`ltsam calibrate`: a run without a reserve, calibrated by samples that somebody names; never by those it has seen."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from cli.picture_folders import draw_images
from datasets import Dataset
from text_models import save_encoder, texts, write_lines

import hf_ltsam
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.card import main as card
from hf_ltsam.cli.predict.calibrate import calibrate
from hf_ltsam.cli.report import main as report
from hf_ltsam.runs.folder import RunFolder

QUICK = "--use_cpu true --report_to none --disable_tqdm true --save_strategy no --few_below 4 --learning_rate"


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    """A run without a reserve, its data, and others."""
    place = tmp_path_factory.mktemp("images")
    for split, counts, seed in (("train", (12, 6, 3), 0), ("validation", (9, 12, 10), 2), ("test", (4, 4, 4), 1)):
        draw_images(place / "data" / split, counts, 12, seed)
    words = f"--model cifar_resnet --depth 8 --max_steps 6 {QUICK} 0.05".split()
    cli.main(["train", "--dataset", str(place / "data"), "--output_dir", str(place / "run"), *words])
    return place


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    torch.manual_seed(0)
    save_encoder(place / "bert")
    rows = {"train": ((12, 6, 3), 0), "validation": ((9, 12, 10), 2), "test": ((4, 4, 4), 1)}
    write_lines(place / "data", **{split: texts(counts, seed) for split, (counts, seed) in rows.items()})
    words = f"--model {place / 'bert'} --optim adamw_torch --max_steps 8 {QUICK} 0.01".split()
    cli.main(["train", "--dataset", str(place / "data"), "--output_dir", str(place / "run"), *words])
    return place


@pytest.fixture(params=["images", "texts"])
def case(request, tmp_path):
    """A copy of the run, its data, and the samples and labels of a split as `predict` takes them."""
    place = request.getfixturevalue(f"of_{request.param}")
    run, data = shutil.copytree(place / "run", tmp_path / "run"), place / "data"

    def of(split):
        if request.param == "images":
            files = sorted((data / split).rglob("*.png"))
            return files, [file.parent.name for file in files]
        rows = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
        return [data / f"{split}.jsonl"], [row["label"] for row in rows]

    return run, data, of, request.param


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def test_numbers_and_the_same_ones_everywhere(case, capsys):
    """Against what `predict` said before: p = softmax((z - tau log pi) / T), with log p in the place of z."""
    run, data, of, kind = case
    test, true = of("test")
    names = RunFolder(run).predictions.class_names
    before = hf_ltsam.predict(run, test, use_cpu=True)
    cli.main(["calibrate", str(run), str(data), "--use_cpu"])
    said = " ".join(capsys.readouterr().out.split())
    folder = RunFolder(run)
    chosen, record = folder.calibration, folder.finished_record()
    assert 0 < chosen.samples <= 31 and chosen.counts == (12, 6, 3) and chosen.source == "data"
    assert f"Chosen on {chosen.samples} samples of data; the test in %" in said
    after = hf_ltsam.predict(run, test, use_cpu=True)
    z = np.log([[dict(zip(row.classes, row.probabilities))[name] for name in names] for row in before])
    expected = softmax((z - chosen.balanced.tau * np.log(np.array(chosen.counts) / 21)) / chosen.balanced.temperature)
    p = [[dict(zip(row.classes, row.probabilities))[name] for name in names] for row in after]
    np.testing.assert_allclose(p, expected, atol=1e-4)
    right = np.mean([row.classes[0] == name for row, name in zip(after, true)])
    assert record.results["balanced_prior"]["overall"] == pytest.approx(right)
    covered = np.mean([name in row.prediction_set for row, name in zip(after, true)])
    assert record.results["conformal_sets"]["coverage"] == pytest.approx(covered)
    assert record.results["test"]["overall"] == np.mean([row.classes[0] == name for row, name in zip(before, true)])
    card([str(run)])
    shown = capsys.readouterr().out
    assert f"Chosen on held-out {kind} (data) (`calibration.json`); the test {kind} with it" in shown
    report([str(run), "--output", str(run / "report")])
    assert f"held-out {kind}" in (run / "report" / "report.html").read_text()


def test_what_the_run_has_seen_is_left_out(case, tmp_path, capsys):
    """Its test set is refused by content: copied, renamed, in another form, or as the only split that is asked for."""
    run, data, of, kind = case
    names = sorted(set(of("test")[1]))
    if kind == "images":
        copy = shutil.copytree(data / "test", tmp_path / "others")
        for file in copy.rglob("*.png"):
            file.rename(file.with_name(f"x{file.name}"))
        rows = [{"image": {"bytes": f.read_bytes(), "path": None}, "label": name} for f, name in zip(*of("test"))]
        new = {"image": {"bytes": of("validation")[0][0].read_bytes(), "path": None}, "label": names[0]}
    else:
        rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
        copy = write_lines(tmp_path / "others", samples=rows)
        new = {"text": "gold of the new kind", "label": names[0]}
    table = tmp_path / "table.parquet"
    Dataset.from_list(rows).to_parquet(table)
    for words in ([str(data), "--split", "test"], [str(copy)], [str(table)], [str(data), "--split", "train"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["calibrate", str(run), *words, "--use_cpu"])
        said = capsys.readouterr().err
        assert ended.value.code == 2 and "are the run's own (" in said and "--split names one of several" in said
    assert RunFolder(run).calibration is None and "balanced_prior" not in RunFolder(run).finished_record().results
    Dataset.from_list([*rows, new]).to_parquet(table)
    assert calibrate(run, str(table), use_cpu=True).samples == 1
    assert "Left out of" in (said := capsys.readouterr().out) and "12 of the run's test samples" in said


def test_a_run_that_was_tested_on_something_else_is_refused(case, capsys):
    """As one made in Python with the validation split as eval_dataset: the samples would be those of its test."""
    run, data, *_ = case
    folder = RunFolder(run)
    predictions = folder.predictions
    folder.write_predictions(replace(predictions, labels=predictions.labels[::-1].copy()))
    with pytest.raises(SystemExit):
        cli.main(["calibrate", str(run), str(data), "--use_cpu"])
    assert "was tested on other samples than the test split" in capsys.readouterr().err
    assert folder.calibration is None and "balanced_prior" not in folder.finished_record().results


def test_a_run_of_several_labels_is_refused(case, capsys):
    run, data, *_ = case
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    with pytest.raises(SystemExit):
        cli.main(["calibrate", str(run), str(data), "--use_cpu"])
    assert "answers with several labels of a sample" in capsys.readouterr().err and RunFolder(run).calibration is None


def test_of_weights_without_a_test_no_numbers_are_shown(case, capsys):
    run, data, *_ = case
    (run / "metrics.json").unlink()
    cli.main(["calibrate", str(run), str(data), "--use_cpu"])
    said = capsys.readouterr().out
    assert "samples of data.\n" in said and "in %" not in said and RunFolder(run).calibration is not None


REFUSED = {
    ("nowhere",): "error: DATA nowhere does not exist",
    ("./nowhere.csv",): "error: DATA ./nowhere.csv: there is no such folder",
    ("DATA", "--split", "dev"): "has no split dev, only train, validation, test",
    ("DATA", "--label_column", "kind"): "has no column 'kind'",
    ("DATA_c",): "holds corrupted images",
    ("OTHERS",): "no name is in both",
}


def test_a_run_that_is_not_there_is_told_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["calibrate", str(tmp_path / "nowhere"), "nothing"])
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(of_images, tmp_path, capsys, words):
    (tmp_path / "bird").mkdir()
    shutil.copy(of_images / "data" / "validation" / "cat" / "0.png", tmp_path / "bird")
    data = [w.replace("DATA", str(of_images / "data")).replace("OTHERS", str(tmp_path)) for w in words]
    with pytest.raises(SystemExit):
        cli.main(["calibrate", str(of_images / "run"), *data, "--use_cpu"])
    assert REFUSED[words] in capsys.readouterr().err
    assert RunFolder(of_images / "run").calibration is None
