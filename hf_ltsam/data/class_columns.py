"""Label columns of numbers or words as columns of classes (`ClassLabel`), and classes numbered by another list of names."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.class_names import Names, comparable, some
from hf_ltsam.data.labels import read_label_column

if TYPE_CHECKING:
    import datasets


def class_names_in(dataset: datasets.Dataset, column: str) -> Names:
    """The names of a `ClassLabel`, the different words of a column in their order, or "0" to "C-1" for numbers.

    Raises:
        ValueError: numbers with so large a one that classes are empty, missing labels, or values of another kind.
    """
    names = getattr(dataset.features[column], "names", None)
    if names is not None:
        return tuple(names)
    values = _values(dataset, column)
    if isinstance(values[0], str):
        return tuple(sorted(set(values)))
    if min(values) < 0:
        raise ValueError(
            f"The column {column!r} has the label {min(values)}, which stands for no class: leave such rows out."
        )
    if min(values) > 0:
        raise ValueError(
            f"The smallest label in the column {column!r} is {min(values)}, and classes are numbered from 0: subtract "
            f"{min(values)}, or store names."
        )
    return tuple(map(str, range(ClassStatistics.from_labels(values).num_classes)))


def with_classes(dataset: datasets.Dataset, column: str, names: Sequence[str]) -> datasets.Dataset:
    """The same rows, the column being a `ClassLabel` of these names, among which its words are looked up. -1 stays.

    Raises:
        ValueError: classes that are not among the names.
    """
    from datasets import ClassLabel

    if getattr(dataset.features[column], "names", None) == list(names):
        return dataset
    words = _words(dataset, column)
    own = sorted({word for word in words if word is not None})
    spelling = comparable(names, own) or str
    number = {spelling(name): c for c, name in enumerate(names)}
    unknown = [word for word in own if spelling(word) not in number]
    if unknown:
        raise ValueError(
            f"The column {column!r} has {len(unknown)} classes that the training set has not ({some(unknown)}): its classes "
            f"are {some(names)}."
        )
    labels = [-1 if word is None else number[spelling(word)] for word in words]
    plain = copy.copy(dataset)
    plain.reset_format()
    return plain.remove_columns(column).add_column(column, labels, feature=ClassLabel(names=list(names)))


def _words(dataset: datasets.Dataset, column: str) -> list[str | None]:
    """The name of every row's class; None for the label -1."""
    names = getattr(dataset.features[column], "names", None)
    if names is not None:
        return [None if label == -1 else names[label] for label in read_label_column(dataset, column).tolist()]
    return [None if value == -1 else str(value) for value in _values(dataset, column)]


def _values(dataset: datasets.Dataset, column: str) -> list[Any]:
    """Integers or strings.

    Raises:
        ValueError: other values, or missing ones.
    """
    plain = copy.copy(dataset)
    plain.reset_format()
    values: list[Any] = plain.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    if {type(value) for value in values} in ({int}, {str}):
        return values
    missing = values.count(None)
    what = f"{missing} missing labels" if missing else f"values of {dataset.features[column]}"
    raise ValueError(f"The column {column!r} has {what}: classes are numbers from 0, or names.")
