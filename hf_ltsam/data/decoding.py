"""Decoding of the images of a `datasets.Dataset`, with errors that name the file and the row."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from hf_ltsam.data.bad_images import BadImageError
from hf_ltsam.data.pixel_values import PixelValues, missing_decoder, register_decoders
from hf_ltsam.data.preprocessing import AS_STORED, MODES, Preprocessing
from hf_ltsam.data.tar_members import is_member_address, read_member
from hf_ltsam.hyperparameters import nearest

if TYPE_CHECKING:
    import datasets


ROWS_AT_ONCE = 50  # that are read for a fingerprint: large images are held as many at a time
LONGEST = 500  # long side / short side: with a short side of 256 pixels 100 MB


def decode_images(
    dataset: datasets.Dataset,
    image_column: str | None = None,
    size: int | None = None,
    channels: int = 3,
    progress: bool = True,
    values: PixelValues = AS_STORED,
) -> Tensor:
    """All images as one uint8 tensor (N, C, H, W), for small images that fit into memory.

    Args:
        dataset: with an `Image` column; its transform and format are ignored.
        image_column: None: the only `Image` column.
        size: side in pixels. The short side is scaled to it (bilinear, antialiased) and the centre `size` x `size` is
            kept, as `Preprocessing` does. None: all images have the same size already.
        channels: 3 (grey, palette and CMYK images are converted; transparency is dropped) or 1 (all become grey).
        progress: whether to show a progress bar.
        values: of images with more bits or channels.

    Raises:
        ValueError: an image that cannot be decoded (its file and row are named), images of different sizes without
            `size`, or no such column.
    """
    if channels not in MODES:
        raise ValueError(f"decode_images(channels=...) must be 1 or 3, got {channels}.")
    if size is not None and size < 1:
        raise ValueError(f"decode_images(size=...) must be positive, got {size}.")
    rows = encoded_images(dataset, image_column)
    if not len(rows):
        raise ValueError("The data set has no rows to decode.")
    pixels = torch.empty(0, dtype=torch.uint8)  # (N, C, H, W)
    for row, entry in enumerate(_with_progress(rows, "decoding images", progress)):
        image = decode_image(entry, channels, row, values)
        height, width = (image.height, image.width) if size is None else (size, size)
        if row == 0:
            pixels = torch.empty(len(rows), channels, height, width, dtype=torch.uint8)
        if (height, width) != pixels.shape[2:]:
            raise ValueError(
                f"{_name(entry, row)} is {width} x {height} pixels, the first one {pixels.shape[3]} x "
                f"{pixels.shape[2]}: decode_images(size=...) brings all images to one size."
            )
        pixels[row] = Preprocessing(height, width, size, (0.0,) * channels, (1.0,) * channels).levels(image)
    return pixels


def unreadable_images(
    dataset: datasets.Dataset,
    image_column: str | None = None,
    progress: bool = True,
    values: PixelValues = AS_STORED,
) -> list[str]:
    """One message for every image that cannot be decoded, naming its file and row; an empty list if there is none."""
    return list(unreadable_rows(dataset, image_column, progress, values).values())


def unreadable_rows(
    dataset: datasets.Dataset,
    image_column: str | None = None,
    progress: bool = True,
    values: PixelValues = AS_STORED,
) -> dict[int, str]:
    """Row -> error message of every image that cannot be decoded."""
    messages = {}
    for row, entry in enumerate(_with_progress(encoded_images(dataset, image_column), "checking images", progress)):
        try:
            decode_image(entry, 3, row, values)
        except BadImageError as error:
            messages[row] = str(error)
    return messages


def decode_image(
    entry: dict[str, Any] | None, channels: int = 3, row: int | None = None, values: PixelValues = AS_STORED
) -> Image.Image:
    """One image of an `Image(decode=False)` column, upright, in 8 bits.

    Args:
        entry: `{"bytes": ..., "path": ...}`, one of them None.
        channels: 1 or 3.
        row: for the error message.
        values: of images with more bits or channels.

    Raises:
        BadImageError: it cannot be decoded, or is a strip that nobody could scale; the message names the file and the row.
    """
    if entry is None or (entry["bytes"] is None and entry["path"] is None):
        raise BadImageError(f"{_name(entry, row)} holds no image.")
    register_decoders()
    try:
        with Image.open(_source(entry)) as image:
            _refuse_strip(image, _name(entry, row))
            image.load()
            try:
                return values.eight_bits(image).convert(MODES[channels])
            except ValueError as error:
                raise BadImageError(f"{_name(entry, row)} cannot be used: {error}.") from error
    except BadImageError:
        raise
    except Exception as error:  # PIL's readers raise nearly anything on broken input
        reason = missing_decoder(_head(entry)) or error
        raise BadImageError(f"{_name(entry, row)} cannot be decoded ({reason}). Repair or remove it.") from error


def _head(entry: dict[str, Any]) -> bytes:
    """The first bytes of a file, which tell its format; none where it cannot be read."""
    try:
        return image_bytes(entry)[:16]
    except (OSError, ValueError):
        return b""


def _refuse_strip(image: Image.Image, name: str) -> None:
    """Refuse what takes gigabytes when its short side is scaled: 1 x 60,000 pixels, a file of 200 bytes."""
    if max(image.size) > LONGEST * min(image.size):
        raise BadImageError(
            f"{name} is {image.width} x {image.height} pixels, more than {LONGEST} times as long as wide: scaled to what a "
            "model sees it would take gigabytes. Crop or remove it."
        )


def image_bytes(entry: dict[str, Any]) -> bytes:
    """An image of an `Image(decode=False)` column as it is stored, encoded."""
    source = _source(entry)
    return source.getvalue() if isinstance(source, io.BytesIO) else Path(source).read_bytes()


def content_fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (hex) of a data set's columns and rows, without its transform and format.

    Of an image in a file its name and size count: it would take as long to read all files as to evaluate a small model.
    """
    plain = copy.copy(dataset)  # the caller keeps the transform
    plain.reset_format()
    digest = hashlib.sha256(repr(dict(plain.features)).encode())
    for table in plain.with_format("arrow").iter(ROWS_AT_ONCE):  # of which nothing is decoded
        for row in table.to_pylist():
            digest.update(repr({column: _identity(value) for column, value in row.items()}).encode("utf-8", "replace"))
    return digest.hexdigest()


