"""People's own images: a folder per class, as torchvision's `ImageFolder` takes them."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, NamedSplit
from datasets import Image as ImageFeature
from datasets.data_files import SPLIT_KEYWORDS
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from PIL import Image

from dataset_builders.long_tail import hold_out_per_class
from hf_ltsam.data.pixel_values import MODERN

# "training" -> "train", "val" -> "validation" and so on, without regard to case, as `datasets` reads them
SPLIT_FOLDERS = {keyword: str(split) for split, keywords in SPLIT_KEYWORDS.items() for keyword in keywords}
_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin"}
_NOTES = {".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".log", ".py", ".ini"}
_TABLES = {".csv", ".tsv", ".json", ".jsonl"}
_STUBS = {".h5", ".hdf"}  # which PIL knows by name and cannot read


def load_image_folder(
    path: str | Path, held_out_per_class: int | None = None, seed: int = 0, only_known_classes: bool = False
) -> DatasetDict:
    """Images in class folders, as the columns `image` and `label` (a `ClassLabel` with the folders' names, sorted).

    Images in folders below a class folder belong to that class. Hidden and system files are left out; a warning counts
    other files that are left out. Images are not decoded here; a corrupt one is named when it is, or by
    `unreadable_images`.

    Args:
        path: either holds class folders, or `train` and, if there are any, `validation` (or `val`) and `test`, with
            class folders in each; also `Train`, `training`, `valid` and the other words of `datasets`.
        held_out_per_class: where there is neither validation nor test: so many images of every class, at most half
            of them, are drawn from the training images and become "validation"; 0: there is no held-out split.
        seed: of that draw.
        only_known_classes: leave out images of other splits whose class has no training image, in place of a refusal.

    Returns:
        "train" and, as they are there, "validation" and "test".

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders, a class folder without an image, held-out classes that have no training images,
            or no held-out images at all where none were asked for.
    """
    root = Path(path)
    folders = split_folders(root)
    if "train" not in folders:
        raise ValueError(f"{root} has no train folder beside {' and '.join(f.name for f in folders.values())}.")
    classes = {split: _class_folders(folder) for split, folder in folders.items()}
    if only_known_classes:
        known = set(classes["train"])
        classes = {split: {n: found for n, found in named.items() if n in known} for split, named in classes.items()}
    _check_classes(folders, classes)
    _check_held_out(root, folders, held_out_per_class)
    names = list(classes["train"])
    splits = DatasetDict({split: _read(folder, classes[split], names, split) for split, folder in folders.items()})
    return hold_out_per_class(splits["train"], held_out_per_class, seed) if held_out_per_class else splits


def load_class_folders(folder: str | Path, beside: str | Path | None = None) -> Dataset:
    """The images of one folder of class folders, the test images of a set, say. Columns as of `load_image_folder`.

    Args:
        beside: the folder of the training split, whose classes have numbers too.

    Raises:
        ValueError: no class folders, or one without an image.
    """
    classes = _class_folders(Path(folder))
    if not classes:
        raise ValueError(f"{folder} holds no class folders.")
    others = [] if beside is None else [entry.name for entry in Path(beside).iterdir() if _is_class_folder(entry)]
    return _read(Path(folder), classes, sorted({*classes, *others}), "test")


def split_folders(root: Path) -> dict[str, Path]:
    """{split: folder} of "train", "validation", "test"; a folder without such is the training split itself.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: two folders of one split.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    folders: dict[str, Path] = {}
    for folder in sorted(filter(_is_split, root.iterdir())):
        split = SPLIT_FOLDERS[folder.name.lower()]
        if split in folders:
            raise ValueError(f"{root} has both {folders[split].name} and {folder.name}: keep one of them.")
        folders[split] = folder
    if folders:
        _tell_of_strangers(root, list(folders.values()))
    return {split: folders[split] for split in ("train", "validation", "test") if split in folders} or {"train": root}


def _splits_in(folder: Path) -> list[str]:
    return [entry.name for entry in sorted(folder.iterdir()) if _is_split(entry)]


def _elsewhere(folder: Path) -> str:
    """Where the images seem to be if not in class folders of this one; or empty."""
    inner = [entry for entry in sorted(folder.iterdir()) if _is_class_folder(entry)]
    if len(inner) == 1 and sum(map(_is_class_folder, inner[0].iterdir())) > 1:
        return f" {inner[0]} has {len(list(filter(_is_class_folder, inner[0].iterdir())))} folders: name that one."
    if any(map(is_image, folder.iterdir())):
        return " Its own images are in no class folder: name the folder above a class, or sort them into class folders."
    tables = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _TABLES)
    return f" {tables[0]} is a table: load_tables reads it." if tables else ""


