"""Long-tailed splits of balanced data sets: profiles of class counts, the published draw, its fingerprint."""

from __future__ import annotations

import bisect
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import ArrayLike, NDArray

from hf_ltsam.class_statistics import SHOWN
from hf_ltsam.data.labels import class_label_column_of, read_label_column
from hf_ltsam.hyperparameters import nearest

Profile = Callable[[int, int, float], tuple[int, ...]]


def exponential_profile(n_max: int, num_classes: int, imbalance_ratio: float) -> tuple[int, ...]:
    """n_c = int(n_max (1/R)^(c / (C-1))): class 0 is the largest, class C-1 the smallest (Cao et al. 2019, LDAM-DRW).

    Args:
        n_max: images of class 0.
        num_classes: C, at least 2.
        imbalance_ratio: R, at least 1: n_0 / n_(C-1) up to rounding.
    """
    _check_profile(num_classes, imbalance_ratio)
    return tuple(int(n_max * (1 / imbalance_ratio) ** (c / (num_classes - 1))) for c in range(num_classes))


def step_profile(n_max: int, num_classes: int, imbalance_ratio: float) -> tuple[int, ...]:
    """The first half of the classes keeps n_max images, the second half int(n_max / R) (Rangwani et al. 2022 Table 2).

    Args:
        n_max: images of a class of the first half.
        num_classes: C, at least 2; of an odd number the first half is the smaller one.
        imbalance_ratio: R, at least 1.
    """
    _check_profile(num_classes, imbalance_ratio)
    large = num_classes // 2
    return (n_max,) * large + (int(n_max / imbalance_ratio),) * (num_classes - large)


PROFILES: Mapping[str, Profile] = {"exponential": exponential_profile, "step": step_profile}


def profile_named(name: str) -> Profile:
    """A profile of `PROFILES`; an unknown name is answered with the nearest ones."""
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r}.{nearest(name, PROFILES)}")
    return PROFILES[name]


def class_counts(n_max: int, names: Sequence[str], imbalance_ratio: float, profile: str) -> tuple[int, ...]:
    """n_c of a named profile for named classes.

    Raises:
        ValueError: a class would be left without an image.
    """
    counts = profile_named(profile)(n_max, len(names), imbalance_ratio)
    if 0 in counts:
        c = counts.index(0)
        raise ValueError(
            f"Class {c} ({names[c]!r}) would get no image at imbalance_ratio={imbalance_ratio:g}: the largest class "
            f"has {n_max}, so the ratio can be {n_max} at most."
        )
    return counts


def draw(labels: ArrayLike, counts: Sequence[int], seed: int = 0) -> list[NDArray[np.int64]]:
    """The published draw: for each class in label order, its indices in data-set order, shuffled in place, the first
    n_c kept. The stream is that of `np.random.seed(seed)`; the global one is left alone.

    Args:
        labels: class indices (N,).
        counts: n_c for every class c. Length C.
        seed: 0 is the published draw (LDAM-DRW, Rangwani et al. 2022 and Li et al. 2025).

    Returns:
        C arrays of indices into `labels`, of lengths n_c.

    Raises:
        ValueError: a class has fewer than n_c images.
    """
    stream = np.random.RandomState(seed)
    drawn = []
    for c, (indices, count) in enumerate(zip(_indices_by_class(labels, len(counts)), counts)):
        if count > len(indices):
            raise ValueError(f"Class {c} has {len(indices)} images, {count} were asked for.")
        stream.shuffle(indices)
        drawn.append(indices[:count])
    return drawn


def fingerprint(labels: ArrayLike, drawn: Sequence[NDArray[np.int64]]) -> str:
    """SHA-256 (hex) of the within-class positions in draw order, concatenated over classes as little-endian int64.

    A position counts the images of the same class that come before in data-set order, so for balanced classes the
    fingerprint depends on the class sizes, the counts and the seed alone.

    Args:
        labels: class indices (N,) of the whole data set.
        drawn: indices into `labels` for every class, as `draw` returns them.
    """
    by_class = _indices_by_class(labels, len(drawn))
    positions = [np.searchsorted(members, kept) for members, kept in zip(by_class, drawn)]
    return hashlib.sha256(np.concatenate(positions).astype("<i8").tobytes()).hexdigest()


