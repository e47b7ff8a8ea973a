"""The classes of a test set as the model numbers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from datasets import Dataset
from torch import Tensor

from dataset_builders.sources.class_table import class_table
from hf_ltsam.class_statistics import check_label_range
from hf_ltsam.data.class_columns import class_names_in, with_classes
from hf_ltsam.data.class_names import comparable, some
from hf_ltsam.data.labels import LABEL_WORDS, class_label_columns, read_label_column
from hf_ltsam.hyperparameters import nearest


@dataclass(frozen=True)
class LabelMap:
    """Where the classes of a test set are among the model's.

    Args:
        model_class: of every class of the set; -1 where the model does not know it.
        note: what a reader of the results should know; empty where all is as expected.
    """

    model_class: tuple[int, ...]
    note: str = ""

    def __call__(self, labels: Tensor) -> Tensor:
        """The model's classes (N,) of labels (N,) of the set; -1 for a class it does not know."""
        return torch.tensor(self.model_class, dtype=torch.long)[labels]


def match_classes(
    model_names: Sequence[str] | None,
    num_classes: int,
    set_names: Sequence[str] | None,
    only_known: bool = False,
    keys: Mapping[str, str] | None = None,
) -> LabelMap:
    """Find the classes of a test set among the model's, by name.

    Names are compared without regard to case, and an underscore or hyphen is a space.

    Args:
        model_names: by logit; None: the model has none.
        num_classes: of the model.
        set_names: by label; None: the set has numbers alone, taken for the model's.
        only_known: leave out the set's classes that the model does not know, in place of a refusal.
        keys: class name -> what it is called elsewhere, such as ImageNet's wnids.

    Raises:
        ValueError: classes that the model does not know (how many, and the first of them), or nothing to go by.
    """
    if set_names is None:
        return LabelMap(tuple(range(num_classes)), "labels taken by number: the set names no classes")
    if model_names is None:
        if len(set_names) != num_classes:
            raise ValueError(
                f"The model has {num_classes} classes without names (LABEL_0, ...) and the set {len(set_names)}, so they "
                "cannot be matched. Set id2label in the model's config.json."
            )
        return LabelMap(tuple(range(num_classes)), "labels taken by number: the model names no classes")
    if tuple(model_names) == tuple(set_names):
        return LabelMap(tuple(range(num_classes)))
    canonical = comparable(model_names, set_names, keys)
    if canonical is None:
        twice = next(name for several in (model_names, set_names) for name in several if several.count(name) > 1)
        raise ValueError(
            f"Two classes are called {twice!r}, so classes cannot be matched by name: give them different names."
        )
    where = {canonical(name): c for c, name in enumerate(model_names)}
    model_class = tuple(where.get(canonical(name), -1) for name in set_names)
    _check_known(model_class, model_names, set_names, only_known)
    return LabelMap(model_class, _note(model_class, model_names, set_names))


def labels_of(
    dataset: Dataset, model_names: Sequence[str] | None, name: str, label_column: str | None = None
) -> tuple[Tensor, tuple[str, ...] | None]:
    """Labels (N,) and class names of a test set; of several `ClassLabel` columns, the one whose classes the model knows.

    Numbers are those of the model's classes, or their names where the model's names are numbers.

    Raises:
        ValueError: no column of labels, or several that could be meant.
    """
    if label_column is not None and label_column not in dataset.column_names:
        raise ValueError(f"{name} has no column {label_column!r}.{nearest(label_column, dataset.column_names)}")
    columns = [c for c in class_label_columns(dataset) if label_column in (None, c)]
    if len(columns) > 1 and model_names is not None:
        matching = [column for column in columns if set(dataset.features[column].names) & set(model_names)]
        columns = matching or columns
    if len(columns) > 1:
        raise ValueError(f"{name} has several columns of classes ({', '.join(columns)}): name one by --label_column.")
    names: tuple[str, ...] | None
    if columns:
        names = class_names_in(dataset, columns[0])
        labels = read_label_column(dataset, columns[0])
    else:
        named = [label_column] if label_column else []
        plain = named or [column for column in LABEL_WORDS if column in dataset.column_names]
        if not plain:
            raise ValueError(
                f"{name} has no column of labels among {', '.join(dataset.column_names)}: name it by --label_column."
            )
        are_numbers_alone = "int" in str(getattr(dataset.features[plain[0]], "dtype", ""))
        are_numbers_alone &= model_names is None or not all(map(str.isdecimal, model_names))
        names = None if are_numbers_alone else class_names_in(dataset, plain[0])
        labels = read_label_column(dataset if names is None else with_classes(dataset, plain[0], names), plain[0])
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"{name} is not labelled (it has the label -1): nothing can be measured on it.")
    return labels, names


def model_labels(labels: Tensor, mapping: LabelMap) -> tuple[Tensor, Tensor]:
    """Rows (M,) whose class the model knows, and the model's class of each (M,).

    Raises:
        ValueError: no such row, or a label outside the classes of the set.
    """
    check_label_range(labels, len(mapping.model_class))
    mapped = mapping(labels)
    rows = (mapped >= 0).nonzero()[:, 0]
    if not len(rows):
        raise ValueError("No image of the set shows a class that the model knows.")
    return rows, mapped[rows]


def are_imagenets(set_names: Sequence[str] | None, keys: Mapping[str, str]) -> bool:
    """Whether these are the 1,000 classes of ImageNet, as wnids or by name, in any order."""
    wnids = set(keys.values())
    return set_names is not None and bool(wnids) and {keys.get(name, name) for name in set_names} == wnids


@cache
def imagenet_keys() -> dict[str, str]:
    """Class name -> wnid of ImageNet."""
    table = class_table("imagenet")
    return dict(zip(table.names, table.keys))


def _check_known(
    model_class: Sequence[int], model_names: Sequence[str], set_names: Sequence[str], only_known: bool
) -> None:
    unknown = [name for name, c in zip(set_names, model_class) if c < 0]
    if not unknown or (only_known and len(unknown) < len(model_class)):
        return
    counts = f"The model has {len(model_names)} classes ({some(model_names)}), the set {len(set_names)}"
    if len(unknown) == len(model_class):
        raise ValueError(
            f"{counts} ({some(set_names)}), and no name is in both. If they are the same classes, give the model's "
            "id2label (config.json) the set's names; otherwise this model cannot be tested on this set."
        )
    raise ValueError(
        f"{counts}, of which it does not know {len(unknown)}: {some(unknown)}. "
        "--only_known_classes leaves their images out; or correct the names in the model's id2label (config.json)."
    )


def _note(model_class: Sequence[int], model_names: Sequence[str], set_names: Sequence[str]) -> str:
    notes = []
    present = [c for c in model_class if c >= 0]
    if present != sorted(present):
        label = next(label for label, c in enumerate(model_class) if c >= 0 and c != label)
        notes.append(
            f"classes mapped by name, their order differs ({set_names[label]!r} is class {label} of the set and "
            f"{model_class[label]} of the model)"
        )
    if len(present) < len(model_class):
        notes.append(f"images of {len(model_class) - len(present)} classes that the model does not know are left out")
    if len(present) < len(model_names):
        notes.append(
            f"{len(present)} of the model's {len(model_names)} classes occur; predictions range over all of them"
        )
    return "; ".join(notes)
