"""Cutout, RandAugment and channels-last order, as asked for on the command line."""

import pytest
import torch
from cli.picture_folders import draw_images
from cli.train.test_train_script import refused, words

from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.data import prepare
from hf_ltsam.cli.train.model import ImageFormat
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.data.in_memory.randaugment import RandAugment

SETTINGS = ["--cutout", "4", "--randaugment", "1", "--randaugment_magnitude", "5", "--channels_last", "true"]


def test_they_reach_the_training_images_and_those_alone(images, tmp_path):
    run = parse(words(images, tmp_path / "run", *SETTINGS))
    data = prepare(load_splits(run.data), run.data, ImageFormat(None, None), seed=0, progress=False)
    assert (data.train.cutout, data.train.randaugment) == (4, RandAugment(1, 5))
    assert not data.test.augment and not data.plain_train.augment
    assert data.train.store.pixels.data_ptr() == data.plain_train.store.pixels.data_ptr()  # held once
    assert torch.equal(data.train.images, data.plain_train.images)


def test_a_run_with_all_of_them(images, tmp_path, capsys):
    train.main(words(images, tmp_path / "run", "--max_steps", "2", *SETTINGS))
    assert "randaugment_magnitude: 5" in (tmp_path / "run" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cutout", "-2"], "--cutout must be a side in pixels, or 0 for none, got -2"),
        (["--randaugment", "-1"], "--randaugment -1"),
        (["--randaugment", "2", "--randaugment_magnitude", "31"], "[0, 30], got 31"),
        (["--randaugment_magnitude", "5"], "--randaugment_magnitude 5 without --randaugment"),
    ],
)
def test_bad_values_are_refused_before_anything_is_read(more, message, tmp_path, capsys):
    assert message in refused(capsys, *words(tmp_path / "nowhere", tmp_path / "run", *more))


@pytest.mark.parametrize("more", [["--cutout", "16"], ["--randaugment", "2"]])
def test_large_images_have_neither(more, tmp_path, capsys):
    for split in ("train", "test"):
        draw_images(tmp_path / "large" / split, (2, 2, 2), 80)
    message = refused(capsys, *words(tmp_path / "large", tmp_path / "run", "--image_size", "72", *more))
    assert " ".join(more) in message and "64 pixels" in message
