"""The published split lists: where they are, how to know them, and what is said of one that is not it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_builders.sources.class_table import ClassTable
from dataset_builders.sources.download import download
from dataset_builders.sources.split_lists import SplitList, read_split_list

SHOWN = 5  # classes and images in a message


@dataclass(frozen=True)
class PublishedList:
    """One list of a data set.

    Args:
        files: names it goes by; looked for with and without `.gz`. The first is the name it is kept under.
        counts: images per class. Length C.
        addresses: where the first of `files` can be fetched, most trusted first.
        digest: of what the addresses give, as "sha256:..." (or md5, where its publisher states nothing else).
        sha256: of the text of the list in the form `path label`; None where it is not known.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    addresses: tuple[str, ...]
    digest: str
    sha256: str | None = None

    def find(self, folders: Sequence[Path]) -> Path | None:
        """The list in the first of the folders that has it."""
        names = [name + ending for name in self.files for ending in ("", ".gz")]
        return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def obtain(
    split: str, published: PublishedList, lists: str | Path | None, data_dir: Path | None, cache: Path
) -> SplitList:
    """The list given by path; otherwise that beside the images, in the cache, or at its public address.

    Args:
        lists: a folder of lists; None: none was given.
        cache: where a downloaded list is kept.

    Raises:
        FileNotFoundError: it is nowhere, and cannot be fetched.
    """
    if lists is not None:
        found = published.find([Path(lists)])
        if found is None:
            raise FileNotFoundError(f"lists={lists} holds no list of {split}: {' or '.join(published.files)}.")
        return read_split_list(found)
    kept = cache / "lists"
    found = published.find([*([data_dir] if data_dir else []), kept])
    return read_split_list(found or download(kept / published.files[0], published.addresses, published.digest))


def check_published(listed: SplitList, published: PublishedList, table: ClassTable) -> None:
    """Refuse a list that is not the published one.

    Raises:
        ValueError: which classes have how many images instead of how many.
    """
    way_out = "Take the published list, or pass own_lists=True if this one is meant."
    wrong = counts_differ(listed, published.counts, table)
    if wrong:
        raise ValueError(f"{listed.origin} is not the published list: {wrong}. {way_out}")
    if published.sha256 and ".json" not in listed.origin and listed.sha256 != published.sha256:
        raise ValueError(
            f"{listed.origin} has as many images of every class as the published list, but they are others or in another "
            f"order: SHA-256 {listed.sha256}, published {published.sha256}. {way_out}"
        )


def counts_differ(listed: SplitList, expected: Sequence[int], table: ClassTable) -> str:
    """What is wrong with the class counts, in words; an empty text: nothing."""
    outside = listed.labels[(listed.labels < 0) | (listed.labels >= len(expected))]
    if outside.size:
        return f"label {outside[0]} is outside 0 to {len(expected) - 1}"
    counts = listed.counts(len(expected))
    wrong = np.flatnonzero(counts != np.asarray(expected))
    if not wrong.size:
        return ""
    shown = ", ".join(f"{table.called(c)} has {counts[c]} and not {expected[c]}" for c in wrong[:SHOWN])
    more = f", and so on ({wrong.size} classes)" if wrong.size > SHOWN else ""
    return f"it names {counts.sum():,} images and not {sum(expected):,}; {shown}{more}"


def table_of_own_lists(lists: Mapping[str, SplitList], known: ClassTable) -> ClassTable:
    """The classes of somebody's own lists: labels 0 to C-1, each in one folder; counts of the training list.

    Raises:
        ValueError: a label without an image, a label with two folders, or a folder with two labels.
    """
    key_of: dict[int, str] = {}
    for listed in lists.values():
        for path, label in zip(listed.paths, listed.labels.tolist()):
            key = class_folder(path)
            if key_of.setdefault(label, key) != key:
                raise ValueError(f"{listed.origin} gives label {label} to {key_of[label]} and to {key}.")
    skipped = next((label for label in range(len(key_of)) if not key_of.get(label)), None)
    if skipped is not None:  # seen before a table of all labels is made: the largest may be 1e9
        raise ValueError(f"The labels of the lists skip {skipped}: number the classes from 0 without gaps.")
    keys = tuple(key_of[label] for label in range(len(key_of)))
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"The lists give {twice} several labels.")
    name_of = dict(zip(known.keys, known.names))
    train = lists.get("train")
    counts = train.counts(len(keys)) if train is not None else np.zeros(len(keys), dtype=np.int64)
    return ClassTable(keys, tuple(name_of.get(key, key) for key in keys), tuple(counts.tolist()))


def class_folder(path: str) -> str:
    """train/n01440764/x.JPEG lies in n01440764."""
    return path.split("/")[-2] if "/" in path else ""
