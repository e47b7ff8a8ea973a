"""Split lists: which images belong to a split, and their labels. Lines `path label`, or the JSON of iNaturalist."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SplitList:
    """A list as it was read.

    Args:
        origin: the file, for messages.
        paths: of the images, relative to the data set's folder. N of them.
        labels: (N,) int64.
        sha256: of the file's text, decompressed.
    """

    origin: str
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    sha256: str

    def counts(self, num_classes: int) -> NDArray[np.int64]:
        """Images per class (C,)."""
        return np.bincount(self.labels, minlength=num_classes)


def read_split_list(file: Path) -> SplitList:
    """Read `*.txt`, `*.json`, the same with `.gz`, or a `.json.tar.gz` as iNaturalist publishes it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong, with its line.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no split list {file}.")
    content = _decompressed(file)
    if b"\r\n" in content:
        raise ValueError(
            f"{file} has Windows line ends (CRLF), so it is not byte for byte what was published. Convert it: "
            f"sed -i 's/\\r$//' {file.name}; and switch off autocrlf where git made them."
        )
    parse: Callable[[str, Path], tuple[list[str], list[int]]] = _from_json if ".json" in file.name else _from_lines
    paths, labels = parse(_text(content, file), file)
    if not paths:
        raise ValueError(f"{file} names no image.")
    return SplitList(str(file), tuple(paths), np.asarray(labels, dtype=np.int64), hashlib.sha256(content).hexdigest())


def _decompressed(file: Path) -> bytes:
    try:
        if file.name.endswith(".tar.gz"):
            return _only_member(file)
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (EOFError, gzip.BadGzipFile, tarfile.ReadError) as error:
        raise ValueError(f"{file} cannot be decompressed ({error}): fetch it again.") from error


def _only_member(file: Path) -> bytes:
    with tarfile.open(file, "r:gz") as tar:
        members = [member for member in tar if member.isfile() and member.name.endswith(".json")]
        content = tar.extractfile(members[0]) if len(members) == 1 else None
        if content is None:
            raise ValueError(f"{file} should hold one JSON file, it holds {len(members)}.")
        return content.read()


def _text(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text ({error}): a split list has lines `path label`.") from error


def _from_lines(text: str, file: Path) -> tuple[list[str], list[int]]:
    paths, labels = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line:
            continue
        path, _, label = line.rpartition(" ")
        if not path or not label.isdecimal():
            raise ValueError(f"{file}, line {number}: {line[:80]!r} is not `path label`.")
        _refuse_outside(path, f"{file}, line {number}")
        paths.append(path)
        labels.append(int(label))
    return paths, labels


def _from_json(text: str, file: Path) -> tuple[list[str], list[int]]:
    """iNaturalist's annotations: images by id, their categories beside them; in the order of the images."""
    try:
        annotations: dict[str, Any] = json.loads(text)
        label_of = {entry["image_id"]: int(entry["category_id"]) for entry in annotations["annotations"]}
        paths = [entry["file_name"] for entry in annotations["images"]]
        labels = [label_of[entry["id"]] for entry in annotations["images"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not iNaturalist's JSON ({error!r}): `images` and `annotations` are needed."
        ) from error
    for path in paths:
        _refuse_outside(path, str(file))
    return paths, labels


def _refuse_outside(path: str, where: str) -> None:
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{where}: {path!r} points outside the data set's folder.")
