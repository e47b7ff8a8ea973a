"""A -C set on the disk: one Parquet file per corruption and severity."""

from __future__ import annotations

import fcntl
import itertools
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from tqdm.auto import tqdm

from dataset_builders.corruptions.apply import check_settings
from dataset_builders.corruptions.manifest import FILE_NAME, Manifest
from dataset_builders.corruptions.parameters import CORRUPTIONS, SEVERITIES
from dataset_builders.corruptions.source import CleanRows
from dataset_builders.corruptions.transform import CorruptImage
from dataset_builders.corruptions.workers import workers as worker_processes
from hf_ltsam.data.decoding import image_column_of
from hf_ltsam.hyperparameters import COUNT, require


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
    for corruption, severity in itertools.product(corruptions, severities):
        check_settings(corruption, severity, scale)
    require(COUNT, "write_corrupted", workers=1 if workers is None else workers)
    if not isinstance(dataset, Dataset) or not len(dataset):
        raise ValueError(
            f"write_corrupted(dataset=...) must be a datasets.Dataset, one split, with rows; got a {type(dataset).__name__}."
        )
    clean = CleanRows(dataset, image_column_of(dataset, image_column))
    folder, seed = Path(folder), operator.index(seed)
    jobs = [
        _Job(folder / corruption / f"{severity}.parquet", CorruptImage(corruption, severity, seed, size, scale))
        for corruption in dict.fromkeys(corruptions)
        for severity in dict.fromkeys(severities)
    ]
    Manifest(clean.fingerprint(progress), len(clean), seed, size, scale, clean.image_column).claim(folder)
    with _only_writer(folder):
        _write(jobs, clean, workers or os.cpu_count() or 1, progress)
    return [job.path for job in jobs]


@dataclass(frozen=True)
class _Job:
    path: Path
    make: CorruptImage


def _write(jobs: Sequence[_Job], clean: CleanRows, processes: int, progress: bool) -> None:
    open_jobs = [job for job in jobs if not _is_finished(job.path, len(clean))]
    pieces = [(job.make, start) for job in open_jobs for start in clean.starts]
    done = (len(jobs) - len(open_jobs)) * len(clean)
    with (
        tqdm(total=len(jobs) * len(clean), initial=done, unit=" images", disable=not progress) as bar,
        worker_processes(clean, max(1, min(processes, len(pieces)))) as compute,
    ):
        made = iter(compute(pieces))
        for job in open_jobs:
            bar.set_description(f"{job.make.corruption} {job.make.severity}")
            _write_file(job.path, clean, made, bar.update)


def _is_finished(path: Path, rows: int) -> bool:
    if not path.is_file():
        return False
    try:
        found = pq.read_metadata(path).num_rows
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and run again.") from error
    if found != rows:
        raise ValueError(f"{path} has {found} rows and should have {rows}: delete it, and run again.")
    return True


def _write_file(path: Path, clean: CleanRows, made: Iterator[list[bytes]], report: Callable[[int], object]) -> None:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # overwritten when its turn comes again
    with part.open("wb") as file:
        with pq.ParquetWriter(file, clean.schema) as parquet:
            for start in clean.starts:
                images = next(made)
                parquet.write_table(clean.with_images(start, images))
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
