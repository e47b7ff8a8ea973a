"""The labels of a data set, read without its images."""

from __future__ import annotations

import copy
import hashlib
import operator
import sys
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from hf_ltsam.class_statistics import NAMES_TO_NUMBERS, are_names
from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.random_states import undisturbed
from hf_ltsam.hyperparameters import nearest

if TYPE_CHECKING:
    import datasets

LABEL_NAMES = ("label", "labels", "label_ids")  # names that transformers' default collator accepts
LABEL_WORDS = (*LABEL_NAMES, "class", "target", "category", "species")  # what tables call their labels
WAY_OUT = "Pass class_statistics=ClassStatistics.from_labels(labels) instead, with class numbers 0 to C-1."
NO_CLASSES = "Targets that are no classes of samples, as in regression, go with loss='model'."


class NamedLabelsError(TypeError):
    """The labels are names of classes, which no loss takes."""


def training_labels(dataset: Any, label_name: str = "labels") -> Tensor:
    """The labels of a training set, in its order: class indices (N,), int64, or shares of classes (N, C), float32.

    No image is decoded, no transform of images called, no random number drawn. `labels_trained_on` reads samples too.

    Args:
        dataset: a `datasets.Dataset` with any transform, format and selection; a `Subset`, `ConcatDataset` or
            `KeyedRandomness` of data sets listed here; a `TensorDataset` whose last tensor holds the labels; a list of
            mappings; or any object with labels in an attribute `labels` or `targets`, torchvision's convention. Its
            `target_transform` is applied to them.
        label_name: the first candidate; then "label", "labels" and "label_ids" and, in a `datasets.Dataset`, the only
            `ClassLabel` column.

    Raises:
        NamedLabelsError: they are names.
        TypeError: any other data set. Pass `ClassStatistics.from_labels(labels)` to the trainer instead.
    """
    names = (label_name, *LABEL_NAMES)
    if isinstance(dataset, Subset):
        return training_labels(dataset.dataset, label_name)[torch.tensor(list(dataset.indices), dtype=torch.long)]
    if isinstance(dataset, ConcatDataset):
        return torch.cat([training_labels(part, label_name) for part in dataset.datasets])
    if isinstance(dataset, KeyedRandomness):
        return training_labels(dataset.dataset, label_name)
    if is_arrow_dataset(dataset):
        return _labels_of_arrow(dataset, names)
    if isinstance(dataset, TensorDataset):
        return _as_labels(dataset.tensors[-1], "its last tensor")
    if isinstance(dataset, list | tuple):
        return _labels_of_mappings(dataset, names)
    if isinstance(dataset, IterableDataset):
        raise _stream_without_labels(dataset, names)
    return _labels_of_attribute(dataset)


def label_fingerprint(labels: Iterable[int] | Tensor) -> str:
    """SHA-256 (hex) of labels (N,) as little-endian int64, or of shares (N, C) as float32: one split, one value."""
    values = np.asarray(labels if isinstance(labels, Tensor | Sequence | np.ndarray) else list(labels))
    return hashlib.sha256(values.astype("<i8" if values.ndim == 1 else "<f4").tobytes()).hexdigest()


def is_arrow_dataset(dataset: Any) -> bool:
    """Whether this is a `datasets.Dataset`; does not import `datasets`."""
    module = sys.modules.get("datasets.arrow_dataset")
    return module is not None and isinstance(dataset, module.Dataset)


def class_label_columns(dataset: datasets.Dataset) -> list[str]:
    """The names of the `ClassLabel` columns."""
    from datasets import ClassLabel

    return [name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)]


def class_label_column_of(dataset: datasets.Dataset, name: str | None = None) -> str:
    """The named `ClassLabel` column, or the only one.

    Raises:
        ValueError: there is no such column, it is not a `ClassLabel`, or none was named and there is not exactly one.
    """
    valid = class_label_columns(dataset)
    if name is None:
        if len(valid) == 1:
            return valid[0]
        several = f"several ClassLabel columns ({', '.join(valid)}): name one of them by label_column=..."
        none = f"no ClassLabel column among {', '.join(dataset.column_names)}: class_encode_column(...) makes one."
        raise ValueError(f"The data set has {several if valid else none}")
    if name not in dataset.column_names:
        raise ValueError(f"The data set has no column {name!r}.{nearest(name, dataset.column_names)}")
    if name not in valid:
        raise ValueError(
            f"The column {name!r} is not a ClassLabel but {dataset.features[name]}: "
            f"dataset.class_encode_column({name!r}) makes it one. ClassLabel columns: {', '.join(valid) or 'none'}."
        )
    return name


