"""Which training images a quantity is the mean over: fixed, and stated with every result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.hyperparameters import COUNT, nearest, require


@dataclass(frozen=True)
class ChosenImages:
    """The images that stand for each class.

    Args:
        rows: positions in the data set, ascending, one tensor (k_c,) per class; k_c is n_c where all were taken.
        counts: n_c, all training images of each class. Length C.
        max_samples: images of each class that were taken at most; None: all.
        seed: of the draw.
    """

    rows: tuple[Tensor, ...]
    counts: tuple[int, ...]
    max_samples: int | None = None
    seed: int = 0

    @property
    def rule(self) -> str:
        """How the images were chosen, in words."""
        if self.max_samples is None:
            return "all training images"
        return (
            f"at most {self.max_samples} training images of every class, drawn once without replacement (seed {self.seed}); "
            "in means over several classes each class keeps the share that all its images have"
        )


@dataclass(frozen=True)
class Subset:
    """A class or a group of classes.

    Args:
        name: "all", "many", "class 3", ...
        classes: its class indices.
        rows: positions in the data set (n,).
        weights: a (n,), float64, adding up to 1: a class weighs n_c, however many of its images were taken.
    """

    name: str
    classes: tuple[int, ...]
    rows: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.rows)


def choose_images(labels: Tensor, num_classes: int, max_samples: int | None = None, seed: int = 0) -> ChosenImages:
    """At most `max_samples` images of every class; the choice in one class does not depend on the other classes.

    Args:
        labels: class indices (N,) of the training set.

    Raises:
        ValueError: `max_samples` is not a whole number of at least 1.
    """
    if max_samples is not None:
        require(COUNT, "choose_images", max_samples=max_samples)
    rows = [(labels == c).nonzero().flatten().cpu() for c in range(num_classes)]
    taken = rows if max_samples is None else [_draw(r, max_samples, seed + c) for c, r in enumerate(rows)]
    return ChosenImages(tuple(taken), tuple(map(len, rows)), max_samples, seed)


def make_subset(name: str, classes: Iterable[int], chosen: ChosenImages) -> Subset:
    """The chosen images of some classes.

    Raises:
        ValueError: no class, or classes without images.
    """
    classes = tuple(classes)
    if not sum(len(chosen.rows[c]) for c in classes):
        raise ValueError(f"The subset {name!r} has no training images: leave it out.")
    weights = [torch.full((len(rows),), n / max(len(rows), 1)) for rows, n in _of(chosen, classes)]
    joined = torch.cat(weights).double()
    return Subset(name, classes, torch.cat([rows for rows, _ in _of(chosen, classes)]), joined / joined.sum())


def groups_of(statistics: ClassStatistics) -> dict[str, tuple[int, ...]]:
    """Classes of the groups that have any: all, many, medium, few, and head and tail where there is a threshold."""
    groups = {"all": tuple(range(statistics.num_classes)), **statistics.groups}
    if statistics.tail_threshold is not None:
        groups |= {"head": statistics.head_classes, "tail": statistics.tail_classes}
    return {name: classes for name, classes in groups.items() if classes}


def group_classes(name: str, statistics: ClassStatistics) -> tuple[int, ...]:
    """Classes of one group.

    Raises:
        ValueError: there is no such group, with those there are.
    """
    groups = groups_of(statistics)
    if name in groups:
        return groups[name]
    if name in ("head", "tail"):
        return statistics.tail_classes  # raises, and proposes a threshold
    if name in statistics.groups:
        raise ValueError(f"No class belongs to the group {name!r}. {statistics.describe_counts()}")
    raise ValueError(f"Unknown group {name!r}.{nearest(name, groups)}")


def class_index(word: str, class_names: Sequence[str]) -> int:
    """A class given by its index or its name.

    Raises:
        ValueError: neither.
    """
    if word in class_names:
        return list(class_names).index(word)
    if not word.removeprefix("-").isdecimal():
        raise ValueError(f"Unknown class {word!r}.{nearest(word, class_names)}")
    if 0 <= int(word) < len(class_names):
        return int(word)
    raise ValueError(f"Class {word} is out of range: the model has the classes 0 to {len(class_names) - 1}.")


def _draw(rows: Tensor, count: int, seed: int) -> Tensor:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:count].sort().values]


def _of(chosen: ChosenImages, classes: Sequence[int]) -> list[tuple[Tensor, int]]:
    return [(chosen.rows[c], chosen.counts[c]) for c in classes]
