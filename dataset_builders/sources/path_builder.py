"""Builders whose rows hold the places of images and not their bytes, so that no image is copied."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import (
    ArrowBasedBuilder,
    BuilderConfig,
    ClassLabel,
    Dataset,
    DatasetDict,
    DatasetInfo,
    DownloadManager,
    Features,
    Image,
    SplitGenerator,
    StreamingDownloadManager,
)
from numpy.typing import NDArray

from dataset_builders.sources.class_table import ClassTable

SHARDS = 256  # of a stream: as many workers as that can share it
IN_PLACE = Image(mode="RGB")


@dataclass(frozen=True, eq=False)
class Located:
    """The images of one split: their places (N) and labels (N,)."""

    places: Sequence[str]
    labels: NDArray[np.int64]

    def table(self) -> pa.Table:
        return pa.table({"image": self._stored_images(), "label": pa.array(self.labels, pa.int64())})

    def images(self) -> Dataset:
        """The images alone, in a column `image`."""
        features = Features(image=IN_PLACE)
        return Dataset(
            pa.table({"image": self._stored_images()}, schema=features.arrow_schema),
            info=DatasetInfo(features=features),
        )

    def _stored_images(self) -> pa.StructArray:
        paths = pa.array(self.places, pa.string())
        return pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], ["bytes", "path"])

    def take(self, rows: NDArray[np.int64]) -> Located:
        return Located([self.places[row] for row in rows], self.labels[rows])


class PathBuilder(ArrowBasedBuilder):
    """Columns `image`, whose files stay where they are (grey-scale, CMYK and palette images come out as RGB), and
    `label`.

    Args:
        cache_dir: of `datasets`.
        config_name: one of `BUILDER_CONFIGS`.
        data_dir: the user's copy.
        config_kwargs: the fields of the configuration.
    """

    config: BuilderConfig

    @abstractmethod
    def classes(self) -> ClassTable:
        """The classes, in the order of the labels."""

    @abstractmethod
    def locate(self) -> Mapping[str, Located]:
        """{split: its images}, after it was made sure that the copy is whole."""

    def in_place(self) -> DatasetDict:
        """The splits, with nothing written to disk: a few dozen bytes in memory for an image."""
        return DatasetDict({split: self._dataset(located) for split, located in self.locate().items()})

    def _dataset(self, located: Located) -> Dataset:
        features = self._features()
        return Dataset(located.table().cast(features.arrow_schema), info=DatasetInfo(features=features))

    def _features(self) -> Features:
        return Features(image=IN_PLACE, label=ClassLabel(names=list(self.classes().names)))

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=self._features())

    def _split_generators(self, dl_manager: DownloadManager | StreamingDownloadManager) -> list[SplitGenerator]:
        splits = self.locate()
        shards = {split: [located] for split, located in splits.items()}
        if isinstance(dl_manager, StreamingDownloadManager):
            shards = {split: _mixed(located) if split == "train" else [located] for split, located in splits.items()}
        return [SplitGenerator(name=split, gen_kwargs={"shards": parts}) for split, parts in shards.items()]

    def _generate_tables(self, shards: Sequence[Located]) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        for number, located in enumerate(shards):
            yield (number, 0), located.table()


def _mixed(located: Located) -> list[Located]:
    """A list goes class by class, which no buffer of a stream could mix: rows in a fixed random order, in shards."""
    order = np.random.default_rng(0).permutation(len(located.labels))
    return [located.take(rows) for rows in np.array_split(order, min(SHARDS, len(order)))]
