"""The handwritten digits that scikit-learn ships, with a long tail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image

from dataset_builders.long_tail import draw, long_tailed
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.data.labels import read_label_column

IMBALANCE_RATIO = 50
SPLIT_SEED = 0
TEST_PER_CLASS = 50  # of about 180; the rest gives 128 training images of digit 0 and 2 of digit 9


def digit_splits() -> Splits:
    """A long-tailed training split and a balanced test split that share no image."""
    digits = load_digits_dataset()
    labels = read_label_column(digits, "label").numpy()
    held_out = np.concatenate(draw(labels, [TEST_PER_CLASS] * 10, SPLIT_SEED))
    rest = digits.select(np.setdiff1d(np.arange(len(labels)), held_out))
    train, test = long_tailed(rest, IMBALANCE_RATIO, seed=SPLIT_SEED), digits.select(held_out)
    names = digits.features["label"].names
    return Splits(train, test, read_label_column(train, "label"), read_label_column(test, "label"), "label", names)


def load_digits_dataset() -> Dataset:
    """All 1,797 images of 8 x 8 pixels in 17 levels of grey, as columns `image` and `label`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)  # (N, 8, 8)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(name) for name in digits.target_names])})
    return Dataset.from_dict({"image": list(pixels), "label": digits.target}, features=features)


def save_parquet(splits: Splits, folder: Path) -> None:
    """Both splits in a folder that `ltsam train --dataset` and `datasets.load_dataset` read."""
    folder.mkdir(parents=True, exist_ok=True)
    splits.train.to_parquet(folder / "train.parquet")
    splits.test.to_parquet(folder / "test.parquet")
