"""People's own images: a folder per class, through the `imagefolder` builder of `datasets`."""

from __future__ import annotations

import glob
import warnings
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from dataset_builders.long_tail import draw
from hf_ltsam.data.labels import read_label_column

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def load_image_folder(
    path: str | Path, held_out_per_class: int | None = None, seed: int = 0, cache_dir: str | Path | None = None
) -> DatasetDict:
    """Images in class folders, as the columns `image` and `label` (a `ClassLabel` with the folders' names, sorted).

    Images are not decoded here; a corrupt one is named when it is, or by `unreadable_images`.

    Args:
        path: either holds class folders, or `train` and, if there are any, `validation` (or `val`) and `test`, with
            class folders in each.
        held_out_per_class: where there is neither validation nor test: so many images of every class are drawn from
            the training images and become "validation"; 0: there is no held-out split.
        seed: of that draw.
        cache_dir: where `datasets` keeps its index; None: its usual place.

    Returns:
        "train" and, as they are there, "validation" and "test".

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders, a class folder without an image, held-out classes that have no training images,
            or no held-out images at all where none were asked for.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    folders = _split_folders(root)
    classes = {split: _class_folders(folder) for split, folder in folders.items()}
    _check_classes(folders, classes)
    _check_held_out(root, list(folders), held_out_per_class)
    files = {split: _patterns(folder, classes[split]) for split, folder in folders.items()}
    splits = load_dataset("imagefolder", data_files=files, drop_labels=False, cache_dir=cache_dir)
    if splits["train"].features["label"].names != classes["train"]:
        raise ValueError(
            f"The classes read from {folders['train']} ({splits['train'].features['label'].names}) are not its folders "
            f"({classes['train']})."
        )
    return _hold_out(splits["train"], held_out_per_class, seed) if held_out_per_class else splits


def _split_folders(root: Path) -> dict[str, Path]:
    """{split: folder}; a folder without `train` is the training split itself."""
    present = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    if "train" not in present:
        if present:
            raise ValueError(f"{root} has no train folder beside {' and '.join(present)}.")
        return {"train": root}
    if "val" in present and "validation" in present:
        raise ValueError(f"{root} has both val and validation: keep one of them.")
    return {SPLIT_FOLDERS[name]: root / name for name in present}


def _class_folders(folder: Path) -> list[str]:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    empty = [name for name in classes if not any(map(_is_image, (folder / name).iterdir()))]
    if empty:
        raise ValueError(
            f"{', '.join(empty)} in {folder} {'has' if len(empty) == 1 else 'have'} no image directly inside: "
            f"remove empty class folders, and put images one level below {folder.name}."
        )
    return classes


def _patterns(folder: Path, classes: list[str]) -> list[str]:
    """One per class, because `datasets` does not follow a class folder that is a link where a star stands for it."""
    return [f"{glob.escape(str((folder / name).absolute()))}/*" for name in classes]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in ImageFolder.EXTENSIONS and not file.name.startswith(".")


def _check_classes(folders: dict[str, Path], classes: dict[str, list[str]]) -> None:
    train = set(classes["train"])
    if len(train) < 2:
        raise ValueError(f"{folders['train']} needs at least 2 class folders with images, it has {len(train)}.")
    for split, names in classes.items():
        unknown, missing = sorted(set(names) - train), sorted(train - set(names))
        if unknown:
            raise ValueError(f"{folders[split]} has classes with no training images: {', '.join(unknown)}.")
        if missing:
            warnings.warn(f"{', '.join(missing)}: no image in {split}, so no accuracy there.", stacklevel=3)


def _check_held_out(root: Path, splits: list[str], held_out_per_class: int | None) -> None:
    if held_out_per_class is not None and held_out_per_class < 0:
        raise ValueError(f"held_out_per_class must be non-negative, got {held_out_per_class}.")
    if splits == ["train"] and held_out_per_class is None:
        raise ValueError(
            f"{root} has no held-out images, so nothing could be measured. Put them into validation/<class>/ beside "
            "train/<class>/, or pass held_out_per_class=k to set k images of every class aside (0: train without)."
        )
    if splits != ["train"] and held_out_per_class:
        raise ValueError(f"held_out_per_class={held_out_per_class}, but {root} has {' and '.join(splits[1:])} already.")


def _hold_out(dataset: Dataset, per_class: int, seed: int) -> DatasetDict:
    labels = read_label_column(dataset, "label").numpy()
    names = dataset.features["label"].names
    sizes = np.bincount(labels, minlength=len(names))
    if sizes.min() <= per_class:
        raise ValueError(
            f"{names[int(sizes.argmin())]!r} has {sizes.min()} images: held_out_per_class={per_class} would leave none "
            "for training."
        )
    held_out = np.concatenate(draw(labels, [per_class] * len(names), seed))
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    return DatasetDict(train=dataset.select(kept), validation=dataset.select(held_out))