def training_label_column(dataset: datasets.Dataset, names: Sequence[str]) -> str | None:
    """The first of these columns that there is, or the only `ClassLabel`; None: there is no such column."""
    class_labels = class_label_columns(dataset)
    return next((name for name in names if name in dataset.column_names), None) or (
        class_labels[0] if len(class_labels) == 1 else None
    )


def arrow_column(dataset: datasets.Dataset, name: str) -> Any:
    """One column as a `pyarrow.ChunkedArray`, for any format and transform of the data set."""
    plain = copy.copy(dataset)  # the caller keeps the transform, and the steps below do not deep-copy it
    plain.reset_format()
    return plain.select_columns([name]).with_format("arrow")[:].column(name)


def read_label_column(dataset: datasets.Dataset, name: str) -> Tensor:
    """One integer column (N,) as int64, or lists of numbers as (N, C), for any format and transform of the data set.

    Raises:
        TypeError: the column has other values than integers, or missing ones.
    """
    import pyarrow

    column = arrow_column(dataset, name)
    if (
        pyarrow.types.is_list(column.type)
        and pyarrow.types.is_floating(column.type.value_type)
        and not column.null_count
    ):
        return torch.tensor(column.to_pylist(), dtype=torch.float32)
    if pyarrow.types.is_list(column.type) and pyarrow.types.is_integer(column.type.value_type):
        raise _unreadable(
            dataset,
            f"its column {name!r} holds {column.type}; shares of classes, or a 0 or 1 for each, are lists of floats: "
            f"dataset.cast_column({name!r}, Sequence(Value('float32')))",
            NO_CLASSES,
        )
    if pyarrow.types.is_floating(column.type) or pyarrow.types.is_list(column.type):
        raise _unreadable(dataset, f"its column {name!r} holds {column.type}, not class numbers", NO_CLASSES)
    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        example = next((value for value in column.to_pylist() if value is not None), None)
        raise _names_as_labels(dataset, f"its column {name!r} holds {column.type}", example, name)
    if not pyarrow.types.is_integer(column.type):
        raise _unreadable(
            dataset,
            f"its column {name!r} holds {column.type}, not class numbers; dataset.class_encode_column({name!r}) "
            "makes class numbers of them",
        )
    if column.null_count:
        raise _unreadable(dataset, f"{column.null_count} of the labels in its column {name!r} are missing")
    return torch.tensor(column.to_numpy(), dtype=torch.long)


def _labels_of_arrow(dataset: datasets.Dataset, names: Sequence[str]) -> Tensor:
    column = training_label_column(dataset, names)
    if column is not None:
        return read_label_column(dataset, column)
    class_labels = class_label_columns(dataset)
    present = ", ".join(class_labels) or f"none among {', '.join(dataset.column_names) or 'no columns'}"
    usual = " or ".join(map(repr, dict.fromkeys(names)))
    raise _unreadable(dataset, f"it has no column {usual}, and its ClassLabel columns are {present}")


def odd_label(labels: Any) -> int | None:
    """The first entry of a list that is no label where another one is: None, a word, or a list among numbers."""
    if not isinstance(labels, list | tuple):
        return None
    shapes = [_shape(label) for label in labels]
    usual = max(set(shapes), key=shapes.count, default=None)
    return next((k for k, shape in enumerate(shapes) if shape is None or shape != usual), None)


def _shape(label: Any) -> tuple[int, ...] | None:
    """() of a number, (C,) of C shares; None of anything else."""
    if isinstance(label, int | float):
        return ()
    try:
        return tuple(torch.as_tensor(label).shape)
    except (TypeError, ValueError, RuntimeError):
        return None