def _identity(value: Any) -> Any:
    """An encoded image by its bytes or else its name and size, any other value as it is."""
    if not isinstance(value, dict) or set(value) != {"bytes", "path"}:
        return value
    content, path = value["bytes"], value["path"]
    if content is not None:
        return path, hashlib.sha256(content).digest()
    try:
        return path, Path(path or "").stat().st_size
    except (OSError, TypeError, ValueError):  # an archive's member, whose address has its size; or it is named later
        return path, None


def _source(entry: dict[str, Any]) -> str | io.BytesIO:
    if entry["bytes"] is not None:
        return io.BytesIO(entry["bytes"])
    path: str = entry["path"]
    return io.BytesIO(read_member(path)) if is_member_address(path) else path


def encoded_images(dataset: datasets.Dataset, image_column: str | None = None) -> datasets.Dataset:
    """The image column alone, encoded, under the name "image", without the data set's transform and format."""
    from datasets import Image as ImageFeature

    column = image_column_of(dataset, image_column)
    plain = copy.copy(dataset)  # the caller keeps the transform, and the steps below do not deep-copy it
    plain.reset_format()
    alone = plain.select_columns([column]).cast_column(column, ImageFeature(decode=False))
    return alone if column == "image" else alone.rename_column(column, "image")


def with_images(dataset: datasets.Dataset) -> datasets.Dataset:
    """The same rows with `Image` columns: encoded images as other programs than `datasets` write them into Parquet, as
    {"bytes", "path"} or as bytes alone, are none to `datasets` until they are called so.
    """
    from datasets import Image as ImageFeature

    if any(isinstance(feature, ImageFeature) for feature in dataset.features.values()):
        return dataset
    for column, feature in dataset.features.items():
        parts = set(feature) if isinstance(feature, dict) else {getattr(feature, "dtype", None)}
        if parts in ({"bytes", "path"}, {"bytes"}, {"binary"}, {"large_binary"}):
            dataset = dataset.cast_column(column, ImageFeature())
    return dataset


def image_column_of(dataset: datasets.Dataset, name: str | None = None) -> str:
    """The named `Image` column, or the only one.

    Raises:
        ValueError: there is no such column, or none was named and there is not exactly one.
    """
    from datasets import Image as ImageFeature

    valid = [column for column, feature in dataset.features.items() if isinstance(feature, ImageFeature)]
    if name is None and len(valid) != 1:
        several = f"several Image columns ({', '.join(valid)}): name one by image_column=..."
        none = (
            f"no Image column among {', '.join(dataset.column_names)}. Encoded images are one in a column of bytes, or of "
            "bytes and path, that is cast to `Image`."
        )
        raise ValueError(f"The data set has {several if valid else none}")
    if name is not None and name not in dataset.column_names:
        raise ValueError(f"The data set has no column {name!r}.{nearest(name, dataset.column_names)}")
    if name is not None and name not in valid:
        raise ValueError(f"{name!r} is not an Image column of the data set. There are: {', '.join(valid) or 'none'}.")
    return valid[0] if name is None else name


def _with_progress(rows: datasets.Dataset, description: str, progress: bool) -> Iterator[dict[str, Any] | None]:
    return (row["image"] for row in tqdm(rows, desc=description, unit=" images", disable=not progress, leave=False))


def _name(entry: dict[str, Any] | None, row: int | None) -> str:
    """The subject of an error message: the file and the row of an image, if there are any."""
    path = entry["path"] if entry is not None else None
    parts = [part for part in (path, None if row is None else f"(row {row})") if part]
    return " ".join(["The image", *parts]) if parts else "An image without a file name"
