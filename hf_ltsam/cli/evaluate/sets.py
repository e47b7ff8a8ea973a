"""Test sets by name: the published ones, folders, data sets on the Hub, and the corruptions of any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from datasets import Dataset, load_dataset

from dataset_builders import load_shifted
from dataset_builders.catalogue import SETS, evaluation_sets
from dataset_builders.corruptions.manifest import FILE_NAME as MANIFEST
from dataset_builders.corruptions.manifest import read_manifest
from dataset_builders.corruptions.reader import load_corrupted
from dataset_builders.folders import load_class_folders, split_folders
from dataset_builders.hub import load_from_hub, stated_as
from dataset_builders.tables import describe_images, is_table, load_tables, table_files
from hf_ltsam.data.class_names import check_parquet_names
from hf_ltsam.data.decoding import with_images
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.record import split_revision

T = TypeVar("T")
SUFFIX = "_c"  # of a name: the corruptions of what stands before it
DIGITS = "digits"
TESTED = ("test", "validation", "train")  # the first of these splits that there is


@dataclass(frozen=True)
class TestSet:
    """A test set that is not loaded yet.

    Args:
        name: as it was asked for.
        source: where its images are: a folder, or a name on the Hub.
        load: () -> its images, or for stored corruptions (corruption, severity) -> those images.
        corruptions: "" (none: one set of images), "stored", or "made" (on the fly, of the images that `load` gives).
        cropped: whether the images come at the size that a model sees, as ImageNet-C's 224 x 224: centre crop only.
        published: its images as they are published, of stored corruptions those of each; None: that is not known.
    """

    __test__ = False  # for pytest, which takes the name for a test

    name: str
    source: str
    load: Callable[..., Dataset]
    corruptions: str = ""
    cropped: bool = False
    published: int | None = None


@dataclass(frozen=True)
class Places:
    """Where a user's copies are.

    Args:
        folders: name of a set -> its folder.
        above: holds the other sets in folders of their names; None: there is no such folder.
        complete: refuse a copy that lacks images.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    above: Path | None = None
    complete: bool = True

    @classmethod
    def of(cls, data_dir: Sequence[str], complete: bool = True) -> Places:
        """From words that read NAME=FOLDER or FOLDER.

        Raises:
            ValueError: two folders for the same.
            FileNotFoundError: a folder that is not there.
        """
        folders: dict[str, Path] = {}
        for word in data_dir:
            name, _, folder = word.rpartition("=")
            if name in folders:
                raise ValueError(
                    f"--data_dir names two folders{f' of {name}' if name else ''}: {folders[name]}, {folder}."
                )
            if not Path(folder).is_dir():
                raise FileNotFoundError(f"--data_dir {word}: there is no folder {folder}.")
            folders[name] = Path(folder).resolve()
        above = folders.pop("", None)
        return cls(folders, above, complete)

    def get(self, name: str) -> Path | None:
        """The folder of a set; None where nobody stated one."""
        below = self.above / name if self.above else None
        return self.folders.get(name, below if below and below.is_dir() else None)

    def required(self, name: str) -> Path:
        """The folder of a set.

        Raises:
            FileNotFoundError: there is none.
        """
        folder = self.get(name)
        if folder is None:
            looked = f" There is no {self.above / name}." if self.above else ""
            raise FileNotFoundError(
                f"--sets {name} needs the folder of your copy: --data_dir {name}=FOLDER, or --data_dir FOLDER with "
                f"{name} in it.{looked}"
            )
        return folder


