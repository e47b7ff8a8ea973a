"""A data set whose images are corrupted when they are read."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from dataset_builders.corruptions.apply import SMALLEST, check_settings, corrupt
from hf_ltsam.data.decoding import decode_image, image_column_of
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.data.transforms import short_side_of

ROW = "corruption_row"  # column that numbers the rows: a transform of `datasets` is not told which rows it gets


@dataclass(frozen=True)
class CorruptImage:
    """An encoded image and its row to a corrupted RGB image; picklable.

    Args:
        corruption, severity, seed, scale: as for `corrupt`; the row keys the random numbers too.
        size: None: the image keeps its size. Otherwise its short side is first scaled to size * 256 / 224 pixels
            and the centre size x size is kept, which is how ImageNet-C was made (size 224).
    """

    corruption: str
    severity: int
    seed: int = 0
    size: int | None = None
    scale: str = "auto"

    def __post_init__(self) -> None:
        check_settings(self.corruption, self.severity, self.scale)
        operator.index(self.seed)
        if self.size is not None and self.size < SMALLEST:
            raise ValueError(
                f"{type(self).__name__}(size=...) must be at least {SMALLEST} pixels or None, got {self.size}."
            )

    def __call__(self, entry: dict[str, Any] | None, row: int) -> Image.Image:
        """entry: `{"bytes": ..., "path": ...}` of an `Image(decode=False)` column."""
        image = decode_image(entry, row=row)
        if self.size is not None:
            image = as_in_imagenet_c(image, self.size)
        key = random_key(self.seed, row)
        return Image.fromarray(corrupt(np.asarray(image), self.corruption, self.severity, key, self.scale))


def as_in_imagenet_c(image: Image.Image, size: int) -> Image.Image:
    """The centre of an image scaled to a short side of size * 256 / 224 pixels (Hendrycks & Dietterich 2019)."""
    crop = Preprocessing(size, size, short_side_of(size), (0.0,) * 3, (1.0,) * 3, by_pil=True)
    return Image.fromarray(crop.levels(image).permute(1, 2, 0).numpy())


def corrupted(
    dataset: Dataset,
    corruption: str,
    severity: int,
    seed: int = 0,
    image_column: str | None = None,
    size: int | None = None,
) -> Dataset:
    """The same rows with corrupted images, made when a row is read: nothing is stored.

    The random numbers of an image depend on (seed, corruption, severity, row) alone, neither on batches nor on order
    nor on the process. Rows keep their numbers under `select` and `shuffle` of the result.

    Args:
        dataset: with an `Image` column; a transform and format of its own are dropped. A selection other than a range
            is first written out by `datasets`.
        corruption, severity, seed: as for `corrupt`.
        image_column: None: the only `Image` column.
        size: as for `CorruptImage`.

    Returns:
        All columns as they were, the images as RGB images of PIL, and the column "corruption_row", which rows do not
        show. What takes the images without this transform (`with_transform`, `with_format`, `decode_images`,
        `on_the_fly`) gets the clean ones: apply a model's own transform to the rows of the result.

    Raises:
        TypeError: not a `datasets.Dataset`.
        ValueError: unknown settings, no such column, or a data set that is corrupted already. Later, when a row is
            read: an image that cannot be decoded, with its file's name and row.
    """
    make = CorruptImage(corruption, severity, seed, size)
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"corrupted(dataset=...) must be a datasets.Dataset, one split, got a {type(dataset).__name__}. "
            "A stream has no row numbers to key random numbers by."
        )
    image = image_column_of(dataset, image_column)
    if ROW in dataset.column_names:
        raise ValueError(f"The data set is corrupted already (it has a column {ROW!r}): pass the clean one.")
    plain = copy.copy(dataset)  # so that the caller's data set keeps its transform
    plain.reset_format()
    rows = plain.cast_column(image, ImageFeature(decode=False)).add_column(ROW, np.arange(len(plain)))
    return rows.with_transform(_CorruptBatch(make, image))


@dataclass(frozen=True)
class _CorruptBatch:
    """The transform that `datasets` calls."""

    make: CorruptImage
    image_column: str

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        result = {name: values for name, values in batch.items() if name != ROW}
        if self.image_column in batch:
            if ROW not in batch:
                raise ValueError(
                    f"The column {ROW!r} was removed from a corrupted data set, and keys its random numbers: select "
                    "columns first, then call corrupted()."
                )
            result[self.image_column] = list(map(self.make, batch[self.image_column], batch[ROW]))
        return result
