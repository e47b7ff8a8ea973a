"""Text files of a run: written whole or not at all, without secrets, and named when they are damaged."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from hf_ltsam.runs.secrets import without_secrets

T = TypeVar("T")

_WITHOUT_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORDS_OF_THE_DISK = (
    *("os error", "I/O error", "No space left", "write failed", "iostream"),
    *("PytorchStreamWriter", "inline_container"),  # of torch.save
)


class DamagedFileError(ValueError):
    """A file that is not what it should be; the message names it, the reason and the way out."""


def read_text(path: Path, parse: Callable[[str], T], advice: str = "") -> T | None:
    """The content of a text file; None where there is no such file.

    Args:
        parse: turns the text into what it stands for, and checks it.
        advice: what to do about a damaged file, as a sentence.

    Raises:
        DamagedFileError: it is not UTF-8, or `parse` refuses it.
    """
    if not path.is_file():
        return None
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, yaml.YAMLError) as error:
        raise DamagedFileError(f"{path} is damaged: {_reason(error)}. {advice}".rstrip()) from error


def read_json(path: Path, parse: Callable[[Any], T] = lambda values: values, advice: str = "") -> T | None:
    """The content of a JSON file, without secrets; None where there is none. Arguments and errors as in `read_text`."""
    return read_text(path, lambda text: parse(without_secrets(json.loads(text))), advice)


def mapping(values: Any) -> dict[str, Any]:
    """Values that must be an object of JSON.

    Raises:
        TypeError: they are something else.
    """
    if not isinstance(values, dict):
        raise TypeError(f"expected names and values, got {type(values).__name__}")
    return values


def write_json(path: str | Path, values: Any, indent: int | None = 2) -> Path:
    """Write a file, all of it or nothing: a crash leaves the previous one. Missing folders are made.

    Numbers that are not finite become null, arrays become lists.

    Args:
        indent: as in `json.dumps`; None puts everything on one line, for long lists.

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    # not as a text: what is taken out of the source may leave no JSON
    return _write(Path(path), json.dumps(plain(values), indent=indent, allow_nan=False) + "\n")


def write_whole(path: str | Path, text: str) -> Path:
    """Write a text file, all of it or nothing: a crash leaves the previous one. Missing folders are made."""
    return _write(Path(path), without_secrets(text))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return temporary.replace(path)
    except OSError as error:  # which names no file where the disk is full
        if error.filename:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)  # still there after an exception or Ctrl-C only


def is_of_the_disk(error: BaseException) -> bool:
    """Whether an error in writing came from the disk: torch and safetensors say so in their messages alone."""
    return isinstance(error, OSError) or without_room(error) is not None


def without_room(error: BaseException | None) -> BaseException | None:
    """The error of a disk that is full, or of a file that may not grow: this one, or the one that it was raised from."""
    seen: list[BaseException] = []  # an error that was raised from itself is its own cause
    while error is not None and not any(error is before for before in seen):
        if getattr(error, "errno", None) in _WITHOUT_ROOM or any(words in str(error) for words in _WORDS_OF_THE_DISK):
            return error
        seen.append(error)
        error = error.__cause__
    return None


def not_written(path: Path, error: BaseException) -> str:
    """What the disk said, and how much room it has, as a sentence."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free / 2**20
    return f"{path} could not be written ({type(error).__name__}: {error}; {free:,.0f} MB are free there)."


def plain(value: Any) -> Any:
    """Containers and numbers as JSON knows them, and no secret."""
    return without_secrets(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def check_folders(folders: Iterable[Path]) -> None:
    """Refuse runs that are not there.

    Raises:
        FileNotFoundError: no such folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder. Give the folder of a run, or of several.")


def check_output_folder(folder: str) -> None:
    """Write one byte into the folder, or where it will be made, so that a run does not fail at its first checkpoint.

    Nothing is left there: a run that is refused afterwards makes no folder.

    Raises:
        ValueError: it cannot be written there.
    """
    path = Path(folder).absolute()
    place = next(place for place in (path, *path.parents) if os.path.lexists(place))  # a broken link, too
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        raise ValueError(
            f"output_dir={folder!r} cannot be written ({error.strerror}): {os.path.abspath(folder)}. "  # noqa: PTH100
            "Choose another folder, or free some space and check the permissions there."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return re.sub(r"\s+", " ", str(error))[:300].rstrip(". ")
