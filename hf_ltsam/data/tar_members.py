"""Files inside an uncompressed tar, read in place: no unpacking, no copy, no index at reading time.

An address holds everything that a reader needs,

    tarmember://1536+10969/data/ILSVRC2012_img_train.tar!n01440764/n01440764_18.JPEG

the offset of the file's first byte in the archive, its size, the archive and the member's name. `datasets` reads it as
the path of an `Image`, through fsspec; every read opens the archive again, so any number of processes may read.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
from fsspec.spec import AbstractFileSystem

PROTOCOL = "tarmember"
_ADDRESS = re.compile(rf"(?:{PROTOCOL}://)?(\d+)\+(\d+)(/[^!]*)!(.*)", re.DOTALL)


def member_address(archive: str | Path, member: str, offset: int, size: int) -> str:
    """The address of a member: `size` bytes of the archive from `offset` on."""
    return f"{PROTOCOL}://{offset}+{size}{_quoted(str(archive))}!{quote(member)}"


@lru_cache
def _quoted(archive: str) -> str:
    """The archive in an address; cached, because an archive has up to a million members."""
    return quote(str(Path(archive).absolute()))


def is_member_address(path: str) -> bool:
    return path.startswith(f"{PROTOCOL}://")


def read_member(address: str) -> bytes:
    """The bytes of one file.

    Raises:
        ValueError: not an address, or the archive has become shorter.
        FileNotFoundError: there is no such archive.
    """
    offset, size, archive, member = _parts(address)
    with Path(archive).open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise ValueError(f"{archive} ends before its member {member}: it has become shorter since it was indexed.")
    return content


def _parts(address: str) -> tuple[int, int, str, str]:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"{address!r} is not an address {PROTOCOL}://OFFSET+SIZE/ARCHIVE!MEMBER.")
    offset, size, archive, member = match.groups()
    return int(offset), int(size), unquote(archive), unquote(member)


class TarMembers(AbstractFileSystem):
    """A read-only file system, by which fsspec opens an address for `datasets`; pyproject.toml registers it."""

    protocol = PROTOCOL
    cachable = False

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode != "rb":
            raise ValueError(f"Members of an archive can only be read, mode={mode!r} is not 'rb'.")
        return io.BytesIO(read_member(path))


fsspec.register_implementation(PROTOCOL, TarMembers, clobber=True)
