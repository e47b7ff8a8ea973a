"""`ltsam mistakes`: the surest mistakes of each class, the rarest first, with the right pictures and files."""

import base64
import csv
import dataclasses
import io
import re

import numpy as np
import pytest
from cli.picture_folders import draw_images
from PIL import Image

from hf_ltsam.cli import main as cli
from hf_ltsam.cli.predict.mistakes import mistakes
from hf_ltsam.runs.folder import RunFolder

WORDS = "--model cifar_resnet --depth 8 --learning_rate 0.05 --max_steps 1 --use_cpu true --report_to none"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose predictions are written by hand: cat is most frequent, owl rarest."""
    root = tmp_path_factory.mktemp("mistakes")
    draw_images(root / "images" / "train", (9, 6, 3), 12)
    draw_images(root / "images" / "test", (4, 4, 4), 12, seed=1)
    words = ["--dataset", str(root / "images"), "--output_dir", str(root / "run"), *WORDS.split()]
    cli.main(["train", *words, "--save_strategy", "no", "--disable_tqdm", "true"])
    folder = RunFolder(root / "run")
    predicted = np.array([0, 0, 1, 2, 1, 1, 1, 1, 0, 2, 1, 0])
    confidence = np.array([0.9, 0.9, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 0.5, 0.9, 0.7, 0.99])
    folder.write_predictions(dataclasses.replace(folder.predictions, predicted=predicted, confidence=confidence))
    return root


def test_the_surest_of_every_class_the_rarest_first(run, capsys):
    cli.main(["mistakes", str(run / "run"), "--per-class", "2"])
    said = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO((run / "run" / "mistakes" / "mistakes.csv").read_text())))
    short = [(*row["file"].split("/")[-2:], row["taken_for"], row["confidence"]) for row in rows]
    assert short == [
        ("owl", "3.png", "cat", "0.9900"),
        ("owl", "2.png", "dog", "0.7000"),
        ("cat", "3.png", "owl", "0.8000"),
        ("cat", "2.png", "dog", "0.6000"),
    ]
    assert "owl taken for cat, 99.0 %" in said and "4 mistakes" in said
    page = (run / "run" / "mistakes" / "mistakes.html").read_text()
    assert re.findall(r"<h2>(\w+) \((\d+) training samples\): (\d) of 4 wrong", page) == [
        ("owl", "3", "3"), ("dog", "6", "0"), ("cat", "9", "2"),
    ]  # fmt: skip
    pictures = re.findall(r"base64,([^\"]+)", page)
    for row, picture in zip(rows, pictures, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))), dtype=float)
        np.testing.assert_allclose(shown.mean((0, 1)), np.asarray(Image.open(row["file"])).mean((0, 1)), atol=6)


def test_what_is_refused(run):
    folder = RunFolder(run / "run")
    before = folder.predictions
    folder.write_predictions(dataclasses.replace(before, labels=before.labels[::-1]))
    with pytest.raises(ValueError, match="test split has changed"):
        mistakes(run / "run")
    (run / "run" / "predictions.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no predictions\.json"):
        mistakes(run / "run")
    folder.write_predictions(before)
    with pytest.raises(ValueError, match="per_class"):
        mistakes(run / "run", per_class=0)