def _labels_of_mappings(samples: Sequence[Any], names: Sequence[str]) -> Tensor:
    labels: list[Any] = []
    try:
        labels = [_label_of(sample, names) for sample in samples]
        if labels and all(isinstance(y, Tensor) and y.ndim == 1 and y.is_floating_point() for y in labels):
            return torch.stack(labels).float()
        return torch.tensor([operator.index(y) for y in labels], dtype=torch.long)
    except (TypeError, KeyError) as error:
        if are_names(labels):
            raise _names_as_labels(samples, f"its entries map {names[0]!r} to names", labels[0]) from error
        reason = f"it is a list whose entries do not all map {names[0]!r} to an integer"
        odd = _odd_entry(labels)
        raise _unreadable(samples, reason + odd, "" if odd else NO_CLASSES) from error


def _odd_entry(labels: Any) -> str:
    odd = odd_label(labels)
    return "" if odd is None else f": entry {odd} has the label {labels[odd]!r}"


def _label_of(sample: Any, names: Sequence[str]) -> Any:
    if not isinstance(sample, Mapping):
        raise TypeError(f"a {type(sample).__name__} has no named label")
    return next((sample[name] for name in names if name in sample), None)


def _labels_of_attribute(dataset: Any) -> Tensor:
    reason = "it has no labels that can be read without loading its samples"
    for name in ("labels", "targets"):
        values = getattr(dataset, name, None)  # torchvision's convention
        if values is None:
            continue
        if _are_of_samples(values, dataset):
            source = f"its attribute {name!r}"
            return _as_labels(_transformed(values, getattr(dataset, "target_transform", None), source), source)
        reason += f"; its attribute {name!r} has {len(values)} entries, and there are {len(dataset)} samples"
    raise _unreadable(dataset, reason)


def _are_of_samples(values: Any, dataset: Any) -> bool:
    """Whether there is one for each sample; others, such as one for each class, say nothing of samples."""
    if not isinstance(values, Sized) or not isinstance(dataset, Sized) or getattr(values, "ndim", 1) == 0:
        return True
    return len(values) == len(dataset)


def _transformed(values: Any, target_transform: Any, source: str) -> Any:
    """Labels as torchvision's data sets give them with a sample."""
    if target_transform is None:
        return values
    plain = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    try:
        with undisturbed(target_transform):
            return [operator.index(target_transform(value)) for value in plain]
    except Exception as error:  # of the caller's function
        raise _unreadable(values, f"target_transform makes no integers of {source}") from error


def _as_labels(values: Any, source: str) -> Tensor:
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        if are_names(values):
            raise _names_as_labels(values, f"{source} holds names", values[0]) from error
        raise _unreadable(values, f"{source} is not a sequence of integers{_odd_entry(values)}") from error
    if labels.ndim == 2 and labels.is_floating_point():
        return labels.float()
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise _unreadable(values, f"{source} has shape {tuple(labels.shape)} and type {labels.dtype}", NO_CLASSES)
    return labels.long()


def _stream_without_labels(stream: Any, names: Sequence[str]) -> TypeError:
    features = getattr(stream, "features", None)  # of datasets; None where it does not know them
    column = training_label_column(stream, names) if features else None
    rows = "train_dataset" if column is None else f"train_dataset.select_columns({column!r})"
    return TypeError(
        f"The labels of this {type(stream).__name__} cannot be read: it is a stream, which may have no end and be far away. "
        f"Pass class_statistics=ClassStatistics.from_labels(row[{column or names[0]!r}] for row in {rows}), which reads all "
        "of it once (and downloads it, if it comes from the Hub), or class_statistics=ClassStatistics(counts), where the "
        "number of samples of each class is known."
    )


def _names_as_labels(dataset: Any, reason: str, example: Any, column: str = "labels") -> NamedLabelsError:
    ways = NAMES_TO_NUMBERS.replace("'labels'", repr(column))
    return NamedLabelsError(
        f"The labels of this {type(dataset).__name__} are no class numbers: {reason} ({example!r}). {ways}"
    )


def _unreadable(dataset: Any, reason: str, way_out: str = "") -> TypeError:
    ways = f"{way_out} {WAY_OUT}".lstrip()
    return TypeError(f"The labels of this {type(dataset).__name__} cannot be read: {reason}. {ways}")
