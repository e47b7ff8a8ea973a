"""The samples that settings are chosen by: a part of the training set, which no trial trains on and no test uses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset, Image

from hf_ltsam.class_statistics import group_bounds
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import Splits, load_splits
from hf_ltsam.data.decoding import image_bytes
from hf_ltsam.data.labels import read_label_column
from hf_ltsam.runs.record import samples_of

_BOUNDS = {"tail_threshold": 0, "many_above": 0, "few_below": 1}  # on counts; few are those below, not at it


@dataclass(frozen=True)
class Reserve:
    """What trials train on, and in the place of a test split what they are compared by.

    Args:
        splits: of a trial; no sample of the test split is in them.
        left_out: reserved samples whose content is in the test split or among the other training samples as well.
        bounds: of the groups of the whole training set, on what trials train on; empty where they are stated.
        unmeasured: names of classes without a reserved sample: those of one sample, which is trained on.
    """

    splits: Splits
    left_out: int
    unmeasured: tuple[str, ...]
    bounds: Mapping[str, int]

    def __str__(self) -> str:
        kind, classes = samples_of(self.splits.task), len(self.splits.class_names)
        measured = classes - len(self.unmeasured)
        words = [f"{len(self.splits.test)} reserved training {kind} of {measured} of {classes} classes"]
        if self.left_out:
            words.append(
                f"{self.left_out} more were left out, since the same {kind.removesuffix('s')} is in another part"
            )
        return "; ".join(words)


def load_reserve(arguments: DataArguments) -> Reserve:
    """The data of a run with `reserve`, for trials.

    Raises:
        ValueError, FileNotFoundError: as `load_splits`, or nothing is left in the reserve.
    """
    splits = load_splits(arguments)
    if splits.reserved is None:
        raise ValueError("There is no reserve: state the share of every class that is reserved.")
    elsewhere = contents(splits.test, splits.label_column) | contents(splits.train, splits.label_column)
    rows = [
        row for row, content in enumerate(_contents(splits.reserved, splits.label_column)) if content not in elsewhere
    ]
    if not rows:
        raise ValueError(
            f"--reserve {arguments.reserve:g} reserves nothing that is in no other part: the classes are too small, or all "
            f"{samples_of(splits.task)} are there twice."
        )
    reserved = splits.reserved.select(rows)
    labels = read_label_column(reserved, splits.label_column)
    present = set(labels.tolist())
    unmeasured = tuple(name for c, name in enumerate(splits.class_names) if c not in present)
    left_out = len(splits.reserved) - len(rows)
    measured = replace(splits, test=reserved, test_labels=labels, reserved=None)
    return Reserve(measured, left_out, unmeasured, _fitting_bounds(splits, splits.reserved, arguments))


def _fitting_bounds(rest: Splits, reserved: Dataset, arguments: DataArguments) -> dict[str, int]:
    if not arguments.many_above is arguments.few_below is None or not arguments.reserve:
        return {}
    labels = torch.cat([rest.train_labels, read_label_column(reserved, rest.label_column)])
    return bounds_on_rest(replace(rest, train_labels=labels).statistics(arguments, None).bounds, arguments.reserve)


def bounds_on_rest(settings: Mapping[str, Any], share: float) -> dict[str, int]:
    """Bounds on numbers of training samples, so that they part the same classes when a share of every class is away.

    Those that are not stated follow from the counts, and are left out.
    """
    bounds = {name: settings.get(name) for name in _BOUNDS}
    groups = (bounds["many_above"], bounds["few_below"])
    if groups != (None, None):  # one that is stated alone decides the other
        bounds["many_above"], bounds["few_below"] = group_bounds((), *groups)
    return {
        name: remaining(int(bound) - _BOUNDS[name], share) + _BOUNDS[name]
        for name, bound in bounds.items()
        if bound is not None
    }


def remaining(count: int, share: float) -> int:
    """The number of a class's samples that are left when its share is reserved: at least one, of none none."""
    return count - min(max(round(share * count), 1), count - 1) if count > 0 else count


def contents(split: Dataset, label_column: str) -> set[bytes]:
    """Hashes of the content of all rows, whatever their labels."""
    return set(_contents(split, label_column))


def _contents(split: Dataset, label_column: str) -> list[bytes]:
    plain = split.with_format(None).remove_columns(label_column)
    for name, feature in plain.features.items():
        if isinstance(feature, Image):
            plain = plain.cast_column(name, Image(decode=False))
    return [_hash(row) for row in plain]


def _hash(row: Mapping[str, Any]) -> bytes:
    """Of a row's images as they are stored, without their names, and of everything else in it where there is no image."""
    images = [value for value in row.values() if isinstance(value, dict) and {"bytes", "path"} <= set(value)]
    content = b"".join(map(image_bytes, images)) if images else repr(sorted(row.items())).encode()
    return hashlib.sha256(content).digest()
