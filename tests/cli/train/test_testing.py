"""The test after the last epoch, with and without views of the test images."""

import numpy as np
import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from PIL import Image
from transformers import AutoImageProcessor

from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.cli.train.train import predict_test
from hf_ltsam.data import preprocessing
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.metrics.decisions import Decisions
from hf_ltsam.models.logits import averaged_logits
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.model import load_run
from hf_ltsam.runs.record import split_results

WORDS = [
    "--use_cpu",
    "true",
    "--learning_rate",
    "0.05",
    "--per_device_train_batch_size",
    "4",
    "--max_steps",
    "4",
    "--save_strategy",
    "no",
    "--report_to",
    "none",
    "--disable_tqdm",
    "true",
]


@pytest.fixture
def pictures(tmp_path):
    draw_images(tmp_path / "images" / "train", (6, 4, 3), 72)
    draw_images(tmp_path / "images" / "test", (3, 3, 4), 80, seed=1)
    return tmp_path / "images"


def by_hand(folder, pictures, name):
    """Logits and labels, from what is saved alone."""
    model = load_run(str(folder)).eval()
    see = Preprocessing.from_image_processor(AutoImageProcessor.from_pretrained(folder))
    files = [(c, path) for c, name in enumerate(CLASSES) for path in (pictures / "test" / name).iterdir()]
    with torch.no_grad():
        logits = [averaged_logits(model, see.views(Image.open(path), name)[None])[0] for _, path in files]
    return torch.stack(logits), torch.tensor([c for c, _ in files])


@pytest.mark.parametrize("name", ["none", "flip", "five_crops"])
def test_the_views_of_each_image_are_averaged(pictures, tmp_path, name):
    words = ["--dataset", str(pictures), "--output_dir", str(tmp_path / "run"), "--image_size", "72", *WORDS]
    train.main([*words, *([] if name == "none" else ["--test_time", name])])
    record = RunFolder(tmp_path / "run").finished_record()
    logits, labels = by_hand(tmp_path / "run", pictures, name)
    run = parse(words)
    expected = split_results(logits.numpy(), labels.numpy(), load_splits(run.data).statistics(run.data, None))
    found = record.results["test"]
    assert found["overall"] == expected["overall"] and found["groups"] == expected["groups"]
    assert found["samples"] == 10
    assert record.data["test_time"] == name


def test_logits_of_views_are_those_of_the_trainer_where_there_is_one_view(pictures, tmp_path, monkeypatch):
    words = ["--dataset", str(pictures), "--output_dir", str(tmp_path / "run"), "--image_size", "72", *WORDS]
    run = parse(words)
    splits = load_splits(run.data)
    trainer = train.build_trainer(run, splits)
    with torch.no_grad():
        trainer.model.classifier.weight.mul_(1e-3)  # otherwise all images are certain
    plain = predict_test(run, splits, trainer)
    flipped = predict_test(parse([*words, "--test_time", "flip"]), splits, trainer)
    monkeypatch.setitem(preprocessing.TEST_TIME, "flip", preprocessing.TEST_TIME["none"])  # one view
    single = predict_test(parse([*words, "--test_time", "flip"]), splits, trainer)
    kept, expected, other = (Decisions.of(output.predictions) for output in (single, plain, flipped))
    np.testing.assert_allclose(kept.confidence, expected.confidence, rtol=1e-5)
    assert (kept.predicted == expected.predicted).all() and (single.label_ids == plain.label_ids).all()
    assert np.abs(other.confidence - expected.confidence).max() > 1e-4


def test_an_unknown_name_is_refused_at_once(pictures, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(
            ["--dataset", str(pictures), "--output_dir", str(tmp_path / "run"), "--test_time", "five_crop", *WORDS]
        )
    assert "five_crops" in capsys.readouterr().err
