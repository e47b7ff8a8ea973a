"""The clean rows that a -C set is made from."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from datasets import Image as ImageFeature
from tqdm.auto import tqdm

ROWS_AT_ONCE = 200  # rows of a row group, and of one piece of a worker's work


class CleanRows:
    """The rows of a data set as Arrow tables, its images not decoded, without its transform and format."""

    def __init__(self, dataset: Dataset, image_column: str) -> None:
        plain = copy.copy(dataset)  # so that the caller's data set keeps its transform
        plain.reset_format()
        features = plain.features.copy()
        features[image_column] = ImageFeature()
        self.schema = features.arrow_schema
        self.image_column = image_column
        self._rows = plain.cast_column(image_column, ImageFeature(decode=False)).with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def starts(self) -> range:
        """The first rows of the pieces."""
        return range(0, len(self), ROWS_AT_ONCE)

    def table(self, start: int) -> pa.Table:
        """One piece."""
        return self._rows[start : start + ROWS_AT_ONCE]

    def images(self, start: int) -> list[dict[str, Any] | None]:
        """The images of one piece, `{"bytes": ..., "path": ...}`."""
        return self.table(start)[self.image_column].to_pylist()

    def with_images(self, start: int, images: list[bytes]) -> pa.Table:
        """One piece with these images in place of the clean ones."""
        position = self.schema.get_field_index(self.image_column)
        field = self.schema.field(position)
        entries = pa.array([{"bytes": image, "path": None} for image in images], type=field.type)
        return self.table(start).set_column(position, field, entries).cast(self.schema)

    def fingerprint(self, progress: bool = True) -> str:
        """SHA-256 (hex) of the features, of the encoded images and of all other values, in the order of the rows."""
        digest = hashlib.sha256(str(self.schema).encode())
        for start in tqdm(self.starts, desc="reading the clean images", disable=not progress, leave=False):
            table = self.table(start)
            for entry in table[self.image_column].to_pylist():
                digest.update(hashlib.sha256(_content(entry)).digest())
            digest.update(repr(table.drop_columns([self.image_column]).to_pylist()).encode())
        return digest.hexdigest()


def _content(entry: dict[str, Any] | None) -> bytes:
    if entry is None or (entry["bytes"] is None and entry["path"] is None):
        return b""  # refused by name when its turn comes
    return Path(entry["path"]).read_bytes() if entry["bytes"] is None else entry["bytes"]
