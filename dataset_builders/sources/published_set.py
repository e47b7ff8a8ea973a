"""What a set of the catalogue is: its facts, and how its kind is loaded."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import Dataset, DatasetDict, IterableDatasetDict

from dataset_builders.long_tail import PROFILES, check_imbalance_ratio, class_counts, draw, fingerprint, n_max_of
from dataset_builders.sources.class_table import class_table
from dataset_builders.sources.listed_images import ListedImages
from dataset_builders.sources.shifted_images import ShiftedImages
from hf_ltsam import ClassStatistics
from hf_ltsam.data.labels import class_label_column_of, label_fingerprint
from hf_ltsam.hyperparameters import nearest

USUAL_RATIO = 100  # of a tail that is not stated


@dataclass(frozen=True)
class Tail:
    """The long tail of a set that is drawn from a balanced one; other sets have their own.

    Args:
        imbalance_ratio: largest class over smallest, at least 1.
        profile: "exponential" or "step".
        seed: of the draw; 0 is the published one.
        largest_class: training images of class 0; None: all it has.
    """

    imbalance_ratio: float = USUAL_RATIO
    profile: str = "exponential"
    seed: int = 0
    largest_class: int | None = None

    @property
    def configuration(self) -> str:
        """Its name in a repository of several draws: r100; step for the step of ratio 100, step_r10; r100_n500_seed1."""
        ratio = f"r{float(self.imbalance_ratio)!r}".removesuffix(".0")
        if self.profile != "exponential":
            ratio = self.profile if self.imbalance_ratio == USUAL_RATIO else f"{self.profile}_{ratio}"
        size = "" if self.largest_class is None else f"_n{self.largest_class}"
        return ratio + size + (f"_seed{self.seed}" if self.seed else "")

    @classmethod
    def named(cls, configuration: str) -> Tail:
        """The tail with this name.

        Raises:
            ValueError: no tail has it.
        """
        first, *others = configuration.split("_")
        profile, parts = (first, others) if first in PROFILES else ("exponential", [first, *others])
        found = (re.fullmatch(r"(r|n|seed)(\d+(?:\.\d+)?)", part) for part in parts)
        numbers = {match[1]: match[2] for match in found if match}
        tail = cls(
            imbalance_ratio=float(numbers.get("r", USUAL_RATIO)),
            profile=profile,
            seed=int(float(numbers.get("seed", 0))),
            largest_class=int(float(numbers["n"])) if "n" in numbers else None,
        )
        if tail.configuration != configuration:
            raise ValueError(
                f"{configuration!r} names no draw: r10, r100, step, step_r10 do, and r100_seed1 for another seed."
            )
        return tail


@dataclass(frozen=True)
class UserCopy:
    """Where the user's images and lists are.

    Args:
        data_dir: the folder of the images or archives; None: the original on the Hub, where there is one.
        lists, own_lists, cache_dir: as in `ListedConfig`.
        splits: those wanted; empty: all.
        revision: of a data set on the Hub, in the place of a folder; None: as it is now.
    """

    data_dir: str | Path | None = None
    lists: str | Path | None = None
    own_lists: bool = False
    splits: tuple[str, ...] = ()
    cache_dir: str | Path | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Shift:
    """Which part of a shifted set, and for which classes.

    Args:
        variant: of a set that has several; None: the first.
        corruption, severity: of stored corruptions.
        classes, complete: as in `ShiftedConfig`.
    """

    variant: str | None = None
    corruption: str | None = None
    severity: int | None = None
    classes: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True, kw_only=True)
class PublishedSet(ABC):
    """A set of the catalogue.

    Args:
        title: its usual name.
        what: in one line.
        source: where the images come from.
        terms: of the images, in words.
        construction: how the set is made of them.
        citations: the papers to cite, as keys of `sources.bib`.
        variants: names of its variants, the usual one first; empty: there is one.

    Class attributes:
        stored_corruptions: whether it is one set of images for each corruption and severity.
    """

    title: str
    what: str
    source: str
    terms: str
    construction: str
    citations: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()

    stored_corruptions: ClassVar[bool] = False

    @property
    def hub(self) -> str | None:
        """The name of the original on the Hub, which stands in where the user has no copy; None: a copy is needed."""
        return None

    @property
    def images(self) -> int | None:
        """The test images that are published, of stored corruptions those of each; None: their number is not known."""
        return None

    @abstractmethod
    def test_images(self, copy: UserCopy, shift: Shift) -> Dataset:
        """The images and labels of a test."""


class LongTailedSet(PublishedSet):
    """A training split with a long tail, and balanced test images."""

    @abstractmethod
    def load(self, copy: UserCopy, tail: Tail, streaming: bool = False) -> DatasetDict | IterableDatasetDict:
        """Its splits."""

    @abstractmethod
    def statistics(self, copy: UserCopy, tail: Tail, tail_threshold: int | None = None) -> ClassStatistics:
        """Of the training split, without an image."""

    @abstractmethod
    def fingerprint(self, copy: UserCopy, tail: Tail) -> str:
        """SHA-256 by which two training splits are known to be the same."""

    def test_images(self, copy: UserCopy, shift: Shift) -> Dataset:
        return self.load(replace(copy, splits=("test",)), Tail())["test"]


@dataclass(frozen=True, kw_only=True)
class DrawnSet(LongTailedSet):
    """A long tail drawn from a balanced set of C classes.

    Args:
        original: the name of the balanced set, under which its test images are known too.
        repository: OWNER/NAME of the original on the Hub.
        loader: (folder or name on the Hub, the four values of a `Tail`, revision=... of the Hub) -> its splits.
        class_names: C names in the order of the labels.
        per_class: training images of every class of the original.
        many_above, few_below: of the reporting groups.
        may_be_published: whether a draw may be passed on, as far as the terms go.
    """

    original: str
    repository: str
    loader: Callable[..., DatasetDict]
    class_names: tuple[str, ...]
    per_class: int
    many_above: int = 100
    few_below: int = 20
    may_be_published: bool = False

    @property
    def hub(self) -> str:
        return self.repository

    def load(self, copy: UserCopy, tail: Tail, streaming: bool = False) -> DatasetDict | IterableDatasetDict:
        source = self.repository if copy.data_dir is None else copy.data_dir
        version = {} if copy.revision is None else {"revision": copy.revision}
        loaded = self.loader(source, tail.imbalance_ratio, tail.profile, tail.seed, tail.largest_class, **version)
        names = loaded["train"].features[class_label_column_of(loaded["train"])].names
        if len(names) != len(self.class_names):
            raise ValueError(f"{source} has {len(names)} classes, {self.title} has {len(self.class_names)}.")
        for split in copy.splits:
            if split not in loaded:
                raise ValueError(f"{self.title} has no split {split!r}.{nearest(split, loaded)}")
        chosen = DatasetDict({split: part for split, part in loaded.items() if not copy.splits or split in copy.splits})
        return _streams(chosen) if streaming else chosen

    def counts(self, tail: Tail) -> tuple[int, ...]:
        """n_c of a draw (C,)."""
        check_imbalance_ratio(tail.imbalance_ratio)
        n_max = n_max_of(self.per_class, tail.largest_class)
        return class_counts(n_max, self.class_names, tail.imbalance_ratio, tail.profile)

    def statistics(self, copy: UserCopy, tail: Tail, tail_threshold: int | None = None) -> ClassStatistics:
        return ClassStatistics(self.counts(tail), tail_threshold, self.many_above, self.few_below)

    def fingerprint(self, copy: UserCopy, tail: Tail) -> str:
        labels = np.repeat(np.arange(len(self.class_names)), self.per_class)  # only the class sizes matter
        return fingerprint(labels, draw(labels, self.counts(tail), tail.seed))


@dataclass(frozen=True, kw_only=True)
class ListedSet(LongTailedSet):
    """A published list over images that everybody fetches for himself.

    Args:
        builder: its lists, and where its images may lie in a copy.
    """

    builder: type[ListedImages]

    def load(self, copy: UserCopy, tail: Tail, streaming: bool = False) -> DatasetDict | IterableDatasetDict:
        builder = self._builder(copy)
        return builder.as_streaming_dataset() if streaming else builder.in_place()

    def lists(self, copy: UserCopy) -> DatasetDict:
        """Paths and labels, without an image."""
        return self._builder(copy).listed()

    def join(self, rows: Dataset, copy: UserCopy) -> Dataset:
        """Rows of a list with the images of the copy."""
        return self._builder(copy).joined(rows)

    def statistics(self, copy: UserCopy, tail: Tail, tail_threshold: int | None = None) -> ClassStatistics:
        table = class_table(self.builder.TABLE)
        if copy.own_lists:
            table = self._builder(replace(copy, splits=("train",))).classes()
        return ClassStatistics(table.counts, tail_threshold)

    def fingerprint(self, copy: UserCopy, tail: Tail) -> str:
        """Of the list; where none is published (iNaturalist), of the class counts."""
        if copy.own_lists:
            return self._builder(replace(copy, splits=("train",))).split_lists["train"].sha256
        published = self.builder.LISTS["train"].sha256
        return published or label_fingerprint(class_table(self.builder.TABLE).counts)

    def _builder(self, copy: UserCopy) -> ListedImages:
        return self.builder(
            data_dir=_text(copy.data_dir),
            lists=_text(copy.lists),
            own_lists=copy.own_lists,
            splits=copy.splits,
            list_cache=_text(copy.cache_dir),
        )


@dataclass(frozen=True, kw_only=True)
class ShiftedSet(PublishedSet):
    """Test images of ImageNet's classes under a shift of distribution.

    Args:
        builder: where its images may lie in a copy; a variant is a configuration of it.
    """

    builder: type[ShiftedImages]

    @property
    def images(self) -> int:
        return self.builder.TOTAL

    def test_images(self, copy: UserCopy, shift: Shift) -> Dataset:
        builder = self.builder(
            config_name=self._configuration(shift),
            data_dir=_text(copy.data_dir),
            classes=shift.classes,
            complete=shift.complete,
            list_cache=_text(copy.cache_dir),
        )
        return builder.in_place()["test"]

    def _configuration(self, shift: Shift) -> str:
        if not self.variants:
            return "default"
        return self.variants[0] if shift.variant is None else _one_of("variant", shift.variant, self.variants)


@dataclass(frozen=True, kw_only=True)
class StoredCorruptions(ShiftedSet):
    """Test images under corruptions that somebody made and stored.

    Args:
        corruptions, severities: which there are; each pair is a configuration of the builder, such as fog_3.
    """

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]

    stored_corruptions: ClassVar[bool] = True

    def _configuration(self, shift: Shift) -> str:
        corruption = _one_of("corruption", str(shift.corruption), self.corruptions)
        if shift.severity not in self.severities:
            valid = ", ".join(map(str, self.severities))
            raise ValueError(f"severity must be one of {valid}, got {shift.severity}.")
        return f"{corruption}_{shift.severity}"


def _streams(splits: DatasetDict) -> IterableDatasetDict:
    """The training split in a fixed random order; all in shards for workers."""
    mixed = {split: part.shuffle(seed=0) if split == "train" else part for split, part in splits.items()}
    return IterableDatasetDict({split: part.to_iterable_dataset(num_shards=16) for split, part in mixed.items()})


def _one_of(argument: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise ValueError(f"There is no {argument} {value!r}.{nearest(value, valid)}")
    return value


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
