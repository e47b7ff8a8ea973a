"""Where the files of an uncompressed tar begin, found by hopping from header to header; nothing is unpacked."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from dataset_builders.sources.download import written_aside

COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
WAY_OUT = {
    "gzip": "gunzip it once (gunzip -k FILE keeps the original), or unpack it and give the folder",
    "zip": "unzip it once and give the folder",
}


class Member(NamedTuple):
    """A file in an archive: its name, its first byte, its length in bytes."""

    name: str
    offset: int
    size: int


def index_of(archive: Path, cache_dir: Path, progress: bool = True) -> list[Member]:
    """The files in an archive and in the archives of classes inside it (`n01440764.tar` gives `n01440764/...`).

    Headers are read once and kept in `cache_dir`, for as long as the archive keeps its size and time.

    Raises:
        ValueError: a compressed or incomplete archive; a member that is a link, a device, or lies outside the archive.
    """
    kept = cache_dir / "tar_indexes" / f"{_identity(archive)}.parquet"
    if kept.is_file():
        columns = pq.read_table(kept).to_pydict()
        return [Member(*row) for row in zip(columns["name"], columns["offset"], columns["size"])]
    _refuse_compressed(archive)
    with tqdm(desc=f"indexing {archive.name}", unit=" files", disable=not progress, delay=1, leave=False) as bar:
        members = []
        for member in _members(archive):
            members.append(member)
            bar.update()
    with written_aside(kept) as aside:
        pq.write_table(
            pa.table({field: [member[i] for member in members] for i, field in enumerate(Member._fields)}), aside
        )
    return members


def _identity(archive: Path) -> str:
    state = archive.stat()
    return hashlib.sha256(f"{archive.absolute()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:32]


def _refuse_compressed(archive: Path) -> None:
    with archive.open("rb") as file:
        start = file.read(6)
    for magic, kind in COMPRESSIONS.items():
        if start.startswith(magic):
            raise ValueError(
                f"{archive} is compressed ({kind}), so no image in it can be reached without reading all before it: "
                f"{WAY_OUT.get(kind, 'decompress it once')}."
            )


def _members(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as file:
        for member in _plain_files(file, str(archive)):
            if not member.name.endswith(".tar"):
                yield member
                continue
            folder = PurePosixPath(member.name).stem
            window = cast(IO[bytes], _Window(file, member.offset, member.size))
            for inner in _plain_files(window, f"{archive} ({member.name})"):
                yield Member(f"{folder}/{inner.name}", member.offset + inner.offset, inner.size)


def _plain_files(file: IO[bytes], where: str) -> Iterator[Member]:
    """Every file of one archive; folders are passed over, and whatever may lead elsewhere is refused."""
    last = "its beginning"
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]        # or a million headers stay in memory
                _refuse_unsafe(info, where)
                last = info.name
                if info.isfile():
                    yield Member(info.name, info.offset_data, info.size)
    except tarfile.ReadError as error:
        raise ValueError(
            f"{where} is not a whole tar: it breaks off after {last} ({error}). Download it again."
        ) from error


def _refuse_unsafe(info: tarfile.TarInfo, where: str) -> None:
    path = PurePosixPath(info.name)
    wrong = None
    if path.is_absolute() or ".." in path.parts:
        wrong = "points outside the archive"
    elif info.issym() or info.islnk():
        wrong = f"is a link (to {info.linkname!r})"
    elif not (info.isdir() or (info.isreg() and not info.issparse())):
        wrong = "is neither a plain file nor a folder"
    if wrong:
        raise ValueError(
            f"{where}: the member {info.name!r} {wrong}. Do not use this archive: no official one does so."
        )


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._position, 0)
        self._file.seek(self._start + self._position)
        content = self._file.read(left if size < 0 else min(size, left))
        self._position += len(content)
        return content
