"""Where the images of a user's copy lie: in folders, or in an official tar that nobody has unpacked."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dataset_builders.sources.class_table import ClassTable
from dataset_builders.sources.split_lists import SplitList
from dataset_builders.sources.tar_index import index_of
from hf_ltsam.data.tar_members import member_address

T = TypeVar("T")
SUFFIXES = {"jpg", "jpeg", "png"}


@dataclass(frozen=True)
class Found:
    """Image files of a copy.

    Args:
        root: the folder or archive they lie in.
        places: where each lies, a path or an address in an archive; by `class/file`, or by `file` where the copy keeps
            all in one folder.
        empty: the keys of files of no bytes.
    """

    root: Path
    places: dict[str, str]
    empty: frozenset[str]

    def place_of(self, key: str) -> str | None:
        """Of `class/file`; a copy in one folder knows it by `file` alone."""
        return self.places.get(key) or self.places.get(key.rpartition("/")[2])

    def is_empty(self, key: str) -> bool:
        return key in self.empty or key.rpartition("/")[2] in self.empty


def root_of(data_dir: Path, candidates: Sequence[str]) -> Path:
    """The first of the candidates that a copy has.

    Raises:
        FileNotFoundError: no such folder, or none of them in it.
    """
    if not data_dir.is_dir():
        what = "is a file: give the folder that it lies in" if data_dir.is_file() else "does not exist"
        raise FileNotFoundError(f"{data_dir} {what}.")
    for candidate in candidates:
        if (data_dir / candidate).exists():
            return data_dir / candidate
    raise FileNotFoundError(
        f"{data_dir} holds none of {', '.join(candidates)}: give the folder in which one of them lies."
    )


def find_images(root: Path, folders: Collection[str], cache_dir: Path, progress: bool = True) -> Found:
    """List the images of class folders, without opening one.

    Args:
        root: a folder or a tar.
        folders: of the classes, relative to the root: `n01440764`, or `Plantae/7291`.
    """
    entries = _in_tar(root, cache_dir, progress) if root.is_file() else _in_folders(root, folders, progress)
    classes = {folder.rpartition("/")[2] for folder in folders}
    places: dict[str, str] = {}
    empty = set()
    for parts, place, size in entries:
        key = "/".join(parts[-2:]) if len(parts) > 1 and parts[-2] in classes else parts[-1]
        places[key] = place
        if size == 0:
            empty.add(key)
    return Found(root, places, frozenset(empty))


Entry = tuple[Sequence[str], str, int]  # parts of the name, place, size in bytes


def _in_tar(archive: Path, cache_dir: Path, progress: bool) -> Iterator[Entry]:
    for name, offset, size in index_of(archive, cache_dir, progress):
        parts = name.removeprefix("./").split("/")
        if _is_image(parts[-1]):
            yield parts, member_address(archive, name, offset, size), size


def _in_folders(root: Path, folders: Iterable[str], progress: bool) -> Iterator[Entry]:
    yield from _images_in(root)
    for folder in _with_progress(sorted(folders), root, progress):
        if (root / folder).is_dir():
            yield from _images_in(root / folder)


def _with_progress(folders: Sequence[T], root: Path, progress: bool) -> Iterable[T]:
    return tqdm(folders, desc=f"looking through {root}", unit=" folders", disable=not progress, delay=1, leave=False)


def _images_in(folder: Path) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_image(entry.name) and entry.is_file():
                yield (folder.name, entry.name), entry.path, entry.stat().st_size


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.rpartition(".")[2].lower() in SUFFIXES


def images_by_class(
    root: Path, above: Sequence[str], cache_dir: Path, progress: bool = True
) -> dict[str, list[tuple[str, int]]]:
    """{class folder: (place, size in bytes) of its images, sorted by file name}.

    Args:
        root: the folder of the class folders, or a tar.
        above: of a tar: the folders right above the class folders.
    """
    entries = _in_tar(root, cache_dir, progress) if root.is_file() else _in_tree(root, progress)
    found: dict[str, list[tuple[str, str, int]]] = {}
    for parts, place, size in entries:
        if len(parts) > 1 and (root.is_dir() or tuple(parts[-2 - len(above) : -2]) == tuple(above)):
            found.setdefault(parts[-2], []).append((parts[-1], place, size))
    return {name: [(place, size) for _, place, size in sorted(images)] for name, images in found.items()}


def _in_tree(folder: Path, progress: bool) -> Iterator[Entry]:
    """The images of all folders in a folder."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for entry in _with_progress(classes, folder, progress):
        yield from _images_in(entry)


# ---- whether a user's copy has what a list names, and what exactly it lacks ----

SHOWN = 5


def places_of(listed: SplitList, found: Found, table: ClassTable) -> list[str]:
    """Where every listed image lies (N).

    Raises:
        FileNotFoundError: how many images of which classes are missing or empty, with the first of them.
    """
    keys = ["/".join(path.split("/")[-2:]) for path in listed.paths]
    places = [found.place_of(key) for key in keys]
    absent = np.asarray([place is None for place in places])
    empty = np.asarray([found.is_empty(key) for key in keys]) & ~absent
    if absent.any() or empty.any():
        raise FileNotFoundError(_describe(listed, found, table, absent, empty))
    return [place for place in places if place is not None]


def _describe(
    listed: SplitList, found: Found, table: ClassTable, absent: NDArray[np.bool_], empty: NDArray[np.bool_]
) -> str:
    parts = []
    for verb, which in (("lacks", absent), ("has no content in", empty)):
        if which.any():
            first = [listed.paths[i] for i in np.flatnonzero(which)[:SHOWN]]
            missing = np.bincount(listed.labels[which], minlength=len(table.keys))
            parts.append(
                f"{verb} {which.sum():,} of the {len(which):,} images that {listed.origin} names: "
                f"{by_class(listed.counts(len(table.keys)), missing, table)}. The first: {', '.join(first)}"
            )
    return f"{found.root} {'; it '.join(parts)}. Complete the copy."


def by_class(expected: Sequence[int] | NDArray[np.int64], missing: NDArray[np.int64], table: ClassTable) -> str:
    """`all 50 of n01440764 (tench), 3 of 250 of n01443537 (goldfish)`; whole classes first."""
    short = np.flatnonzero(missing)
    order = sorted(short.tolist(), key=lambda c: (missing[c] < expected[c], c))
    share = ("all" if missing[c] == expected[c] else f"{missing[c]} of" for c in order[:SHOWN])
    shown = ", ".join(f"{part} {expected[c]} of {table.called(c)}" for part, c in zip(share, order))
    return shown + (f", and so on ({short.size} classes)" if short.size > SHOWN else "")
