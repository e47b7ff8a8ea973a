"""Training and test set, from the Hub, from Parquet files or from folders of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from torch import Tensor

from dataset_builders.cifar_lt import load_cifar_lt
from dataset_builders.folders import load_image_folder
from dataset_builders.long_tail import check_imbalance_ratio, long_tailed, profile_named
from hf_ltsam import ClassStatistics
from hf_ltsam.data.decode import decode_image, decode_images, encoded_images, unreadable_images
from hf_ltsam.data.in_memory import CUSTOMARY_NORMALISATION, InMemoryImages, normalisation
from hf_ltsam.data.labels import class_label_column_of, read_label_column
from hf_ltsam.data.transforms import image_transform, on_the_fly
from hf_ltsam.registry import nearest
from training_scripts.arguments import DataArguments
from training_scripts.training_model import ImageFormat

SMALL = 64        # pixels: images up to this side are decoded once and kept in memory


@dataclass(frozen=True)
class Splits:
    """The images as stored, before any model is chosen."""

    train: Dataset
    test: Dataset
    train_labels: Tensor        # (N,)
    test_labels: Tensor
    class_names: list[str]
    label_column: str


def load_splits(arguments: DataArguments) -> Splits:
    """Load, draw the long tail, and read the labels; no image is decoded.

    Raises:
        ValueError, FileNotFoundError: what is missing or wrong, and the way out.
    """
    splits = _loader(arguments)(arguments)
    train = _split(splits, arguments.train_split)
    test = _split(splits, arguments.test_split or ("test" if "test" in splits else "validation"))
    column = class_label_column_of(train, arguments.label_column)
    if arguments.imbalance_ratio is not None and arguments.builder != "cifar_lt":
        train = long_tailed(train, arguments.imbalance_ratio, arguments.profile, arguments.split_seed, column)
    test_labels = read_label_column(test, column)
    if int(test_labels.min()) < 0:
        raise ValueError("The test split is not labelled (label -1): name another one by --test_split.")
    names = train.features[column].names
    return Splits(train, test, read_label_column(train, column), test_labels, names, column)


def check_data(arguments: DataArguments) -> None:
    """What can be said about the settings without loading anything.

    Raises:
        ValueError: no data set, or a setting outside its range.
        FileNotFoundError: the data set can only be a path, and is not there.
    """
    source = arguments.dataset
    if source is None:
        raise ValueError("No data set: give --dataset (a name on the Hub, or a folder), or --config with a recipe.")
    if not Path(source).exists() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"--dataset {source}: there is no such folder, and it is no name on the Hub (OWNER/NAME).")
    if Path(source).is_file():
        raise ValueError(f"--dataset {source} is a file: give the folder that it is in.")
    if arguments.builder not in (*LOADERS, "auto"):
        raise ValueError(f"--builder {arguments.builder} does not exist.{nearest(arguments.builder, (*LOADERS, 'auto'))}")
    if arguments.normalisation not in NORMALISATIONS:
        hint = nearest(arguments.normalisation, NORMALISATIONS)
        raise ValueError(f"--normalisation {arguments.normalisation} does not exist.{hint}")
    profile_named(arguments.profile)
    if arguments.imbalance_ratio is not None:
        check_imbalance_ratio(arguments.imbalance_ratio)


def class_statistics(splits: Splits, arguments: DataArguments, tail_threshold: int | None) -> ClassStatistics:
    """Of the training split, with the thresholds of the settings."""
    return ClassStatistics.from_labels(
        splits.train_labels,
        len(splits.class_names),
        tail_threshold=tail_threshold,
        many_above=arguments.many_above,
        few_below=arguments.few_below,
    )


def prepare(splits: Splits, arguments: DataArguments, wanted: ImageFormat, seed: int) -> tuple[Any, Any, ImageFormat]:
    """Training and test set as the Trainer takes them, and the form their images were brought to.

    Small images are decoded once and augmented in memory by crops and flips; larger ones are read when they are needed,
    and augmented by random resized crops and flips.
    """
    size = arguments.image_size or wanted.size or _own_size(splits.train, arguments.image_column)
    if arguments.normalisation != "auto":
        mean, std = CUSTOMARY_NORMALISATION[arguments.normalisation]
        wanted = replace(wanted, mean=mean, std=std)
    make = _in_memory if size <= SMALL else _on_the_fly
    return make(splits, arguments, replace(wanted, size=size), seed)


def _in_memory(splits: Splits, arguments: DataArguments, form: ImageFormat, seed: int) -> tuple[Any, Any, ImageFormat]:
    column, size = arguments.image_column, form.size
    images = decode_images(splits.train, column, size=size)
    if form.mean is None or form.std is None:
        mean, std = normalisation(images)
        form = replace(form, mean=mean, std=std)
    train = InMemoryImages(
        images, splits.train_labels, form.mean, form.std, True, seed, arguments.crop_padding, arguments.flip
    )
    test = InMemoryImages(decode_images(splits.test, column, size=size), splits.test_labels, form.mean, form.std, False)
    return train, test, form


def _on_the_fly(splits: Splits, arguments: DataArguments, form: ImageFormat, seed: int) -> tuple[Any, Any, ImageFormat]:
    if arguments.check_images:
        _refuse_unreadable(splits, arguments.image_column)
    mean, std = form.mean or _IMAGENET_MEAN, form.std or _IMAGENET_STD
    form = replace(form, mean=mean, std=std)
    train, test = (
        on_the_fly(split, arguments.image_column, splits.label_column, image_transform(form.size, mean, std, is_train))
        for split, is_train in ((splits.train, True), (splits.test, False))
    )
    return train, test, form
