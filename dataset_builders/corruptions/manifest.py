"""What a written -C set was made from, so that a folder never mixes two of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hf_ltsam.runs.files import write_json

FILE_NAME = "corruptions.json"


@dataclass(frozen=True)
class Manifest:
    """What all files of a -C set share.

    Args:
        source: SHA-256 of the clean data set, see `CleanRows.fingerprint`.
        rows: of the clean data set, and so of every file.
        seed, size, scale: as for `CorruptImage`.
        image_column: its name.
        format: of the files; raised when the same settings would give other images.
    """

    source: str
    rows: int
    seed: int
    size: int | None
    scale: str
    image_column: str
    format: int = 1

    def claim(self, folder: Path) -> None:
        """Write this manifest into a new or empty folder, or find the same one there.

        Raises:
            NotADirectoryError: the folder is a file.
            ValueError: the folder belongs to something else.
        """
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file: name a folder for the corrupted set.")
        if (folder / FILE_NAME).is_file():
            self._refuse_other(folder)
            return
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} holds other files and no {FILE_NAME}: name a new or empty folder.")
        write_json(folder / FILE_NAME, asdict(self))

    def _refuse_other(self, folder: Path) -> None:
        there, wanted = read_manifest(folder), asdict(self)
        different = [
            f"{key} {there[key]!r} there, {value!r} wanted" for key, value in wanted.items() if there[key] != value
        ]
        if different:
            raise ValueError(
                f"{folder} holds a corrupted set made otherwise ({'; '.join(different)}): name another folder, or "
                "delete this one."
            )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a -C set.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {FILE_NAME}: it is not a folder that write_corrupted made.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete {folder} and write the set anew.") from error
    if not isinstance(values, dict) or not {field.name for field in fields(Manifest)} <= set(values):
        raise ValueError(f"{path} is not the manifest of a corrupted set.")
    return values
