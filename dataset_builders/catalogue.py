"""Every published set by one name: `load_long_tailed`, `load_shifted`, `long_tail_statistics`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, IterableDatasetDict

from dataset_builders.long_tail import check_imbalance_ratio, class_counts, draw, fingerprint
from dataset_builders.sets.cifar_lt import CIFAR10_NAMES, CIFAR100_NAMES, load_cifar_lt
from dataset_builders.sets.facts import class_table
from dataset_builders.sets.imagenet_lt import ImageNetLT
from dataset_builders.sets.imagenet_shifts import (
    ARCHIVE_OF,
    SEVERITIES,
    VARIANTS,
    ImageNetC,
    ImageNetSketch,
    ImageNetV2,
)
from dataset_builders.sets.inaturalist import INaturalist2018
from dataset_builders.sets.places_lt import PlacesLT
from dataset_builders.sources.listed_images import ListedImages
from hf_ltsam import ClassStatistics
from hf_ltsam.data.labels import class_label_column_of, label_fingerprint
from hf_ltsam.hyperparameters import nearest


@dataclass(frozen=True)
class CifarFacts:
    """What CIFAR's training split is like: C classes of `per_class` images.

    Args:
        hub: where the original lies.
        many_above, few_below: of the reporting groups.
    """

    hub: str
    names: tuple[str, ...]
    per_class: int
    many_above: int
    few_below: int


CIFAR = {
    "cifar10_lt": CifarFacts("uoft-cs/cifar10", CIFAR10_NAMES, 5000, many_above=1000, few_below=200),
    "cifar100_lt": CifarFacts("uoft-cs/cifar100", CIFAR100_NAMES, 500, many_above=100, few_below=20),
}
LISTED: dict[str, type[ListedImages]] = {
    "imagenet_lt": ImageNetLT,
    "inaturalist2018": INaturalist2018,
    "places_lt": PlacesLT,
}
SHIFTED = ("imagenet_sketch", "imagenetv2", "imagenet_c")
LONG_TAILED = (*CIFAR, *LISTED)


def load_long_tailed(
    name: str,
    data_dir: str | Path | None = None,
    streaming: bool = False,
    *,
    imbalance_ratio: float = 100,
    profile: str = "exponential",
    seed: int = 0,
    lists: str | Path | None = None,
    own_lists: bool = False,
    splits: Sequence[str] = (),
    cache_dir: str | Path | None = None,
) -> DatasetDict | IterableDatasetDict:
    """A long-tailed training split and balanced test images, by name. No image is copied.

    Args:
        name: cifar10_lt, cifar100_lt, imagenet_lt, inaturalist2018 or places_lt.
        data_dir: the user's copy: CIFAR's Parquet files (None: the originals on the Hub); otherwise the folder of the
            images or of the official archives, as the builder's class describes it.
        streaming: return streams; that of "train" comes in a fixed random order, in shards for workers.
        imbalance_ratio, profile, seed: of CIFAR's draw, as in `load_cifar_lt`.
        lists: a folder with the split lists; None: beside the images, in the cache, or from their public address.
        own_lists: take lists that are not the published ones.
        splits: those wanted; empty: all. Only their lists and images are looked for.
        cache_dir: where fetched lists and indexes of archives are kept; None: `ltsam` in the Hub's home.

    Returns:
        "train", "test" and, of imagenet_lt and places_lt, "validation", with the columns `image` and `label`; CIFAR
        keeps the Hub's names, `img` and `label` or `fine_label`.

    Raises:
        FileNotFoundError: no such copy or list, or a copy that lacks images: which, and how many of which classes.
        ValueError: an unknown name, a list that is not the published one, or settings that cannot be drawn.
    """
    _check_name(name, LONG_TAILED)
    if name in CIFAR:
        return _cifar(name, data_dir, streaming, imbalance_ratio, profile, seed, splits)
    builder = listed_builder(name, data_dir, lists, own_lists, splits, cache_dir)
    return builder.as_streaming_dataset() if streaming else builder.in_place()


def load_shifted(
    name: str,
    data_dir: str | Path,
    *,
    variant: str = "matched-frequency",
    corruption: str | None = None,
    severity: int | None = None,
    classes: Sequence[str] = (),
    complete: bool = True,
    lists: str | Path | None = None,
    own_lists: bool = False,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """A test set of ImageNet's classes under a shift of distribution, labelled as the training set is.

    Args:
        name: imagenet_sketch, imagenetv2, imagenet_c; or a set of `load_long_tailed`, whose test split is returned
            (imagenet_lt: ILSVRC's validation images).
        data_dir: the user's copy, as the builder's class describes it.
        variant: of imagenetv2: matched-frequency, threshold-0.7 or top-images.
        corruption, severity: of imagenet_c: gaussian_noise, ... and 1 to 5.
        classes: wnids in the order of the training set's labels, where it has not all of ImageNet's 1,000.
        complete: refuse a copy that lacks images; False: take those that are there.
        lists, own_lists, cache_dir: as in `load_long_tailed`.

    Returns:
        The columns `image` and `label`, a `ClassLabel` with the names in the order of the training set's labels.

    Raises:
        FileNotFoundError, ValueError: as `load_long_tailed`; a class folder too many.
    """
    if name in LONG_TAILED:
        return load_long_tailed(
            name, data_dir, lists=lists, own_lists=own_lists, splits=("test",), cache_dir=cache_dir
        )["test"]
    _check_name(name, (*SHIFTED, *LONG_TAILED))
    builders = {"imagenet_sketch": ImageNetSketch, "imagenetv2": ImageNetV2, "imagenet_c": ImageNetC}
    builder = builders[name](
        config_name=_config_name(name, variant, corruption, severity),
        data_dir=str(data_dir),
        classes=tuple(classes),
        complete=complete,
        list_cache=_text(cache_dir),
    )
    return builder.in_place()["test"]


def long_tail_statistics(
    name: str,
    data_dir: str | Path | None = None,
    *,
    imbalance_ratio: float = 100,
    profile: str = "exponential",
    lists: str | Path | None = None,
    own_lists: bool = False,
    tail_threshold: int | None = None,
    cache_dir: str | Path | None = None,
) -> ClassStatistics:
    """Statistics of a training split without its images: from the draw's formula, the published class counts, or
    somebody's own list.

    Args:
        tail_threshold: as in `ClassStatistics`.
        the others: as in `load_long_tailed`. `data_dir` and `lists` are only looked at with own_lists=True.
    """
    _check_name(name, LONG_TAILED)
    if name in CIFAR:
        facts = CIFAR[name]
        check_imbalance_ratio(imbalance_ratio)
        counts = class_counts(facts.per_class, facts.names, imbalance_ratio, profile)
        return ClassStatistics(counts, tail_threshold, facts.many_above, facts.few_below)
    if own_lists:
        counts = listed_builder(name, data_dir, lists, own_lists, ("train",), cache_dir).classes().counts
        return ClassStatistics(counts, tail_threshold)
    return ClassStatistics(class_table(LISTED[name].TABLE).counts, tail_threshold)


def training_fingerprint(name: str, imbalance_ratio: float = 100, profile: str = "exponential", seed: int = 0) -> str:
    """SHA-256 by which two training splits are known to be the same: of CIFAR's draw as `long_tail.fingerprint` defines
    it; of the published training list; of iNaturalist, whose list has no published one, of the class counts.
    """
    if name in CIFAR:
        facts = CIFAR[name]
        labels = np.repeat(np.arange(len(facts.names)), facts.per_class)  # only the class sizes matter
        return fingerprint(
            labels, draw(labels, class_counts(facts.per_class, facts.names, imbalance_ratio, profile), seed)
        )
    return LISTED[name].LISTS["train"].sha256 or label_fingerprint(class_table(LISTED[name].TABLE).counts)


def listed_builder(
    name: str,
    data_dir: str | Path | None,
    lists: str | Path | None = None,
    own_lists: bool = False,
    splits: Sequence[str] = (),
    cache_dir: str | Path | None = None,
) -> ListedImages:
    """The builder of imagenet_lt, inaturalist2018 or places_lt."""
    return LISTED[name](
        data_dir=_text(data_dir),
        lists=_text(lists),
        own_lists=own_lists,
        splits=tuple(splits),
        list_cache=_text(cache_dir),
    )


def _cifar(
    name: str,
    data_dir: str | Path | None,
    streaming: bool,
    imbalance_ratio: float,
    profile: str,
    seed: int,
    splits: Sequence[str],
) -> DatasetDict | IterableDatasetDict:
    facts = CIFAR[name]
    loaded = load_cifar_lt(facts.hub if data_dir is None else data_dir, imbalance_ratio, profile, seed)
    column = class_label_column_of(loaded["train"])
    found = len(loaded["train"].features[column].names)
    if found != len(facts.names):
        raise ValueError(f"{data_dir} has {found} classes, {name} has {len(facts.names)}.")
    for split in splits:
        if split not in loaded:
            raise ValueError(f"{name} has no split {split!r}.{nearest(split, loaded)}")
    chosen = DatasetDict({split: part for split, part in loaded.items() if not splits or split in splits})
    if not streaming:
        return chosen
    mixed = {split: part.shuffle(seed=0) if split == "train" else part for split, part in chosen.items()}
    return IterableDatasetDict({split: part.to_iterable_dataset(num_shards=16) for split, part in mixed.items()})


def _config_name(name: str, variant: str, corruption: str | None, severity: int | None) -> str:
    if name == "imagenetv2":
        _check_choice("variant", variant, VARIANTS)
        return variant
    if name == "imagenet_c":
        _check_choice("corruption", str(corruption), ARCHIVE_OF)
        if severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {', '.join(map(str, SEVERITIES))}, got {severity}.")
        return f"{corruption}_{severity}"
    return "default"


def _check_choice(argument: str, value: str, valid: Sequence[str] | dict[str, str]) -> None:
    if value not in valid:
        raise ValueError(f"There is no {argument} {value!r}.{nearest(value, valid)}")


def _check_name(name: str, valid: Sequence[str]) -> None:
    if name not in valid:
        raise ValueError(f"There is no data set {name!r}.{nearest(name, valid)}")


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
