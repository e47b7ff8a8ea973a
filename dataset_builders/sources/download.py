"""Small public files, fetched once and checked."""

from __future__ import annotations

import hashlib
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from huggingface_hub import constants

_HERE = ("127.0.0.1", "localhost", "::1")  # needs no network
TIMEOUT = 30  # seconds without an answer


def download(target: Path, addresses: Sequence[str], digest: str) -> Path:
    """Fetch a file from the first address that gives it.

    Args:
        target: where it is kept; written aside and renamed, so that it is whole or not there.
        digest: "sha256:..." or "md5:..." of its bytes.

    Raises:
        FileNotFoundError: no address gave it; says what each answered and how to do without.
    """
    answers = []
    for address in addresses:
        try:
            with written_aside(target) as aside:
                _fetch(address, aside)
                _check(aside, digest)
            return target
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            answers.append(f"{address}: {error}")
    raise FileNotFoundError(
        f"The split list {target.name} could not be fetched. "
        + "; ".join(answers)
        + f". Without the network: fetch it elsewhere and pass lists=FOLDER with {target.name} in it."
    )


def _fetch(address: str, target: Path) -> None:
    if constants.is_offline_mode() and urlsplit(address).hostname not in _HERE:
        raise OSError("HF_HUB_OFFLINE=1 forbids the network")
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, target.open("wb") as file:
        shutil.copyfileobj(answer, file)


def _check(file: Path, digest: str) -> None:
    algorithm, _, expected = digest.partition(":")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, algorithm).hexdigest()
    if found != expected:
        raise ValueError(f"its {algorithm.upper()} is {found} and not {expected}, so it is another file")


# ---- what is kept between runs: downloaded lists and indexes of archives ----


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
