"""Data in the forms that people have: one command trains, and train, evaluate, predict, pipeline and report agree."""

import csv

import numpy as np
import pytest
import torch
from cli.picture_folders import draw_images
from datasets import Dataset
from PIL import Image
from text_models import save_encoder, texts
from transformers import pipeline

import hf_ltsam.models  # noqa: F401  cifar_resnet for the pipeline
from hf_ltsam import predict
from hf_ltsam.cli import main as cli
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.report.by_group import table as group_table
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.reading import read_run

OF_IMAGES = "--model cifar_resnet --depth 8 --loss cross_entropy --learning_rate 0.05 --max_steps 6"
OF_TEXTS = "--optim adamw_torch --learning_rate 0.02 --max_steps 12"
QUICK = "--use_cpu true --save_strategy no --disable_tqdm true --report_to none --few_below 4 --many_above 8"


def folders(place):
    """train/CLASS/*.png and test/CLASS/*.png."""
    for split, counts, seed in (("train", (12, 6, 3), 0), ("test", (4, 4, 4), 1)):
        draw_images(place / "data" / split, counts, 12, seed)
    files = sorted((place / "data" / "test").rglob("*.png"))
    return place / "data", files, files, [file.parent.name for file in files], OF_IMAGES


def paths(place):
    """A CSV of paths with a column of splits."""
    root, files, _, names, options = folders(place)
    every = [file.relative_to(root) for file in sorted(root.rglob("*.png"))]
    with (root / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "animal", "split"), *((f, f.parts[1], f.parts[0]) for f in every)])
    with (root / "new.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path",), *((file.relative_to(root),) for file in files)])
    return root / "labels.csv", [root / "new.csv"], files, names, options


def parquet(place):
    """The Hub's layout: encoded images, labels that are words."""
    root, files, _, names, options = folders(place)
    (place / "hub" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"image": {"bytes": f.read_bytes(), "path": None}, "animal": f.parent.name} for f in sorted((root / split).rglob("*.png"))]  # fmt: skip
        Dataset.from_list(rows).to_parquet(place / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    return place / "hub", [place / "hub" / "data" / "test-00000-of-00001.parquet"], files, names, options


def lines(place):
    """Texts in CSV files, one for each split."""
    torch.manual_seed(0)
    save_encoder(place / "bert")
    (place / "news").mkdir()
    for split, counts, seed in (("train", (12, 6, 3), 0), ("test", (4, 4, 4), 1)):
        rows = texts(counts, seed)
        with (place / "news" / f"{split}.csv").open("w", newline="") as table:
            csv.writer(table).writerows([("id", "review", "topic"), *((k, r["text"], r["label"]) for k, r in enumerate(rows))])  # fmt: skip
    words = f"--model {place / 'bert'} --text_column review --label_column topic {OF_TEXTS}"
    return place / "news", [place / "news" / "test.csv"], [r["text"] for r in rows], [r["label"] for r in rows], words


@pytest.mark.parametrize("form", [folders, paths, parquet, lines], ids=lambda form: form.__name__)
def test_train_evaluate_predict_pipeline_and_report_agree(tmp_path, form):
    data, inputs, samples, true, options = form(tmp_path)
    run = tmp_path / "run"
    label = [] if "--label_column" in options or form is folders else ["--label_column", "animal"]
    cli.main(["train", "--dataset", str(data), "--output_dir", str(run), *label, *options.split(), *QUICK.split()])
    saved = RunFolder(run)
    overall = saved.finished_record().results["test"]["overall"]
    assert overall > 1 / 3  # chance
    predicted = [row.classes[0] for row in predict(run, inputs, use_cpu=True)]
    assert np.mean([p == t for p, t in zip(predicted, true)]) == pytest.approx(overall)
    column = ["--label_column", "topic"] if form is lines else label
    cli.main(["evaluate", "--model", str(run), "--sets", str(data), *column, "--use_cpu"])
    (evaluated,) = saved.evaluation["sets"].values()
    assert evaluated["result"]["overall"] == pytest.approx(overall)
    classify = pipeline("text-classification" if form is lines else "image-classification", model=str(run))
    seen = samples if form is lines else [Image.open(file) for file in samples]
    said = [answer[0]["label"] if isinstance(answer, list) else answer["label"] for answer in classify(seen)]
    assert said == predicted
    (row,) = group_table(configurations([read_run(run)])).rows
    assert row[2] == f"{100 * overall:.1f}"
