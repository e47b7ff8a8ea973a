"""JSON and other text files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_json(path: str | Path, values: Any, indent: int | None = 2) -> Path:
    """Write a file, all of it or nothing: a crash leaves the one that was there. Missing folders are made.

    Numbers that do not exist (NaN) become null, arrays become lists.

    Args:
        indent: as in `json.dumps`; None: all on one line, for long lists.

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    return write_whole(path, json.dumps(plain(values), indent=indent, allow_nan=False) + "\n")


def write_whole(path: str | Path, text: str) -> Path:
    """Write a text file, all of it or nothing: a crash leaves the one that was there. Missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # still there after an exception or Ctrl-C only


def plain(value: Any) -> Any:
    """Containers and numbers as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def check_output_folder(folder: str) -> None:
    """Make the folder and write one byte into it, so that a run does not fail at its first checkpoint.

    Raises:
        ValueError: the folder cannot be made or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        raise ValueError(
            f"output_dir={folder!r} cannot be written ({error.strerror}): {os.path.abspath(folder)}. "  # noqa: PTH100
            "Choose another folder, or make room and permissions there."
        ) from error
