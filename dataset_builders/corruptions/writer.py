"""A -C set on the disk: one Parquet file per corruption and severity."""

from __future__ import annotations

import copy
import fcntl
import io
import operator
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets import Image as ImageFeature
from tqdm.auto import tqdm

from dataset_builders.corruptions.apply import check_settings
from dataset_builders.corruptions.manifest import FILE_NAME, Manifest, source_fingerprint
from dataset_builders.corruptions.parameters import CORRUPTIONS, SEVERITIES
from dataset_builders.corruptions.transform import CorruptImage
from hf_ltsam.data.decode import image_column_of
from hf_ltsam.domains import COUNT, require

ROWS_AT_ONCE = 200  # rows of a row group, and of one piece of a worker's work


def write_corrupted(
    dataset: Dataset,
    folder: str | Path,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    workers: int | None = None,
    image_column: str | None = None,
    size: int | None = None,
    scale: str = "auto",
    progress: bool = True,
) -> list[Path]:
    """Write FOLDER/CORRUPTION/SEVERITY.parquet for every pair, with the images that `corrupted` gives, as PNG.

    A file appears under its name when it is finished. A run that was interrupted is continued by the same call: the
    finished files stay, and all bytes are the same as without the interruption, whatever the number of workers.

    Args:
        dataset: one split, with an `Image` column; all other columns are kept.
        folder: new, empty, or of an earlier call with the same source, seed, size and scale.
        corruptions, severities: which ones; a later call may add others.
        seed: any integer.
        workers: processes; None: one per CPU. 1: no process is started.
        image_column: None: the only `Image` column.
        size, scale: as for `CorruptImage`.
        progress: whether to show a progress bar.

    Returns:
        The files, in the order of corruptions and severities.

    Raises:
        ValueError: unknown settings, a folder that belongs to something else, or an image that cannot be decoded.
        OSError: the folder cannot be written, another run is writing to it, or a worker was killed.
    """
    for corruption in corruptions:
        for severity in severities:
            check_settings(corruption, severity, scale)
    workers = os.cpu_count() or 1 if workers is None else workers
    require(COUNT, "write_corrupted", workers=workers)
    if not isinstance(dataset, Dataset) or not len(dataset):
        raise ValueError(
            f"write_corrupted(dataset=...) must be a datasets.Dataset, one split, with rows; got a {type(dataset).__name__}."
        )
    image = image_column_of(dataset, image_column)
    folder, seed = Path(folder), operator.index(seed)
    source = source_fingerprint(dataset, image, progress)
    Manifest(source, len(dataset), seed, size, scale, image).claim(folder)
    jobs = [
        _Job(folder / corruption / f"{severity}.parquet", CorruptImage(corruption, severity, seed, size, scale))
        for corruption in dict.fromkeys(corruptions)
        for severity in dict.fromkeys(severities)
    ]
    with _only_writer(folder):
        _write(jobs, _Source(dataset, image), workers, progress)
    return [job.path for job in jobs]


@dataclass(frozen=True)
class _Job:
    path: Path
    make: CorruptImage


class _Source:
    """The clean rows, as Arrow tables with images that are not decoded."""

    def __init__(self, dataset: Dataset, image_column: str) -> None:
        plain = copy.copy(dataset)
        plain.reset_format()
        features = plain.features.copy()
        features[image_column] = ImageFeature()
        self.schema = features.arrow_schema
        self.image_column = image_column
        self.rows = plain.cast_column(image_column, ImageFeature(decode=False)).with_format("arrow")

    def images(self, start: int) -> list[dict[str, Any]]:
        return self.rows[start : start + ROWS_AT_ONCE][self.image_column].to_pylist()

    def with_images(self, start: int, images: list[bytes]) -> pa.Table:
        """Rows from `start` on with these images in place of the clean ones."""
        table = self.rows[start : start + ROWS_AT_ONCE]
        position = self.schema.get_field_index(self.image_column)
        field = self.schema.field(position)
        entries = pa.array([{"bytes": image, "path": None} for image in images], type=field.type)
        return table.set_column(position, field, entries).cast(self.schema)


def _write(jobs: Sequence[_Job], source: _Source, workers: int, progress: bool) -> None:
    open_jobs = [job for job in jobs if not _is_finished(job.path, len(source.rows))]
    starts = range(0, len(source.rows), ROWS_AT_ONCE)
    pieces = [(job.make, start) for job in open_jobs for start in starts]
    done = (len(jobs) - len(open_jobs)) * len(source.rows)
    with (
        tqdm(total=len(jobs) * len(source.rows), initial=done, unit=" images", disable=not progress) as bar,
        _workers(source, min(workers, max(1, len(pieces)))) as compute,
    ):
        made = iter(compute(pieces))
        for job in open_jobs:
            bar.set_description(f"{job.make.corruption} {job.make.severity}")
            _write_file(job.path, source, starts, made, bar.update)


def _is_finished(path: Path, rows: int) -> bool:
    if not path.is_file():
        return False
    found = pq.read_metadata(path).num_rows
    if found != rows:
        raise ValueError(f"{path} has {found} rows and should have {rows}: delete it, and run again.")
    return True


def _write_file(
    path: Path, source: _Source, starts: Iterable[int], made: Iterator[list[bytes]], report: Callable[[int], Any]
) -> None:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # overwritten when its turn comes again
    with part.open("wb") as file:
        with pq.ParquetWriter(file, source.schema) as parquet:
            for start in starts:
                images = next(made)
                parquet.write_table(source.with_images(start, images))
                report(len(images))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Refuses a second process that writes to the folder. The lock goes with the process, however it ends."""
    with (folder / FILE_NAME).open("r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError(f"Another run is writing to {folder}: wait for it, or stop it.") from error
        yield


_Piece = tuple[CorruptImage, int]
_clean: _Source | None = None  # of a worker process; what `_compute` reads


@contextmanager
def _workers(source: _Source, count: int) -> Iterator[Callable[[Iterable[_Piece]], Iterable[list[bytes]]]]:
    """A map over pieces, in order, on so many processes."""
    if count == 1:
        yield lambda pieces: (_corrupt_piece(source, *piece) for piece in pieces)
        return
    with ProcessPoolExecutor(count, initializer=_start_worker, initargs=(source, os.getpid())) as pool:
        try:
            yield lambda pieces: pool.map(_compute, pieces)
        except BrokenProcessPool as error:
            raise OSError(
                "A worker process was killed, perhaps for lack of memory: use fewer workers. The finished files are kept."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(source: _Source, parent: int) -> None:
    global _clean
    _clean = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops the workers
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """A parent that was killed cannot stop its workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _compute(piece: _Piece) -> list[bytes]:
    if _clean is None:
        raise RuntimeError("this process is not a worker of write_corrupted")
    return _corrupt_piece(_clean, *piece)


def _corrupt_piece(source: _Source, make: CorruptImage, start: int) -> list[bytes]:
    return [_png(make(entry, row)) for row, entry in enumerate(source.images(start), start)]


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # three times as fast as the default, a tenth larger
    return file.getvalue()