def find_sets(names: Sequence[str], places: Places, splits: Sequence[str] = TESTED) -> list[TestSet]:
    """The test sets of these names; whether their folders are there is seen now, images are not loaded.

    Args:
        names: of `set_names`, a folder, or OWNER/NAME on the Hub, OWNER/NAME@REVISION for a branch, tag or commit; each also
            with `_c` behind it, for its corruptions.
        splits: of folders, tables and the Hub: the first of them that there is. On the Hub "train" has to stand alone.

    Raises:
        ValueError: an unknown name, with the nearest ones, or a set named twice.
        FileNotFoundError: a folder that is not there, and what should be.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"--sets names {next(n for n in names if names.count(n) > 1)} twice.")
    unused = set(places.folders) - {name.partition(":")[0] for name in names} - {n.removesuffix(SUFFIX) for n in names}
    if unused:
        raise ValueError(f"--data_dir {min(unused)}=...: no such set is asked for.{nearest(min(unused), names)}")
    return [_find(name, places, splits) for name in names]


def set_names() -> list[str]:
    """The names of the sets: those of the catalogue, and the digits of the demo."""
    return [*evaluation_sets(), DIGITS]


def known_names() -> list[str]:
    """All names that stand for a set, those of corruptions among them."""
    stored = {name for name, published in SETS.items() if published.stored_corruptions}
    return [*set_names(), *(name + SUFFIX for name in set_names() if name not in stored)]


def _find(name: str, places: Places, splits: Sequence[str]) -> TestSet:
    if name in set_names():
        return _named(name, places)
    if Path(name).is_dir():
        return _folder(name, splits)
    if is_table(name) and Path(name).is_file():
        return TestSet(name, str(Path(name).resolve()), cache(partial(_load_table, Path(name), splits)))
    base = name.removesuffix(SUFFIX)
    if base != name and (base in set_names() or "/" in base or Path(base).is_dir()):
        clean = _find(base, places, splits)
        if clean.corruptions:
            raise ValueError(f"--sets {name}: {base} holds corrupted images already.")
        return replace(clean, name=name, corruptions="made")
    if split_revision(name)[0].count("/") == 1 and not name.startswith((".", "/", "~")):
        return TestSet(name, name, cache(partial(_load_from_hub, name, splits)))
    if "/" in name:
        raise FileNotFoundError(
            f"--sets {name}: there is no such folder, and names on the Hub have the form OWNER/NAME or OWNER/NAME@REVISION."
        )
    raise ValueError(
        f"--sets {name} does not exist.{nearest(name, known_names())} Or a folder, or OWNER/NAME on the Hub."
    )


def _named(name: str, places: Places) -> TestSet:
    if name == DIGITS:
        return TestSet(name, "scikit-learn", cache(_load_digits))
    registered, variant = evaluation_sets()[name]
    published, key = SETS[registered], name.partition(":")[0]
    folder = places.required(key) if published.hub is None else places.get(key)
    load = partial(_load_published, registered, folder, variant, places.complete)
    if published.stored_corruptions:
        return TestSet(name, str(folder), load, corruptions="stored", cropped=True, published=published.images)
    return TestSet(name, str(folder or published.hub), cache(load), published=published.images)


def _folder(name: str, splits: Sequence[str]) -> TestSet:
    """Images, or a -C set that `ltsam corrupt` wrote."""
    folder = Path(name).resolve()
    if (folder / MANIFEST).is_file():
        cropped = read_manifest(folder)["size"] is not None
        return TestSet(name, str(folder), partial(load_corrupted, folder), corruptions="stored", cropped=cropped)
    return TestSet(name, str(folder), cache(partial(_load_folder, folder, splits)))


def _load_published(
    name: str,
    folder: Path | None,
    variant: str | None,
    complete: bool,
    corruption: str | None = None,
    severity: int | None = None,
) -> Dataset:
    return load_shifted(name, folder, variant=variant, corruption=corruption, severity=severity, complete=complete)


def _load_digits() -> Dataset:
    """The test images of `ltsam demo`."""
    from hf_ltsam.cli.demo.data import digit_splits

    return digit_splits().test


def _load_folder(folder: Path, splits: Sequence[str]) -> Dataset:
    """A split of a folder of images, tables or Parquet files, all of it where it has no splits."""
    if (tables := table_files(folder)) and describe_images(folder, tables):
        return _first(load_tables(folder), splits, folder)
    if any(folder.rglob("*.parquet")):
        return _of_parquet(folder, splits)
    folders = split_folders(folder)
    if folders == {"train": folder}:
        return load_class_folders(folder)
    if list(folders) == ["train"] and "train" not in splits[:1]:
        raise ValueError(
            f"{folder} has no held-out images: name {folders['train']} if those of the training are meant."
        )
    return load_class_folders(_first(folders, splits, folder), folders.get("train"))


def _of_parquet(folder: Path, splits: Sequence[str]) -> Dataset:
    """By the names of the files; all of them where none is called as a split is."""
    prefixes = {"train": "train", "validation": "val", "test": "test"}
    named = {split: files for split, p in prefixes.items() if (files := sorted(folder.rglob(f"{p}*.parquet")))}
    is_split = set(named) - {"train"} or len(splits) == 1
    files = _first(named, splits, folder) if is_split else sorted(folder.rglob("*.parquet"))
    check_parquet_names(files)
    return with_images(load_dataset("parquet", data_files=[str(file) for file in files], split="train"))


def _load_table(file: Path, splits: Sequence[str]) -> Dataset:
    """All of it, unless a column names splits."""
    return with_images(_first(load_tables(file), splits, file))


def _first(there: Mapping[str, T], splits: Sequence[str], place: str | Path) -> T:
    """The first of the splits that there is.

    Raises:
        ValueError: none is there.
    """
    found = next((split for split in splits if split in there), None)
    if found is None:
        raise ValueError(f"{place} has no split {' or '.join(splits)}, only {', '.join(there)}.")
    return there[found]


def _load_from_hub(name: str, splits: Sequence[str]) -> Dataset:
    repository, revision = split_revision(name)
    with stated_as(f"--sets {name}"):
        there = load_from_hub(repository, revision=revision)
    held_out = splits if len(splits) == 1 else [split for split in splits if split != "train"]
    return with_images(_first(there, held_out, f"--sets {name}"))
