"""Reading a -C set that `write_corrupted` made."""

from __future__ import annotations

import glob
from pathlib import Path

import datasets

from dataset_builders.corruptions.apply import check_settings
from dataset_builders.corruptions.manifest import read_manifest


def load_corrupted(
    folder: str | Path, corruption: str, severity: int, cache_dir: str | Path | None = None
) -> datasets.Dataset:
    """One file of a -C set as a data set.

    Args:
        folder: that `write_corrupted` wrote to.
        corruption, severity: which file.
        cache_dir: where `datasets` keeps it as Arrow; None: its usual place.

    Raises:
        FileNotFoundError: no such set, or this corruption is not (or not yet) in it.
        ValueError: unknown corruption or severity, or a damaged set.
    """
    check_settings(corruption, severity)
    path = Path(folder) / corruption / f"{severity}.parquet"
    read_manifest(Path(folder))
    if not path.is_file():
        there = sorted(f"{file.parent.name} {file.stem}" for file in Path(folder).glob("*/*.parquet"))
        raise FileNotFoundError(
            f"{folder} holds no {corruption} of severity {severity}; there are {', '.join(there) or 'no finished files'}."
        )
    file = glob.escape(str(path.absolute()))
    return datasets.Dataset.from_parquet(file, split="test", cache_dir=None if cache_dir is None else str(cache_dir))
