"""Test sets of ImageNet's classes under a shift of distribution: one folder per class, no list."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import BuilderConfig

from dataset_builders.sources.class_table import ClassTable, class_table
from dataset_builders.sources.download import cache_folder
from dataset_builders.sources.image_files import by_class, images_by_class, root_of
from dataset_builders.sources.path_builder import Located, PathBuilder
from hf_ltsam.hyperparameters import did_you_mean

SHOWN = 5


@dataclass
class ShiftedConfig(BuilderConfig):
    """
    Args:
        classes: wnids in the order of the training set's labels; empty: ImageNet's 1,000, sorted.
        complete: refuse a copy that lacks images; False: take those that are there.
        list_cache: where indexes of archives are kept; None: `ltsam` in the Hub's home.
    """

    classes: tuple[str, ...] = ()
    complete: bool = True
    list_cache: str | None = None


class ShiftedImages(PathBuilder):
    """The builder of one such set.

    Class attributes:
        PER_CLASS: images of every class; None: they differ from class to class.
        TOTAL: images in all.
    """

    BUILDER_CONFIG_CLASS = ShiftedConfig
    PER_CLASS: ClassVar[int | None]
    TOTAL: ClassVar[int]
    config: ShiftedConfig

    @abstractmethod
    def _candidates(self) -> Sequence[str]:
        """What the folder of the classes, or the archive, may be called in a copy."""

    def _above(self) -> Sequence[str]:
        """The folders right above the class folders in an archive that holds several sets."""
        return ()

    def _folders(self) -> Sequence[str]:
        """What the folder of each of ImageNet's 1,000 classes is called, in the order of their labels there."""
        return class_table("imagenet").keys

    @cached_property
    def _wanted(self) -> list[int]:
        """ImageNet's label of every class."""
        keys = class_table("imagenet").keys
        position = {key: c for c, key in enumerate(keys)}
        for wnid in self.config.classes:
            if wnid not in position:
                raise ValueError(f"classes=...: {wnid!r} is none of ImageNet's 1,000 wnids.{did_you_mean(wnid, keys)}")
        return [position[wnid] for wnid in self.config.classes] or list(range(len(keys)))

    def classes(self) -> ClassTable:
        table, per_class = class_table("imagenet"), self.PER_CLASS or 0
        keys, names = zip(*((table.keys[c], table.names[c]) for c in self._wanted))
        return ClassTable(keys, names, (per_class,) * len(keys))

    def locate(self) -> Mapping[str, Located]:
        """Every class folder must be there and be filled.

        Raises:
            FileNotFoundError, ValueError: what is missing, or no class.
        """
        if not self.config.data_dir:
            raise ValueError(f"{type(self).__name__} needs data_dir=...: the folder of your copy of the images.")
        root = root_of(Path(str(self.config.data_dir)), self._candidates())
        found = images_by_class(root, self._above(), cache_folder(self.config.list_cache))
        folders = self._folders()
        self._refuse_strangers(root, set(found) - set(folders))
        images = [found.get(folders[c], []) for c in self._wanted]
        self._refuse_gaps(root, images)
        labels = np.repeat(np.arange(len(images)), [len(of_class) for of_class in images])
        return {"test": Located([place for of_class in images for place, _ in of_class], labels)}

    def _refuse_strangers(self, root: Path, strangers: set[str]) -> None:
        if strangers:
            shown = ", ".join(sorted(strangers)[:SHOWN])
            raise ValueError(
                f"{self._where(root)} has {len(strangers)} class folders that are none of ImageNet's 1,000: {shown}. "
                f"Remove them; the folders are called {self._folders()[0]} to {self._folders()[-1]}."
            )

    def _refuse_gaps(self, root: Path, images: Sequence[Sequence[tuple[str, int]]]) -> None:
        where = self._where(root)
        empty = [place for of_class in images for place, size in of_class if size == 0]
        if empty:
            raise ValueError(f"{where} has {len(empty)} empty files: {', '.join(empty[:SHOWN])}. Complete the copy.")
        sizes = np.asarray([len(of_class) for of_class in images])
        if not sizes.any():
            raise FileNotFoundError(f"{where} holds no image of the classes asked for.")
        expected = np.full(len(sizes), self.PER_CLASS or 1)
        if self.config.complete and (sizes < expected).any():
            missing = np.maximum(expected - sizes, 0)
            by_name = by_class(expected, missing, self.classes())
            at_least = "" if self.PER_CLASS else "at least "
            raise FileNotFoundError(
                f"{where} lacks {at_least}{missing.sum():,} of {expected.sum():,} images: {by_name}. "
                "Complete the copy; load_shifted(complete=False) takes what is there."
            )
        if self.PER_CLASS and (sizes > expected).any():
            most = int(sizes.argmax())
            raise ValueError(
                f"{where} has {sizes[most]} images of {self.classes().called(most)} and not {self.PER_CLASS}."
            )
        if self.config.complete and len(sizes) == 1000 and sizes.sum() != self.TOTAL:
            warnings.warn(f"{where} has {sizes.sum():,} images, {self.TOTAL:,} are published.", stacklevel=2)

    def _where(self, root: Path) -> str:
        return str(root) if root.is_dir() or not self._above() else f"{root} ({'/'.join(self._above())})"
