"""The classes of a published data set: folder, name and training images of each, from a table in the package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order of their labels.

    Args:
        keys: what the folder of a class is called: a wnid, a category number, a scene. Length C, all different.
        names: for people and for text prompts. Length C, all different.
        counts: images of the published long-tailed training list. Length C.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]

    def called(self, label: int) -> str:
        """A class in a message: n01440764 (tench)."""
        return described(self.keys[label], self.names[label])


def described(key: str, name: str) -> str:
    return key if key == name else f"{key} ({name})"


@cache
def class_table(name: str) -> ClassTable:
    """One of the tables that come with the package: imagenet, inaturalist2018, places365."""
    text = files("dataset_builders.sets").joinpath("class_tables", f"{name}.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:]
    keys, names, counts = zip(*rows)
    return ClassTable(keys, names, tuple(map(int, counts)))
