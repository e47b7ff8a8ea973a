"""What is kept between runs: downloaded lists and indexes of archives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from huggingface_hub import constants


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder given, or `ltsam` in the Hub's home ($HF_HOME, by default ~/.cache/huggingface)."""
    return Path(constants.HF_HOME) / "ltsam" if cache_dir is None else Path(cache_dir)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A file to write to, which takes its place only when it is whole; several processes may do the same at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
