"""Files inside an uncompressed tar, read where they lie: no unpacking, no copy, no index at reading time.

An address holds all that a reader needs,

    tarmember://1536+10969/data/ILSVRC2012_img_train.tar!n01440764/n01440764_18.JPEG

the offset of the file's first byte in the archive, its size, the archive and the member's name. `datasets` reads it as
the path of an `Image`, through fsspec; every reading opens the archive anew, so any number of processes may read.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
from fsspec.spec import AbstractFileSystem

PROTOCOL = "tarmember"
_ADDRESS = re.compile(rf"(?:{PROTOCOL}://)?(\d+)\+(\d+)(/[^!]*)!(.*)", re.DOTALL)


def member_address(archive: str | Path, member: str, offset: int, size: int) -> str:
    """The address of `size` bytes from `offset` on, in an archive."""
    return f"{PROTOCOL}://{offset}+{size}{quote(str(Path(archive).absolute()))}!{quote(member)}"


def is_member_address(path: str) -> bool:
    return path.startswith(f"{PROTOCOL}://")


def read_member(address: str) -> bytes:
    """The bytes of one file.

    Raises:
        ValueError: not an address, or an archive that has become shorter.
        FileNotFoundError: the archive is gone.
    """
    offset, size, archive, member = _parts(address)
    with Path(archive).open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise ValueError(f"{archive} ends before its member {member}: it has become shorter since it was indexed.")
    return content


def _parts(address: str) -> tuple[int, int, str, str]:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(f"{address!r} is not an address {PROTOCOL}://OFFSET+SIZE/ARCHIVE!MEMBER.")
    offset, size, archive, member = found.groups()
    return int(offset), int(size), unquote(archive), unquote(member)


class TarMembers(AbstractFileSystem):
    """What fsspec needs to open an address for `datasets`; read-only. pyproject.toml announces it to every process."""

    protocol = PROTOCOL
    cachable = False

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode != "rb":
            raise ValueError(f"Members of an archive can only be read, mode={mode!r} is not 'rb'.")
        return io.BytesIO(read_member(path))


fsspec.register_implementation(PROTOCOL, TarMembers, clobber=True)
