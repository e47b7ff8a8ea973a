"""Label columns of numbers or words as columns of classes (`ClassLabel`), and classes numbered by another list of names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hf_ltsam.data.class_names import Names, comparable, some
from hf_ltsam.data.labels import arrow_column, read_label_column

if TYPE_CHECKING:
    import datasets

_NO_CLASS = "-1"  # what data sets have in place of labels that are kept back
_SHOWN = 50  # characters of a text
_TOO_FEW_ROWS = 100  # to tell classes from other values by their number
_MANY = 30  # different numbers with decimals: more than any scale of half stars has
_REGRESSION = (
    "Predicting numbers is regression, which `ltsam train` does not do: name the column of the classes, label_column=..., "
    "or train in Python, where LTSamTrainer with 'model' as its loss takes any loss that a model has."
)
_WAY_OUT = "fill them in, or leave such rows out."


def class_names_in(dataset: datasets.Dataset, column: str) -> Names:
    """The names of a `ClassLabel`, or the different values of a column: words by the alphabet, numbers by size.

    Raises:
        ValueError: missing labels, values of another kind, numbers to predict, or a column of nearly as many values as
            rows.
    """
    require_labels(dataset, column)
    names = getattr(dataset.features[column], "names", None)
    if names is not None:
        return tuple(names)
    values = _values(dataset, column)
    if not values:
        raise ValueError(f"The column {column!r} has no rows.")
    if _NO_CLASS in values:
        raise ValueError(
            f"The column {column!r} has the label {_NO_CLASS}, which stands for no class: leave such rows out."
        )
    different = set(values)
    if _are_measured(different) and (len(different) > _MANY or 2 * len(different) > len(values)):
        raise ValueError(
            f"The column {column!r} holds real numbers, {len(different)} different ones in {len(values)} rows "
            f"({some(sorted(different))}). {_REGRESSION}"
        )
    if len(values) > _TOO_FEW_ROWS and 2 * len(different) > len(values):
        raise ValueError(
            f"The column {column!r} has {len(different)} different values in {len(values)} rows "
            f"({some(sorted(different))}), which are no classes: name the column of the labels, label_column=..."
        )
    return tuple(sorted(different, key=int if all(map(_is_number, different)) else str))


def require_labels(dataset: datasets.Dataset, column: str) -> None:
    """Refuse a column with missing labels.

    Raises:
        ValueError: how many, and which is the first.
    """
    values = arrow_column(dataset, column)
    if values.null_count:
        row = values.is_null().index(True).as_py()
        name = sample_name(dataset, row, column)
        first = f"of {name}" if name else f"in row {row}"
        raise ValueError(f"The column {column!r} has {values.null_count} missing labels, the first {first}: {_WAY_OUT}")


def sample_name(dataset: datasets.Dataset, row: int, label_column: str) -> str:
    """A sample by the path of its image or the beginning of its text; empty where it has none."""
    rest = dataset.select([row]).remove_columns(label_column)
    for column in rest.column_names:
        value = arrow_column(rest, column)[0].as_py()
        if isinstance(value, dict) and value.get("path"):
            return str(value["path"])
        if isinstance(value, str) and value.strip():
            return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")
    return ""


def with_classes(dataset: datasets.Dataset, column: str, names: Sequence[str]) -> datasets.Dataset:
    """The same rows, the column being a `ClassLabel` of these names, among which its words are looked up. -1 stays.

    Raises:
        ValueError: classes that are not among the names.
    """
    from datasets import ClassLabel

    if getattr(dataset.features[column], "names", None) == list(names):
        return dataset
    words = _words(dataset, column)
    spelling = comparable(names, sorted({word for word in words if word is not None})) or str
    number = {spelling(name): c for c, name in enumerate(names)}
    unknown = unknown_classes(dataset, column, names)
    if unknown:
        raise ValueError(
            f"The column {column!r} has {len(unknown)} classes that the training set has not ({some(list(unknown))}): its "
            f"classes are {some(names)}."
        )
    labels = [-1 if word is None else number[spelling(word)] for word in words]
    plain = copy.copy(dataset)
    plain.reset_format()
    return plain.remove_columns(column).add_column(column, labels, feature=ClassLabel(names=list(names)))


def unknown_classes(dataset: datasets.Dataset, column: str, names: Sequence[str]) -> dict[str, list[int]]:
    """Class -> its rows, of the classes in a column that are not among these names."""
    words = _words(dataset, column)
    own = sorted({word for word in words if word is not None})
    spelling = comparable(names, own) or str
    known = set(map(spelling, names))
    rows: dict[str, list[int]] = {word: [] for word in own if spelling(word) not in known}
    for row, word in enumerate(words):
        if word in rows:
            rows[word].append(row)
    return rows


def _words(dataset: datasets.Dataset, column: str) -> list[str | None]:
    """The name of every row's class; None for the label -1."""
    require_labels(dataset, column)
    names = getattr(dataset.features[column], "names", None)
    if names is not None:
        return [None if label == -1 else names[label] for label in read_label_column(dataset, column).tolist()]
    return [None if value == _NO_CLASS else value for value in _values(dataset, column)]


def _values(dataset: datasets.Dataset, column: str) -> list[str]:
    """Words as they are, numbers as words: 3 and 3.0 as "3".

    Raises:
        ValueError: other values.
    """
    values: list[Any] = arrow_column(dataset, column).to_pylist()
    if {type(value) for value in values} <= {float} and all(value.is_integer() for value in values):
        values = list(map(int, values))
    if {type(value) for value in values} in (set(), {int}, {bool}, {str}):
        return list(map(str, values))
    regression = f" {_REGRESSION}" if {type(value) for value in values} == {float} else ""
    raise ValueError(
        f"The column {column!r} has values of {dataset.features[column]}: classes are names or whole numbers.{regression}"
    )


def _are_measured(words: Iterable[str]) -> bool:
    """Whether all are numbers, and some of them no whole ones."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return not all(number.is_integer() for number in numbers)


def _is_number(word: str) -> bool:
    return word.isdecimal() and str(int(word)) == word
