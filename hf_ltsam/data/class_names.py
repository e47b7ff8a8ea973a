"""Names of classes: of a data set, of a model, of Parquet files; and whether two lists contradict each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.labels import LABEL_NAMES, is_arrow_dataset, training_label_column

Names = tuple[str, ...]


def names_of_model(id2label: Mapping[Any, str] | None) -> Names | None:
    """The names by class; None where they are transformers' defaults (LABEL_0, ...) or not of 0 to C-1."""
    named = {int(c): str(name) for c, name in (id2label or {}).items()}
    defaults = tuple(f"LABEL_{c}" for c in range(len(named)))
    names = tuple(named.get(c, default) for c, default in enumerate(defaults))
    return None if names == defaults else names


def names_of_dataset(dataset: Any, label_name: str = "labels") -> Names | None:
    """The names of the labels that a data set states: those of its `ClassLabel`, or torchvision's `classes`.

    Returns:
        None where it names none, or has a `target_transform`.

    Raises:
        ValueError: parts of a `ConcatDataset` that contradict each other.
    """
    if isinstance(dataset, Subset | KeyedRandomness):
        return names_of_dataset(dataset.dataset, label_name)
    if isinstance(dataset, ConcatDataset):
        return _names_of_parts([names_of_dataset(part, label_name) for part in dataset.datasets])
    if is_arrow_dataset(dataset):
        column = training_label_column(dataset, (label_name, *LABEL_NAMES))
        names = () if column is None else getattr(dataset.features[column], "names", None) or ()
        return tuple(names) or None
    classes = getattr(dataset, "classes", None)
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        return None
    return None if getattr(dataset, "target_transform", None) is not None else tuple(classes) or None


def contradiction(first: Sequence[str], second: Sequence[str]) -> int | None:
    """The first class of `second` whose name is another class in `first`; None: no name stands for two classes.

    Names are compared without regard to case, and an underscore or hyphen is a space.
    """
    spelling = comparable(first, second)
    if spelling is None or tuple(first) == tuple(second):
        return None
    number = {spelling(name): c for c, name in enumerate(first)}
    return next((c for c, name in enumerate(second) if number.get(spelling(name), c) != c), None)


def names_alike(names: Sequence[str]) -> str | None:
    """A warning of classes that are probably one, written in several ways; None where there are none."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_loosely(name), []).append(repr(name))
    alike = [" and ".join(written) for written in spellings.values() if len(written) > 1]
    if not alike:
        return None
    shown = "; ".join(alike[:3]) + ("; ..." if len(alike) > 3 else "")
    return (
        f"Classes whose names differ in case, blanks, hyphens or underscores alone: {shown}. Each is a class of its "
        "own; where one is meant, give all its samples the same name."
    )


def _loosely(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def compare_names(first: Sequence[str], second: Sequence[str], whose: tuple[str, str], way_out: str) -> str | None:
    """Refuse two lists of names that number the same classes differently.

    Args:
        whose: names of the two lists in a message, such as "the model's id2label".
        way_out: the last sentence of a refusal.

    Returns:
        A warning where they name no class alike, else None.

    Raises:
        ValueError: with the first difference.
    """
    c = contradiction(first, second)
    if c is not None:
        raise ValueError(
            f"{_difference(c, first, second, whose)} Labels of one would count as other classes in the other. {way_out}"
        )
    spelling = comparable(first, second)
    shared = spelling is None or set(map(spelling, first)) & set(map(spelling, second))
    if shared or are_numbers(first) or are_numbers(second):
        return None
    return (
        f"{whose[0]} ({some(first)}) and {whose[1]} ({some(second)}) share no class name: classes are taken by number."
    )


def comparable(
    first: Sequence[str], second: Sequence[str], keys: Mapping[str, str] | None = None
) -> Callable[[str], str] | None:
    """A spelling that does not tell apart what people write for one class, unless that mixes up two classes.

    Args:
        keys: class name -> what it is called elsewhere.

    Returns:
        None where one list has a name twice.
    """

    def plain(name: str) -> str:
        return (keys or {}).get(name, name)

    def loose(name: str) -> str:
        return _loosely(plain(name))

    for spelling in (loose, plain):
        if all(len(set(map(spelling, names))) == len(names) for names in (first, second)):
            return spelling
    return None


def check_parquet_names(files: Iterable[str | Path]) -> None:
    """Refuse Parquet files with other class names in the same column: `datasets` takes those of the first for all.

    Raises:
        ValueError: the two files and their first difference.
    """
    first: dict[str, tuple[str | Path, Names]] = {}
    for file in files:
        for column, names in _class_labels_in(file).items():
            earlier, before = first.setdefault(column, (file, names))
            c = contradiction(before, names)
            if c is not None:
                difference = _difference(c, before, names, (earlier, file), f" of the column {column!r}")
                raise ValueError(f"{difference} Write both files with the names in one order.")


def _difference(c: int, first: Sequence[str], second: Sequence[str], whose: Sequence[object], where: str = "") -> str:
    there = repr(first[c]) if c < len(first) else "no class"
    return (
        f"Class names contradict each other: class {c}{where} is {there} in {whose[0]} and {second[c]!r} in {whose[1]}."
    )


def some(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


def _class_labels_in(file: str | Path) -> dict[str, Names]:
    """{column: names} that `datasets` wrote beside the schema of a Parquet file."""
    import pyarrow.parquet

    written = (pyarrow.parquet.read_schema(file).metadata or {}).get(b"huggingface")
    features = json.loads(written).get("info", {}).get("features", {}) if written else {}
    return {
        column: tuple(feature["names"])
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _names_of_parts(parts: Sequence[Names | None]) -> Names | None:
    named = [(place, names) for place, names in enumerate(parts) if names is not None]
    for place, names in named[1:]:
        whose = (f"part {named[0][0]} of the ConcatDataset", f"part {place}")
        compare_names(named[0][1], names, whose, "Give all parts the same ClassLabel.")
    return max((names for _, names in named), key=len, default=None)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether classes are called 0, 1, ..., which may stand for any names."""
    return tuple(names) == tuple(map(str, range(len(names))))
