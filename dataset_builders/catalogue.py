"""Every published set by one name. A new one is a file in `sets/` and a line in `SETS`.

Loaders, `ltsam data`, `ltsam train --builder` and `ltsam evaluate --sets` read this table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from datasets import Dataset, DatasetDict, IterableDatasetDict

from dataset_builders.sets.cifar_lt import CIFAR10_LT, CIFAR100_LT
from dataset_builders.sets.imagenet_c import IMAGENET_C
from dataset_builders.sets.imagenet_lt import IMAGENET_LT
from dataset_builders.sets.imagenet_sketch import IMAGENET_SKETCH
from dataset_builders.sets.imagenetv2 import IMAGENETV2
from dataset_builders.sets.inaturalist import INATURALIST2018
from dataset_builders.sets.places_lt import PLACES_LT
from dataset_builders.sources.published_set import (
    DrawnSet,
    ListedSet,
    LongTailedSet,
    PublishedSet,
    Shift,
    Tail,
    UserCopy,
)
from hf_ltsam import ClassStatistics
from hf_ltsam.hyperparameters import canonical, nearest

SETS: dict[str, PublishedSet] = {
    "cifar10_lt": CIFAR10_LT,
    "cifar100_lt": CIFAR100_LT,
    "imagenet_lt": IMAGENET_LT,
    "inaturalist2018": INATURALIST2018,
    "places_lt": PLACES_LT,
    "imagenet_sketch": IMAGENET_SKETCH,
    "imagenetv2": IMAGENETV2,
    "imagenet_c": IMAGENET_C,
}

Set = TypeVar("Set", bound=PublishedSet)


def sets_of(kind: type[Set]) -> dict[str, Set]:
    """The sets of a kind, `DrawnSet` say, by name."""
    return {name: published for name, published in SETS.items() if isinstance(published, kind)}


def published_bounds(name: str) -> tuple[int | None, int | None]:
    """many_above and few_below of the set of this name; None, None where it has none of its own."""
    drawn = sets_of(DrawnSet).get(name)
    return (None, None) if drawn is None else (drawn.many_above, drawn.few_below)


def long_tailed_sets() -> dict[str, LongTailedSet]:
    """The sets that have a training split, by name."""
    return {name: published for name, published in SETS.items() if isinstance(published, LongTailedSet)}


def published_set(name: str, sets: Mapping[str, Set]) -> Set:
    """One of these sets by its name, or its title as papers write it (CIFAR-10-LT).

    Raises:
        ValueError: it is not among them, with the nearest names.
    """
    name = canonical(sets, name)
    if name not in sets:
        raise ValueError(f"There is no data set {name!r}.{nearest(name, sets)}")
    return sets[name]


def evaluation_sets() -> dict[str, tuple[str, str | None]]:
    """Name of a test set -> the set it belongs to, and its variant.

    A variant other than the usual one stands behind a colon (imagenetv2:top-images). The test images of a set that is drawn
    from a balanced one also have the name of that (cifar10).
    """
    names: dict[str, tuple[str, str | None]] = {}
    for name, published in SETS.items():
        names[name] = (name, None)
        names |= {f"{name}:{variant}": (name, variant) for variant in published.variants[1:]}
        if isinstance(published, DrawnSet):
            names[published.original] = (name, None)
    return names


def load_long_tailed(
    name: str,
    data_dir: str | Path | None = None,
    streaming: bool = False,
    *,
    imbalance_ratio: float = 100,
    profile: str = "exponential",
    seed: int = 0,
    largest_class: int | None = None,
    lists: str | Path | None = None,
    own_lists: bool = False,
    splits: Sequence[str] = (),
    cache_dir: str | Path | None = None,
    revision: str | None = None,
) -> DatasetDict | IterableDatasetDict:
    """A long-tailed training split and balanced test images, by name. No image is copied.

    Args:
        name: cifar10_lt, cifar100_lt, imagenet_lt, inaturalist2018 or places_lt.
        data_dir: the user's copy: CIFAR's Parquet files (None: the originals on the Hub); otherwise the folder of the
            images or of the official archives, as the builder's class describes it.
        streaming: return streams; that of "train" comes in a fixed random order, in shards for workers.
        imbalance_ratio, profile, seed, largest_class: of CIFAR's draw, as in `load_cifar_lt`.
        lists: a folder with the split lists; None: beside the images, in the cache, or from their public address.
        own_lists: take lists that are not the published ones.
        splits: those wanted; empty: all. Only their lists and images are looked for.
        cache_dir: where fetched lists and indexes of archives are kept; None: `ltsam` in the Hub's home.
        revision: of CIFAR's originals on the Hub: a branch, a tag or a commit; None: as they are now.

    Returns:
        "train", "test" and, of imagenet_lt and places_lt, "validation", with the columns `image` and `label`; CIFAR
        keeps the Hub's names, `img` and `label` or `fine_label`.

    Raises:
        FileNotFoundError: no such copy, list or revision, or a copy that lacks images: which, and how many of which classes.
        ValueError: an unknown name, a list that is not the published one, settings that cannot be drawn, or a revision of
            a folder.
    """
    copy = UserCopy(data_dir, lists, own_lists, tuple(splits), cache_dir, revision)
    tail = Tail(imbalance_ratio, profile, seed, largest_class)
    published = published_set(name, long_tailed_sets())
    if revision is not None and published.hub is None:
        raise ValueError(f"revision={revision!r}: {name} is read from a copy of your own, which has no revisions.")
    return published.load(copy, tail, streaming)


def load_lists(
    name: str,
    *,
    lists: str | Path | None = None,
    own_lists: bool = False,
    splits: Sequence[str] = (),
    cache_dir: str | Path | None = None,
) -> DatasetDict:
    """The published list of a long-tailed set, without an image.

    Args:
        name: imagenet_lt, inaturalist2018 or places_lt.
        the others: as in `load_long_tailed`.

    Returns:
        The columns `path`, as it is listed, and `label`, a `ClassLabel`. `join_images` adds the images.

    Raises:
        FileNotFoundError, ValueError: as `load_long_tailed`.
    """
    copy = UserCopy(lists=lists, own_lists=own_lists, splits=tuple(splits), cache_dir=cache_dir)
    return published_set(name, sets_of(ListedSet)).lists(copy)


def join_images(
    rows: Dataset | DatasetDict, name: str, data_dir: str | Path, *, cache_dir: str | Path | None = None
) -> Dataset | DatasetDict:
    """The images of one's own copy beside the rows of a list. None is copied.

    Args:
        rows: of `load_lists`, or of a list that was written or pushed: any rows, in any order, with columns of one's own.
        name, data_dir, cache_dir: as in `load_long_tailed`.

    Returns:
        The same with a column `image` in front.

    Raises:
        FileNotFoundError: how many of which classes the copy lacks.
        ValueError: an unknown name, or no columns `path` and `label`.
    """
    listed = published_set(name, sets_of(ListedSet))
    copy = UserCopy(data_dir, cache_dir=cache_dir)
    if isinstance(rows, DatasetDict):
        return DatasetDict({split: listed.join(part, copy) for split, part in rows.items()})
    return listed.join(rows, copy)


def load_shifted(
    name: str,
    data_dir: str | Path | None = None,
    *,
    variant: str | None = None,
    corruption: str | None = None,
    severity: int | None = None,
    classes: Sequence[str] = (),
    complete: bool = True,
    lists: str | Path | None = None,
    own_lists: bool = False,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """A test set under a shift of distribution, labelled as the training set is.

    Args:
        name: imagenet_sketch, imagenetv2, imagenet_c; or a set of `load_long_tailed`, whose test split is returned
            (imagenet_lt: ILSVRC's validation images).
        data_dir: the user's copy, as the builder's class describes it; None: the original on the Hub (CIFAR).
        variant: of imagenetv2: matched-frequency (None), threshold-0.7 or top-images.
        corruption, severity: of imagenet_c: gaussian_noise, ... and 1 to 5.
        classes: wnids in the order of the training set's labels, where it has not all of ImageNet's 1,000.
        complete: refuse a copy that lacks images; False: take those that are there.
        lists, own_lists, cache_dir: as in `load_long_tailed`.

    Returns:
        The columns `image` and `label`, a `ClassLabel` with the names in the order of the training set's labels.

    Raises:
        FileNotFoundError, ValueError: as `load_long_tailed`; a class folder too many.
    """
    copy = UserCopy(data_dir, lists, own_lists, cache_dir=cache_dir)
    shift = Shift(variant, corruption, severity, tuple(classes), complete)
    return published_set(name, SETS).test_images(copy, shift)


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
    copy = UserCopy(data_dir, lists, own_lists, cache_dir=cache_dir)
    tail = Tail(imbalance_ratio, profile)
    return published_set(name, long_tailed_sets()).statistics(copy, tail, tail_threshold)
