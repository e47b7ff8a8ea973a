"""One training at a time in a folder: a lock that ends with its process."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from transformers.utils import logging

logger = logging.get_logger(__name__)

FILE_NAME = "_run.lock"  # transformers pushes nothing with a leading underscore to the Hub


class FolderInUseError(ValueError):
    """Another process trains in a folder.

    Args:
        folder: as it was named.
        holder: process, machine and start of the other one.
    """

    def __init__(self, folder: str, holder: str) -> None:
        super().__init__(
            f"output_dir={folder!r} is in use by another run ({holder}). Wait for it or stop it, or choose another "
            "output_dir."
        )
        self.fact = f"{folder} is in use by another run ({holder})."


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Keep other processes from training in this folder.

    A record lock of POSIX: the system drops it when its process ends, however it ends, and workers that outlive the
    process have no part in it. It excludes nothing within one process. Where the file system has no locks, there is a
    warning.

    Raises:
        FolderInUseError: naming the process, its machine and its start.
    """
    path = Path(folder) / FILE_NAME
    file = _locked(path)
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()


def _locked(path: Path) -> TextIO | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        _warn(path, error)
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # EAGAIN and EACCES: systems say either
        raise FolderInUseError(str(path.parent), path.read_text() or "just started") from error
    except OSError as error:
        _warn(path, error)
        return None
    if not _is_still(path, file):  # its holder has just ended and removed it
        file.close()
        return _locked(path)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
    file.flush()
    return file


def _warn(path: Path, error: OSError) -> None:
    logger.warning(f"{path.parent} cannot be locked ({error.strerror}): take care that no other run writes to it.")


def _is_still(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
