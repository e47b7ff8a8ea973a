"""Long-tailed sets that are a published list over images everybody fetches for himself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import BuilderConfig, ClassLabel, Dataset, DatasetDict, Features, Value, Version, concatenate_datasets

from dataset_builders.sources.class_table import ClassTable, class_table
from dataset_builders.sources.download import cache_folder
from dataset_builders.sources.image_files import find_images, places_of, root_of
from dataset_builders.sources.path_builder import Located, PathBuilder
from dataset_builders.sources.published_lists import PublishedList, check_published, obtain, table_of_own_lists
from dataset_builders.sources.split_lists import SplitList
from hf_ltsam.hyperparameters import nearest


@dataclass
class ListedConfig(BuilderConfig):
    """
    Args:
        lists: a folder with the split lists; None: beside the images, in the cache, or from their public address.
        own_lists: take lists that are not the published ones: a subset, or another draw. Labels must be 0 to C-1.
        splits: those wanted; empty: all that the set has (of own lists: all that are there).
        list_cache: where fetched lists and indexes of archives are kept; None: `ltsam` in the Hub's home.
    """

    lists: str | None = None
    own_lists: bool = False
    splits: tuple[str, ...] = ()
    list_cache: str | None = None


class ListedImages(PathBuilder):
    """The builder of one such set; its subclasses are tables of facts.

    Class attributes:
        TABLE: name of its table of classes.
        LISTS: {split: its published list}.
        LAYOUT: {first folder of the listed paths: where it may lie in a copy, folders and archives}.
    """

    BUILDER_CONFIG_CLASS = ListedConfig
    BUILDER_CONFIGS: ClassVar[list[BuilderConfig]] = [ListedConfig(name="default", version=Version("1.0.0"))]
    TABLE: ClassVar[str]
    LISTS: ClassVar[Mapping[str, PublishedList]]
    LAYOUT: ClassVar[Mapping[str, Sequence[str]]]
    config: ListedConfig

    @cached_property
    def split_lists(self) -> dict[str, SplitList]:
        """The lists of the wanted splits, checked.

        Raises:
            FileNotFoundError: a list that is nowhere.
            ValueError: a list that is not the published one, or an unknown split.
        """
        cache = cache_folder(self.config.list_cache)
        data_dir = Path(self.config.data_dir) if self.config.data_dir else None
        lists = {}
        for split in self._wanted():
            lists[split] = obtain(split, self.LISTS[split], self.config.lists, data_dir, cache)
            if not self.config.own_lists:
                check_published(lists[split], self.LISTS[split], class_table(self.TABLE))
        return lists

    def _wanted(self) -> Sequence[str]:
        for split in self.config.splits:
            if split not in self.LISTS:
                raise ValueError(f"{type(self).__name__} has no split {split!r}.{nearest(split, self.LISTS)}")
        if self.config.splits or not self.config.own_lists:
            return self.config.splits or tuple(self.LISTS)
        if self.config.lists is None:
            raise ValueError("own_lists=True needs lists=FOLDER.")
        folder = Path(self.config.lists)
        there = [split for split, published in self.LISTS.items() if published.find([folder])]
        if not there:
            names = ", ".join(published.files[0] for published in self.LISTS.values())
            raise FileNotFoundError(f"lists={folder} holds none of {names}.")
        return there

    def classes(self) -> ClassTable:
        known = class_table(self.TABLE)
        return table_of_own_lists(self.split_lists, known) if self.config.own_lists else known

    def locate(self) -> dict[str, Located]:
        """Lists first, then the copy: every listed image must be there.

        Raises:
            FileNotFoundError, ValueError: what is missing or wrong.
        """
        if not self.config.data_dir:
            raise ValueError(f"{type(self).__name__} needs data_dir=...: the folder of your copy of the images.")
        table = self.classes()
        return {split: self._located(listed, table) for split, listed in self.split_lists.items()}

    def listed(self) -> DatasetDict:
        """The lists themselves, without an image: `path`, as it is listed, and `label`."""
        names = list(self.classes().names)
        features = Features(path=Value("string"), label=ClassLabel(names=names))
        return DatasetDict(
            {
                split: Dataset.from_dict({"path": listed.paths, "label": listed.labels}, features=features)
                for split, listed in self.split_lists.items()
            }
        )

    def joined(self, rows: Dataset) -> Dataset:
        """Rows of such a list, any of them in any order, with their images in front.

        Raises:
            FileNotFoundError, ValueError: what the copy lacks; no columns `path` and `label`.
        """
        for column in ("path", "label"):
            if column not in rows.column_names:
                raise ValueError(f"A list has the columns path and label, this has {', '.join(rows.column_names)}.")
        names = tuple(rows.features["label"].names)
        listed = SplitList("the list", tuple(rows["path"]), np.asarray(rows["label"], dtype=np.int64), "")
        images = self._located(listed, ClassTable(names, names, (0,) * len(names))).images()
        return concatenate_datasets([images, rows], axis=1)

    def _located(self, listed: SplitList, table: ClassTable) -> Located:
        base = listed.paths[0].partition("/")[0]
        if base not in self.LAYOUT or any(not path.startswith(f"{base}/") for path in listed.paths):
            raise ValueError(f"The paths of {listed.origin} should all begin with one of {', '.join(self.LAYOUT)}.")
        folders = {path[len(base) + 1 :].rpartition("/")[0] for path in listed.paths}
        root = root_of(Path(str(self.config.data_dir)), self.LAYOUT[base])
        found = find_images(root, folders, cache_folder(self.config.list_cache))
        return Located(places_of(listed, found, table), listed.labels)