def long_tailed(
    dataset: Dataset,
    imbalance_ratio: float,
    profile: str = "exponential",
    seed: int = 0,
    label_column: str | None = None,
    largest_class: int | None = None,
) -> Dataset:
    """A long-tailed split by `select`: no image is copied or decoded. Rows come class by class in draw order.

    Args:
        dataset: any data set with a `ClassLabel` column; its selection, format and transform are kept.
        imbalance_ratio: R, at least 1.
        profile: "exponential" or "step". Class 0 is the largest. n_max is the largest number that lets every class
            supply its share: the class size, where the data set is balanced.
        seed: of the draw; 0 is the published one.
        label_column: the `ClassLabel` column to split by; None: the only one there is.
        largest_class: n_max, for a smaller set of the same shape; None: the largest possible.

    Raises:
        ValueError: a ratio below 1, an unknown profile, a largest class that the data set cannot supply, no such
            `ClassLabel` column or several of them, labels outside the class range, or a class that would be left
            without an image.
    """
    check_imbalance_ratio(imbalance_ratio)
    counts_for = profile_named(profile)
    column = class_label_column_of(dataset, label_column)
    names = dataset.features[column].names
    labels = read_label_column(dataset, column).numpy()
    supply = _largest_supply(_class_sizes(labels, names), counts_for, imbalance_ratio)
    counts = class_counts(n_max_of(supply, largest_class), names, imbalance_ratio, profile)
    return dataset.select(np.concatenate(draw(labels, counts, seed)))


def hold_out_per_class(dataset: Dataset, per_class: int, seed: int = 0, label_column: str | None = None) -> DatasetDict:
    """So many samples of every class, but at most half of them, become "validation"; the others stay "train".

    A warning names the classes that give fewer. A class of one sample keeps it.

    Args:
        dataset: with a `ClassLabel` column; its selection, format and transform are kept.
        per_class: K: of a class with n samples min(K, n // 2) are held out.
        seed: of the draw.
        label_column: the `ClassLabel` column; None: the only one there is.

    Raises:
        ValueError: nothing could be held out.
    """
    column = class_label_column_of(dataset, label_column)
    labels, names = read_label_column(dataset, column).numpy(), dataset.features[column].names
    sizes = np.bincount(labels, minlength=len(names))
    counts = np.minimum(per_class, sizes // 2).tolist()
    few = [f"{names[c]!r} {counts[c]} of {size}" for c, size in enumerate(sizes) if size and counts[c] < per_class]
    if not sum(counts):
        raise ValueError(f"held_out_per_class={per_class}: no class has two samples, so nothing can be held out.")
    if few:
        shown = ", ".join(few[:SHOWN]) + (f", ... ({len(few)} classes)" if len(few) > SHOWN else "")
        warnings.warn(
            f"held_out_per_class={per_class}: at most half of a class is held out, so small classes give fewer: {shown}.",
            stacklevel=3,
        )
    out = np.concatenate(draw(labels, counts, seed))
    kept = np.setdiff1d(np.arange(len(labels)), out)
    return DatasetDict(train=dataset.select(kept), validation=dataset.select(out))


def n_max_of(supply: int, largest_class: int | None) -> int:
    """The size of the largest class: as wished, or all that the data set can supply.

    Raises:
        ValueError: the wish is below 1 or above that.
    """
    if largest_class is None:
        return supply
    if not 1 <= largest_class <= supply:
        raise ValueError(f"largest_class={largest_class}: with this tail the data set can supply 1 to {supply} images.")
    return largest_class


def check_imbalance_ratio(imbalance_ratio: float) -> None:
    """Refuse what is not a ratio of the largest class to the smallest."""
    if not (imbalance_ratio >= 1 and math.isfinite(imbalance_ratio)):
        raise ValueError(
            f"imbalance_ratio (largest class over smallest class) must be finite and at least 1, got {imbalance_ratio}."
        )


def _check_profile(num_classes: int, imbalance_ratio: float) -> None:
    check_imbalance_ratio(imbalance_ratio)
    if num_classes < 2:
        raise ValueError(f"A long tail needs at least 2 classes, got num_classes={num_classes}.")


def _indices_by_class(labels: ArrayLike, num_classes: int) -> list[NDArray[np.int64]]:
    """The indices of every class, in data-set order."""
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(num_classes + 1))
    return [order[start:end] for start, end in pairwise(bounds)]


def _class_sizes(labels: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64]:
    outside = labels[(labels < 0) | (labels >= len(names))]
    if outside.size:
        raise ValueError(
            f"Label {outside[0]} is outside the class range 0 to {len(names) - 1}: {outside.size} rows are unlabelled "
            "or wrongly labelled. Remove them first with dataset.filter(...)."
        )
    sizes = np.bincount(labels, minlength=len(names))
    if not sizes.all():
        raise ValueError(f"Class {names[int(sizes.argmin())]!r} has no image in the data set.")
    return sizes


def _largest_supply(sizes: NDArray[np.int64], counts_for: Profile, imbalance_ratio: float) -> int:
    """The largest n_max for which no class is asked for more images than it has; all below it are possible too."""

    def exceeds(n_max: int) -> bool:
        return any(n > size for n, size in zip(counts_for(n_max, len(sizes), imbalance_ratio), sizes))

    return bisect.bisect_left(range(1, int(sizes[0]) + 1), True, key=exceeds)
