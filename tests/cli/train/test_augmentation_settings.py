"""Augmentation and channels-last order, as asked for on the command line, at every size of images."""

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
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.folder import RunFolder

AUGMENTED = ["--cutout", "4", "--randaugment", "1", "--randaugment_magnitude", "5", "--flip", "false"]
AUGMENTED += ["--color_jitter", "0.3", "--random_erasing", "0.4"]
MIXED = ["--mixup_alpha", "0.4", "--cutmix_alpha", "1.0"]
SETTINGS = [*AUGMENTED, "--channels_last", "true"]


def test_they_reach_the_training_images_and_those_alone(images, tmp_path):
    run = parse(words(images, tmp_path / "run", *SETTINGS))
    data = prepare(load_splits(run.data), run.data, ImageFormat(None, None), seed=0, progress=False)
    assert (data.train.cutout, data.train.randaugment, data.train.flip) == (4, RandAugment(1, 5), False)
    assert (data.train.color_jitter, data.train.random_erasing) == (0.3, 0.4)
    assert not data.test.augment and not data.plain_train.augment
    assert data.train.store.pixels.data_ptr() == data.plain_train.store.pixels.data_ptr()  # held once
    assert torch.equal(data.train.images, data.plain_train.images)


def test_a_run_with_all_of_them(images, tmp_path, capsys):
    train.main(words(images, tmp_path / "run", "--max_steps", "2", *SETTINGS, *MIXED))
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert all(line in recipe for line in ("randaugment_magnitude: 5", "mixup_alpha: 0.4", "random_erasing: 0.4"))
    record = RunFolder(tmp_path / "run").record
    assert record.mixing == {"mixup_alpha": 0.4, "cutmix_alpha": 1.0} and record.data["color_jitter"] == 0.3
    card = str(model_card(read_facts(tmp_path / "run"), "me/run"))
    settings = "`flip`: false, `color_jitter`: 0.3, `cutout`: 4, `randaugment`: 1, `random_erasing`: 0.4, "
    assert settings + "`randaugment_magnitude`: 5, `mixup_alpha`: 0.4, `cutmix_alpha`: 1.0" in card


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cutout", "-2"], "--cutout must be a whole number of at least 0, got -2"),
        (["--crop_padding", "-1"], "--crop_padding must be a whole number of at least 0, got -1"),
        (
            ["--cutout", "8", "--image_size", "8"],
            "--cutout must be at least 0 and less than the 8 pixels of an image's",
        ),
        (["--crop_padding", "9", "--image_size", "8"], "--crop_padding must be at least 0 and less than the 8 pixels"),
        (["--color_jitter", "1.5"], "--color_jitter must be in [0, 1], got 1.5"),
        (["--random_erasing", "-0.5"], "--random_erasing must be in [0, 1], got -0.5"),
        (["--mixup_alpha", "-1"], "--mixup_alpha must be non-negative and finite, got -1"),
        (["--cutmix_alpha", "nan"], "--cutmix_alpha must be a finite number, got nan"),
        (["--randaugment", "-1"], "--randaugment -1"),
        (["--loss", "binary_cross_entropy"], "--loss binary_cross_entropy is for samples with several labels"),
        (["--randaugment", "2", "--randaugment_magnitude", "31"], "[0, 30], got 31"),
        (["--randaugment_magnitude", "5"], "--randaugment_magnitude 5 without --randaugment"),
        (["--reweighting_start", "0.8"], "--reweighting_start 0.8 without --reweighting: give it too"),
        (["--reweighting_start", "0.8", "--reweighting", "none"], "nowhere"),  # a recipe's start, put out of use
    ],
)
def test_bad_values_are_refused_before_anything_is_read(more, message, tmp_path, capsys):
    assert message in refused(capsys, *words(tmp_path / "nowhere", tmp_path / "run", *more))


def test_large_images_have_all_of_them(tmp_path):
    """By the transforms of torchvision, in this order; the test images by none."""
    for split in ("train", "test"):
        draw_images(tmp_path / "large" / split, (2, 2, 2), 80)
    run = parse(words(tmp_path / "large", tmp_path / "run", "--image_size", "72", *AUGMENTED))
    data = prepare(load_splits(run.data), run.data, ImageFormat(72, None), seed=0, progress=False)
    transform = data.train.format["format_kwargs"]["transform"].transform
    names = [type(step).__name__ for step in transform.transforms]
    assert names == [
        *(
            "RandomResizedCrop",
            "ColorJitter",
            "RandAugment",
            "ToImage",
            "ToDtype",
            "Normalize",
            "_Cutout",
            "RandomErasing",
        )
    ]
    assert data.train[0]["pixel_values"].shape == (3, 72, 72)
    assert not hasattr(data.test.format["format_kwargs"]["transform"].transform, "transforms")


def test_a_run_on_large_images(tmp_path):
    for split in ("train", "test"):
        draw_images(tmp_path / "large" / split, (4, 3, 2), 80)
    more = ["--image_size", "72", "--max_steps", "1", "--depth", "8", "--per_device_train_batch_size", "4"]
    train.main(words(tmp_path / "large", tmp_path / "run", *more, *AUGMENTED, *MIXED))
    assert RunFolder(tmp_path / "run").record.results["test"]["samples"] == 9


def test_grey_images_stay_small(tmp_path, capsys):
    for split in ("train", "test"):
        draw_images(tmp_path / "large" / split, (2, 2, 2), 80)
    message = refused(capsys, *words(tmp_path / "large", tmp_path / "run", "--image_size", "72", "--num_channels", "1"))
    assert "--num_channels 1" in message and "64 pixels" in message