def _is_split(folder: Path) -> bool:
    """A folder of class folders under the name of a split; with images of its own alone it is a class of that name."""
    if folder.name.lower() not in SPLIT_FOLDERS or not folder.is_dir():
        return False
    return any(map(_is_class_folder, folder.iterdir())) or not any(map(is_image, folder.iterdir()))


def _tell_of_strangers(root: Path, splits: Sequence[Path]) -> None:
    others = [folder for folder in sorted(root.iterdir()) if folder not in splits and _is_class_folder(folder)]
    strangers = [folder.name for folder in others if _Contents.of(folder).images]
    if strangers:
        warnings.warn(
            f"{root}: images in {', '.join(strangers)} are no part of a split and are not read.", stacklevel=4
        )


def _class_folders(folder: Path) -> dict[str, _Contents]:
    """What is in the class folders, by their names, sorted."""
    classes = sorted(entry.name for entry in folder.iterdir() if _is_class_folder(entry))
    contents = {name: _Contents.of(folder / name) for name in classes}
    empty = {name: found.in_words() for name, found in contents.items() if not found.images}
    if empty:
        named = ", ".join(f"{name} ({words})" if words else name for name, words in empty.items())
        raise ValueError(
            f"{named} in {folder} {'has' if len(empty) == 1 else 'have'} no image inside: remove empty class folders, and "
            "convert images of other formats to PNG or JPEG."
        )
    return contents


