"""Images decoded and transformed on the fly, from a data set or a stream."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.bad_images import BadImageError
from hf_ltsam.data.decoding import decode_image, image_column_of
from hf_ltsam.data.in_memory.augmentation import cut_out, within
from hf_ltsam.data.in_memory.randaugment import RandAugment
from hf_ltsam.data.labels import class_label_column_of
from hf_ltsam.data.pixel_values import PixelValues
from hf_ltsam.data.preprocessing import AS_STORED, Preprocessing
from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream
from hf_ltsam.hyperparameters import UNIT_INTERVAL, nearest, require

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)


def short_side_of(size: int) -> int:
    """The short side of a test image before its centre of `size` pixels is kept: 256 for 224."""
    return round(size * 256 / 224)


def image_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    train: bool,
    short_side: int | None = None,
    color_jitter: float = 0.0,
    flip: bool = True,
    randaugment: RandAugment | None = None,
    random_erasing: float = 0.0,
    cutout: int = 0,
) -> Callable[[Any], Tensor]:
    """The standard transform for ImageNet and its relatives: a PIL image to float32 (3, size, size).

    Args:
        size: side of the result, in pixels.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        train: random resized crop and flip, with random numbers of torch's global generator (`KeyedRandomness` makes
            them resumable); otherwise `Preprocessing`: the short side is scaled and the centre is kept.
        short_side: of a test image after scaling, in pixels; None: size * 256 / 224.
        color_jitter: c in [0, 1]: brightness, contrast and saturation of a training image are each multiplied by a
            factor from [1 - c, 1 + c], in random order; 0 is off.
        flip: whether half of the training images are mirrored left to right.
        randaugment: random operations on training images before they are normalised; None: none.
        random_erasing: probability in [0, 1] that a rectangle of a training image is filled with the mean (Zhong et al.
            2020).
        cutout: side in pixels of a square around a random pixel of each training image, filled with the mean; 0: none.

    Raises:
        ValueError: color_jitter or random_erasing outside [0, 1], a cutout of `size` or more, or a short side that is less
            than `size`.
    """
    from torchvision.transforms import v2

    require(UNIT_INTERVAL, "image_transform", color_jitter=color_jitter, random_erasing=random_erasing)
    require(within(size), "image_transform", cutout=cutout)
    if not train:
        return Preprocessing(size, size, short_side or short_side_of(size), tuple(mean), tuple(std))
    jitter = [v2.ColorJitter(color_jitter, color_jitter, color_jitter)] if color_jitter else []
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    operations = [v2.RandAugment(randaugment.operations, randaugment.magnitude)] if randaugment else []
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    hidden = [_Cutout(cutout)] if cutout else []
    erased = [v2.RandomErasing(random_erasing)] if random_erasing else []
    steps = [v2.RandomResizedCrop(size), *mirror, *jitter, *operations, *to_tensor, *hidden, *erased]
    composed: Callable[[Any], Tensor] = v2.Compose(steps)
    return composed


@dataclass(frozen=True)
class _Cutout:
    """A square around a random pixel of one normalised image (C, H, W), filled with the mean."""

    side: int

    def __call__(self, image: Tensor) -> Tensor:
        row, column = (torch.randint(length, (1,)) for length in image.shape[1:])
        return cut_out(image.unsqueeze(0), row, column, self.side).squeeze(0)


def on_the_fly(
    dataset: datasets.Dataset,
    transform: Callable[[Any], Any],
    image_column: str | None = None,
    label_column: str | None = None,
    values: PixelValues = AS_STORED,
) -> datasets.Dataset:
    """The same rows as `{"pixel_values": transform(image), "labels": int}`, decoded when a row is read.

    Args:
        dataset: with an `Image` column; its transform and format are dropped.
        transform: called with a PIL image in RGB, such as `image_transform(...)`.
        image_column: None: the only `Image` column.
        label_column: None: the only `ClassLabel` column.
        values: of images with more bits or channels.

    Raises:
        ValueError: no such column.
        BadImageError: later, when a row is read whose image cannot be decoded; the message names the file.
    """
    image = image_column_of(dataset, image_column)
    label = class_label_column_of(dataset) if label_column is None else label_column
    if label not in dataset.column_names:
        raise ValueError(f"The data set has no column {label!r}.{nearest(label, dataset.column_names)}")
    plain = copy.copy(dataset)  # the caller's data set keeps its transform
    plain.reset_format()
    return _encoded(plain, image, label).with_transform(_Decoding(transform, values))


def on_the_fly_stream(
    stream: datasets.IterableDataset,
    transform: Callable[[Any], Any],
    image_column: str = "image",
    label_column: str = "label",
    on_bad_image: str = "raise",
) -> datasets.IterableDataset:
    """`on_the_fly` for a stream. Shuffle it first, by `stream.shuffle(seed, buffer_size)`, while images are still paths.

    A stream has no length and no label column to read: give the trainer `max_steps` and `class_statistics`. Its random
    transforms are not keyed, so a resumed run draws other numbers; `class_sampled_images` keys them.

    Args:
        stream: with an `Image` column.
        transform: called with a PIL image in RGB, such as `image_transform(...)`.
        image_column, label_column: their names.
        on_bad_image: "raise", or "skip" to leave out rows whose image cannot be decoded, with a warning.

    Raises:
        BadImageError: later, when a row is read whose image cannot be decoded, unless `on_bad_image` is "skip".
    """
    decode = _Decoding(transform) if on_bad_image == "raise" else _Skipping(_Decoding(transform))
    return _encoded(stream, image_column, label_column).map(
        decode, batched=True, batch_size=1, remove_columns=["image"]
    )


def class_sampled_images(
    stream: datasets.IterableDataset,
    transform: Callable[[Any], Any],
    statistics: ClassStatistics,
    sampling: str,
    seed: int = 0,
    per_class: int = 16,
    image_column: str = "image",
    label_column: str = "label",
) -> ClassSampledStream:
    """`on_the_fly_stream` with sampling by class: images are decoded when they are drawn, and every draw is augmented.

    Random transforms are keyed, so a resumed run draws the same numbers. Give the trainer `max_steps` and the statistics.

    Args:
        stream: with an `Image` column; shuffle it first.
        transform: called with a PIL image in RGB, such as `image_transform(...)`.
        statistics, sampling, seed, per_class: as in `ClassSampledStream`.
        image_column, label_column: their names.

    Raises:
        ValueError: as `ClassSampledStream`.
        BadImageError: later, when an image is drawn that cannot be decoded.
    """
    decode = _Decoding(transform)
    rows = _encoded(stream, image_column, label_column)
    return ClassSampledStream(rows, statistics, sampling, seed, per_class, transform=decode.row)


def _encoded(rows: datasets.Dataset | datasets.IterableDataset, image_column: str, label_column: str) -> Any:
    """The columns `image`, still encoded, and `labels`."""
    from datasets import Image

    encoded = rows.select_columns([image_column, label_column]).cast_column(image_column, Image(decode=False))
    names = {old: new for old, new in ((image_column, "image"), (label_column, "labels")) if old != new}
    return encoded.rename_columns(names)


@dataclass(frozen=True)
class _Decoding:
    """Decoding and transform of a row. `datasets` could decode, but does not name a broken file."""

    transform: Callable[[Any], Any]
    values: PixelValues = AS_STORED

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [self._pixels(entry) for entry in batch["image"]] if "image" in batch else []
        return {"pixel_values": images, "labels": batch.get("labels", [])}

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": self._pixels(row["image"]), "labels": row["labels"]}

    def _pixels(self, entry: dict[str, Any] | None) -> Any:
        try:
            image = decode_image(entry, values=self.values)
        except BadImageError as error:
            if entry is not None and entry["path"]:
                raise
            raise BadImageError(f"{error} unreadable_images(dataset) gives its row.") from error
        return self.transform(image)


def decodes_alone(dataset: datasets.Dataset) -> bool:
    """Whether the transform of a data set is that of `on_the_fly`, which leaves labels as they are stored."""
    return isinstance(dataset.format["format_kwargs"].get("transform"), _Decoding)


@dataclass(frozen=True)
class _Skipping:
    """Decoding of one row at a time, which gives no row for an unreadable image."""

    decode: _Decoding

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        try:
            return self.decode(batch)
        except BadImageError as error:
            logger.warning(f"Left out of the stream: {error}")
            return {"pixel_values": [], "labels": []}
