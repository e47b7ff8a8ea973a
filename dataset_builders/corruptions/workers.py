"""Pieces of a -C set, computed on several processes."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from PIL import Image

from dataset_builders.corruptions.source import CleanRows
from dataset_builders.corruptions.transform import CorruptImage
from hf_ltsam.runs.processes import end_with

Piece = tuple[CorruptImage, int]  # what to make of the rows from this one on
Compute = Callable[[Iterable[Piece]], Iterable[list[bytes]]]

_clean: CleanRows | None = None  # of a worker process; what `_compute` reads


@contextmanager
def workers(clean: CleanRows, count: int) -> Iterator[Compute]:
    """A map from pieces to their images as PNG, in order, on so many processes; with one, in this process.

    Raises:
        OSError: a worker was killed.
    """
    if count == 1:
        yield lambda pieces: (_corrupt_piece(clean, *piece) for piece in pieces)
        return
    with ProcessPoolExecutor(count, initializer=_start, initargs=(clean, os.getpid())) as pool:
        try:
            yield lambda pieces: pool.map(_compute, pieces)
        except BrokenProcessPool as error:
            raise OSError(
                "A worker process was killed, perhaps for lack of memory: use fewer workers. The finished files are kept."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(clean: CleanRows, parent: int) -> None:
    global _clean
    _clean = clean
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops the workers
    end_with(parent)


def _compute(piece: Piece) -> list[bytes]:
    if _clean is None:
        raise RuntimeError("this process is not a worker of write_corrupted")
    return _corrupt_piece(_clean, *piece)


def _corrupt_piece(clean: CleanRows, make: CorruptImage, start: int) -> list[bytes]:
    return [_png(make(entry, row)) for row, entry in enumerate(clean.images(start), start)]


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # several times as fast as the default, a little larger
    return file.getvalue()