def _is_class_folder(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and folder.name.lower() not in _SYSTEM


@dataclass
class _Contents:
    """Of a class folder.

    Args:
        images: paths, sorted.
        deeper: how many of them lie in folders below it.
        others: suffixes of files that are neither images nor notes, and how often they occur.
        broken: links that lead nowhere.
    """

    images: list[str] = field(default_factory=list)
    deeper: int = 0
    others: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> _Contents:
        contents, suffixes = cls(), image_suffixes()
        for depth, entry in _files_in(folder.absolute()):
            suffix = Path(entry.name).suffix
            if entry.is_symlink() and not Path(entry.path).exists():
                contents.broken.append(entry.path)
            elif suffix.lower() in suffixes:
                contents.images.append(entry.path)
                contents.deeper += depth > 0
            elif suffix.lower() not in _NOTES:
                contents.others[suffix or "no suffix"] += 1
        contents.images.sort()
        return contents

    def in_words(self) -> str:
        """What is left out, or empty."""
        suffixes = ", ".join(f"{suffix}: {number}" for suffix, number in self.others.most_common())
        parts = [f"{self.others.total()} files that are no images by their suffix ({suffixes})"] if suffixes else []
        parts += [f"{len(self.broken)} broken links, the first {self.broken[0]}"] if self.broken else []
        return " and ".join(parts)


def _files_in(folder: str | Path, above: tuple[str, ...] = ()) -> Iterator[tuple[int, os.DirEntry[str]]]:
    """Depth and files of a folder and of those below it, through links too, but none hidden or of the system."""
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder above
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
                continue
            if entry.is_dir():
                yield from _files_in(entry.path, (*above, real))
            else:
                yield len(above), entry


def is_image(file: Path) -> bool:
    """Whether a file is an image by its suffix, and not hidden."""
    return file.suffix.lower() in image_suffixes() and not file.name.startswith(".") and file.is_file()


def image_suffixes() -> set[str]:
    """Of the images that `datasets` takes, and of those that PIL can open here, by plugins too."""
    Image.init()  # all of PIL's formats
    opened = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return ({*ImageFolder.EXTENSIONS} | opened | MODERN) - _STUBS


def _read(folder: Path, contents: dict[str, _Contents], names: list[str], split: str) -> Dataset:
    _tell_what_is_left_out(folder, contents)
    images = [place for found in contents.values() for place in found.images]
    check_file_names(images)
    labels = np.repeat([names.index(name) for name in contents], [len(found.images) for found in contents.values()])
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": images, "label": labels}, features=features, split=NamedSplit(split))


def check_file_names(files: Sequence[str]) -> None:
    """Refuse names that no text can hold, of archives from other systems for example.

    Raises:
        ValueError: the first file or folder whose name is no UTF-8.
    """
    for file in files:
        try:
            file.encode()
        except UnicodeEncodeError:
            parts = (*reversed(Path(file).parents), Path(file))
            bad = next(str(part) for part in parts if any("\ud800" <= letter <= "\udfff" for letter in str(part)))
            raise ValueError(
                f"The name of {os.fsencode(bad)!r} is no UTF-8: rename it (`convmv` does it for whole folders)."
            ) from None


def _tell_what_is_left_out(folder: Path, contents: dict[str, _Contents]) -> None:
    """One line for each kind of fault."""
    everything = _Contents()
    for found in contents.values():
        everything.others.update(found.others)
        everything.broken += found.broken
    loose = sum(map(is_image, folder.iterdir()))
    left_out = [everything.in_words(), f"{loose} images in no class folder" if loose else ""]
    if any(left_out):
        warnings.warn(f"{folder}: left out {' and '.join(filter(None, left_out))}.", stacklevel=4)
    deeper = {name: found.deeper for name, found in contents.items() if found.deeper}
    if deeper:
        shown = ", ".join(f"{number} of {name}" for name, number in list(deeper.items())[:5])
        shown += f" and so on ({len(deeper)} classes)" if len(deeper) > 5 else ""
        warnings.warn(
            f"{folder}: images in folders below a class folder belong to that class ({shown}). Are those folders classes "
            "themselves? Then move them up.",
            stacklevel=4,
        )


def _check_classes(folders: dict[str, Path], classes: dict[str, dict[str, _Contents]]) -> None:
    train = set(classes["train"])
    if len(train) < 2:
        place = folders["train"]
        raise ValueError(f"{place} needs at least 2 class folders with images, it has {len(train)}.{_elsewhere(place)}")
    for split, names in classes.items():
        unknown, missing = sorted(set(names) - train), sorted(train - set(names))
        if unknown:
            raise ValueError(
                f"{folders[split]} has classes with no training images: {', '.join(unknown)}. Class folders have the same "
                f"names in {folders['train'].name} and {folders[split].name}; only_known_classes=True leaves them out."
            )
        if missing:
            warnings.warn(f"{', '.join(missing)}: no image in {split}, so no accuracy there.", stacklevel=3)


def _check_held_out(root: Path, folders: dict[str, Path], held_out_per_class: int | None) -> None:
    if held_out_per_class is not None and held_out_per_class < 0:
        raise ValueError(f"held_out_per_class must be non-negative, got {held_out_per_class}.")
    splits = list(folders)
    if splits == ["train"] and held_out_per_class is None:
        if root.name.lower() in SPLIT_FOLDERS and len(_splits_in(root.parent)) > 1:
            raise ValueError(
                f"{root} is one of the splits {' and '.join(_splits_in(root.parent))} of {root.parent}: name that folder."
            )
        is_flat = folders["train"] == root
        sort = "Sort them into train/<class>/ and" if is_flat else f"Move some of {folders['train'].name}/<class>/ into"
        raise ValueError(
            f"{root} has no held-out images, so nothing could be measured. {sort} test/<class>/, or pass "
            "held_out_per_class=K to set K images of every class, at most half of them, aside (0: train without)."
        )
    if splits != ["train"] and held_out_per_class:
        raise ValueError(f"held_out_per_class={held_out_per_class}, but {root} has {' and '.join(splits[1:])} already.")
