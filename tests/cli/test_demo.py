"""The demo, shortened."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
import torch
from runs.report.html_page import Page
from transformers import AutoModelForImageClassification

from dataset_builders.long_tail import exponential_profile
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.demo import command as demo
from hf_ltsam.cli.demo.data import digit_splits, load_digits_dataset
from hf_ltsam.runs.folder import RunFolder


@pytest.fixture(scope="module")
def splits():
    return digit_splits()


def pixels(dataset):
    return [np.asarray(image).tobytes() for image in dataset["image"]]


def test_the_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    ours = load_digits_dataset()
    first = np.asarray(ours[0]["image"])
    assert len(ours) == 1797 and first.shape == (8, 8)
    np.testing.assert_array_equal(np.round(first / 255 * 16), load_digits().images[0])


def test_the_tail_has_ratio_50_and_the_test_is_balanced(splits):
    counts = np.bincount(splits.train_labels.numpy())
    assert tuple(counts) == exponential_profile(128, 10, 50) == (128, 82, 53, 34, 22, 14, 9, 6, 3, 2)
    assert np.bincount(splits.test_labels.numpy()).tolist() == [50] * 10
    assert splits.class_names == [str(digit) for digit in range(10)]


def test_no_image_is_in_both_splits(splits):
    assert not set(pixels(splits.train)) & set(pixels(splits.test))


def test_the_splits_are_the_same_every_time(splits):
    assert pixels(digit_splits().train) == pixels(splits.train)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo of two epochs and two seeds, with a short analysis: its folder and what it printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo") / "runs"
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")  # after two epochs deviations are wide
        patch.setattr(demo, "CURVATURE", dataclasses.replace(demo.CURVATURE, lanczos_steps=8, points=3))
        demo.main(["--output_dir", str(folder), "--seeds", "2", "--epochs", "2"])
    return folder, screen.getvalue()


def row_of(out, title):
    """A line of the table; the progress bars above it carry the same titles."""
    return next(line for line in out.splitlines() if line.startswith(f"{title} ") and "━" not in line)


def test_the_table(finished):
    _, out = finished
    header = next(line for line in out.splitlines() if "overall" in line)
    assert all(name in header for name in ("many", "medium", "few"))
    for title in ("CE + SGD", "LA + SGD", "LA + SAM", "LA + Focal-SAM"):
        row = row_of(out, title)
        assert row.count("±") == 5
    caption = " ".join(out.split())
    assert "many above 40, medium 10 to 40, few below 10." in caption
    assert "Digits: many 0, 1, 2; medium 3, 4, 5; few 6, 7, 8, 9." in caption


def test_a_log_has_a_line_for_every_run(finished):
    """The output is captured, so no terminal: a bar shows nothing until its end."""
    lines = [line for line in finished[1].splitlines() if "trained after" in line]
    assert [line.partition(":")[0] for line in lines] == [
        f"{t}, seed {s}" for t in demo.CONFIGURATIONS for s in range(2)
    ]
    assert finished[1].count("curvature of a head class and a tail class\n") == 1


def test_the_table_says_what_was_measured(finished):
    folder, out = finished
    overall = [
        100 * RunFolder(folder / "la_sam" / f"seed{seed}").finished_record().results["test"]["overall"]
        for seed in (0, 1)
    ]
    row = row_of(out, "LA + SAM")
    assert f"{np.mean(overall):.1f} ± {np.std(overall, ddof=1):.1f}" in row


def test_the_errors_under_corruption_are_those_of_ltsam_evaluate(finished, tmp_path):
    folder, out = finished
    tables = json.loads((folder / "digits_c.json").read_text())
    assert list(tables) == ["CE + SGD", "LA + SGD", "LA + SAM", "LA + Focal-SAM"] and len(tables["LA + SAM"]) == 2
    errors = [100 * np.mean([row["3"] for row in table.values()]) for table in tables["LA + SAM"]]
    row = row_of(out, "LA + SAM")
    assert f"{np.mean(errors):.1f} ± {np.std(errors, ddof=1):.1f}" in row
    assert "under 15 corruptions at severity 3 of 5" in " ".join(out.split()) and "lower is better" in out
    run, some = folder / "la_sam" / "seed1", ["--severities", "3", "--corruptions", "contrast", "gaussian_noise", "fog"]
    cli.main(
        [
            "evaluate",
            "--model",
            str(run),
            "--sets",
            "digits",
            "digits_c",
            *some,
            "--output_dir",
            str(tmp_path),
            "--use_cpu",
        ]
    )
    sets = json.loads((tmp_path / "ood_results.json").read_text())["sets"]
    assert {c: row["3"]["overall"] for c, row in sets["digits_c"]["cells"].items()} == pytest.approx(
        {c: 1 - tables["LA + SAM"][1][c]["3"] for c in ("contrast", "gaussian_noise", "fog")}
    )
    tested, again = RunFolder(run).finished_record().results["test"], sets["digits"]["result"]
    assert again["overall"] == tested["overall"] and again["groups"] == tested["groups"]


def test_a_record_for_every_run(finished):
    folder, _ = finished
    records = [RunFolder(path.parent).finished_record() for path in sorted(folder.glob("*/seed*/metrics.json"))]
    assert [(r.loss["name"], r.method["name"], r.seed) for r in records] == [
        ("cross_entropy", "sgd", 0),
        ("cross_entropy", "sgd", 1),
        ("logit_adjustment", "focal_sam", 0),
        ("logit_adjustment", "focal_sam", 1),
        ("logit_adjustment", "sam", 0),
        ("logit_adjustment", "sam", 1),
        ("logit_adjustment", "sgd", 0),
        ("logit_adjustment", "sgd", 1),
    ]
    assert all(r.results["test"]["samples"] == 500 for r in records)


def test_the_checkpoint_gives_the_accuracy_that_was_reported(finished, splits):
    folder = finished[0] / "la_focal_sam" / "seed0"
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    preprocessing = json.loads((folder / "preprocessor_config.json").read_text())
    images = np.stack([np.asarray(image) for image in splits.test["image"]]) / 255  # (N, 8, 8)
    images = (images - preprocessing["image_mean"][0]) / preprocessing["image_std"][0]
    with torch.no_grad():
        predicted = model(torch.tensor(images, dtype=torch.float32).unsqueeze(1)).logits.argmax(1)
    accuracy = (predicted == splits.test_labels).double().mean()
    assert accuracy == pytest.approx(RunFolder(folder).finished_record().results["test"]["overall"])


def test_the_report_lacks_nothing(finished):
    folder, out = finished
    page = Page((folder / "report" / "report.html").read_text())
    assert str(folder / "report" / "report.html") in "".join(out.split())
    assert not [e for e in page.elements if e.get("class") in ("missing", "damaged")]
    assert [row[:2] for row in page.table("Test accuracy and expected")[1:]] == [
        ["CE + SGD", "0, 1"],
        ["LA + SGD", "0, 1"],
        ["LA + SAM", "0, 1"],
        ["LA + Focal-SAM", "0, 1"],
    ]
    figures = 14
    assert len(page.all("svg")) == figures == len(list((folder / "report").glob("*.png")))


def test_the_report_says_what_was_measured(finished):
    folder, out = finished
    page = Page((folder / "report" / "report.html").read_text())
    overall = page.table("Test accuracy and expected")[3][2]
    assert overall in row_of(out, "LA + SAM")
    assert page.table("digits_c: means over all")[3][3] in row_of(out, "LA + SAM")
    checkpoints = page.table("Extreme eigenvalues")[1:]
    assert len({row[0] for row in checkpoints}) == 8 and len({row[1] for row in checkpoints}) >= 3
    assert {row[0] for row in page.table("Eigenvalues and trace")[1:]} >= {"CE + SGD, class 0 (128 images, 16 taken)"}


def test_the_corruptions_need_not_be_evaluated_again(finished, monkeypatch, capsys):
    run = finished[0] / "la_sam" / "seed0"
    before = (run / "evaluation" / "ood_results.json").read_text()
    monkeypatch.setattr("hf_ltsam.cli.evaluate.evaluation.predict_logits", None)  # it would be called
    cli.main(["evaluate", "--model", str(run), "--sets", "digits_c", "--severities", "3", "--use_cpu"])
    assert (run / "evaluation" / "ood_results.json").read_text() == before
    capsys.readouterr()


def test_a_second_demo_leaves_nothing_of_the_first(tmp_path):
    stale = [tmp_path / "run" / name for name in ("sharpness", "evaluation", "checkpoint-7")]
    for folder in stale:
        folder.mkdir(parents=True)
    (tmp_path / "run" / "mine.txt").touch()
    demo.clear(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_the_next_commands_work(finished, capsys, tmp_path):
    lines = finished[1].partition("To try next:")[2].splitlines()
    methods, train, load = (shlex.split(line) for line in lines if line.strip())
    assert methods[0].endswith("ltsam") and train[0].endswith("ltsam") and "python" in load[0]
    cli.main(methods[1:])
    cli.main([*train[1:], "--max_steps", "2", "--output_dir", str(tmp_path / "next")])
    exec(load[2])  # what stands behind python -c
    out = capsys.readouterr().out
    assert "Focal-SAM" in out and "imbsam with logit_adjustment" in out and "BasicBlock" in out


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--epochs", "-1"], ["--sees", "1"]])
def test_bad_options(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", *words])
    assert words[0] in capsys.readouterr().err


def test_an_output_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        demo.main(["--output_dir", str(tmp_path / "file")])
    assert "cannot be written" in capsys.readouterr().err
