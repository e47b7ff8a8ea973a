"""Class statistics of a training set: counts, prior, reporting groups, head and tail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVarTuple

import numpy as np
import torch
from torch import Tensor

from hf_ltsam.class_statistics.groups import (
    USUAL_BOUNDS,
    check_group_sizes,
    group_bounds,
    groups_by_bounds,
    groups_by_rank,
    whole_number,
)
from hf_ltsam.class_statistics.labels import (
    are_several,
    check_label_range,
    check_no_gaps,
    classes_have,
    label_tensor,
    sums_of_shares,
)

FILE_NAME = "class_statistics.json"


@dataclass(frozen=True)
class ClassStatistics:
    """Class counts of a training set and the quantities that follow from them. Immutable and hashable.

    Args:
        counts: training samples of class 0, 1, ..., at least one each. Length C.
        tail_threshold: largest number of training samples of a tail class, for the methods that split head from tail
            (ImbSAM, SSE-SAM: Lyu et al. 2025 Eq. 101). None: no split.
        many_above: classes with more training samples are reported as "many".
        few_below: classes with fewer training samples are reported as "few"; those between are "medium".
            None for both: 100 and 20, as Liu et al. 2019, or where no class is many or none few by these, round numbers
            that make groups of a third of the classes each, as nearly as the counts allow (`group_bounds` has the rule).
            None for one: the usual one, within the other. CIFAR-10-LT uses 1,000 and 200.
        group_sizes: numbers of classes in "many", "medium" and "few" in order of frequency, in the place of both bounds, as
            Rangwani et al. 2022 report. They sum to C; of equally large classes the lower index comes first.

        samples: training samples, where one may have several labels or none; None: each has one.

    The reporting groups are independent of the head/tail split and never share a threshold with it.

    Raises:
        ValueError: fewer than 2 classes, an empty class, a threshold that is negative or no whole number, or group sizes
            that are not three or do not sum to C.
    """

    counts: tuple[int, ...]
    tail_threshold: int | None = None
    many_above: int = None  # type: ignore[assignment]  # None is replaced
    few_below: int = None  # type: ignore[assignment]
    group_sizes: tuple[int, int, int] | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(whole_number("counts", n) for n in self.counts))
        for name in ("many_above", "few_below"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if self.tail_threshold is not None:
            object.__setattr__(self, "tail_threshold", whole_number("tail_threshold", self.tail_threshold))
        if len(self.counts) < 2:
            raise ValueError(f"ClassStatistics(counts=...) needs at least 2 classes, got {len(self.counts)}.")
        empty = [c for c, n in enumerate(self.counts) if n < 1]
        if empty:
            raise ValueError(
                f"ClassStatistics(counts=...): {classes_have(empty)} no training sample. Remove such classes and "
                "renumber the labels, or pass counts of at least 1 if they come from another source."
            )
        if self.tail_threshold is not None and self.tail_threshold < 0:
            raise ValueError(f"ClassStatistics(tail_threshold=...) must be non-negative, got {self.tail_threshold}.")
        stated = (self.many_above, self.few_below)
        # Groups by rank need no bounds: the usual ones stand beside them.
        bounds = group_bounds(self.counts if self.group_sizes is None else (), *stated)
        for name, bound in zip(("many_above", "few_below"), bounds):
            object.__setattr__(self, name, bound)
        if not 0 <= self.few_below <= self.many_above + 1:
            raise ValueError(
                "ClassStatistics needs 0 <= few_below <= many_above + 1, "
                f"got few_below={self.few_below} and many_above={self.many_above}."
            )
        if self.group_sizes is not None:
            object.__setattr__(self, "group_sizes", check_group_sizes(self.group_sizes, len(self.counts)))

    @classmethod
    def from_labels(
        cls, labels: Iterable[Any] | Tensor, num_classes: int | None = None, **settings: Any
    ) -> ClassStatistics:
        """The statistics of labels.

        Args:
            labels: class indices (N,), integers in [0, C); or shares of the classes (N, C), whose sums are rounded; or 0 and
                1 for every class (N, C), where a sample may be of several.
            num_classes: C; None: the largest label plus one.
            settings: `tail_threshold`, `many_above`, `few_below`, `group_sizes`.

        Raises:
            ValueError: no labels, a label outside [0, C), or a class without a training sample.
        """
        values = label_tensor(labels)
        if values.ndim == 2:
            samples = len(values) if are_several(values) else None
            return cls(counts=sums_of_shares(values, num_classes), samples=samples, **settings)
        num_classes = int(values.max()) + 1 if num_classes is None else num_classes
        check_label_range(values, num_classes)
        check_no_gaps(values, num_classes)
        return cls(counts=tuple(torch.bincount(values.long(), minlength=num_classes).tolist()), **settings)

    @property
    def num_classes(self) -> int:
        return len(self.counts)

    @property
    def total(self) -> int:
        """N, the number of training samples."""
        return sum(self.counts) if self.samples is None else self.samples

    @property
    def prior(self) -> tuple[float, ...]:
        """pi_c = n_c / N for every class."""
        total = self.total
        return tuple(n / total for n in self.counts)

    @property
    def most_frequent(self) -> int:
        """The class with the most training samples; of several the first."""
        return self.counts.index(max(self.counts))

    @property
    def imbalance_ratio(self) -> float:
        return max(self.counts) / min(self.counts)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Class indices of the reporting groups "many", "medium" and "few"; a group may be empty."""
        if self.group_sizes is not None:
            return groups_by_rank(self.counts, self.group_sizes)
        return groups_by_bounds(self.counts, self.many_above, self.few_below)

    @property
    def bounds(self) -> dict[str, int]:
        """Of the groups, by name."""
        return {"many_above": self.many_above, "few_below": self.few_below}

    @property
    def has_fitted_bounds(self) -> bool:
        """Whether the bounds are those that follow from the counts where the usual ones give no many or no few."""
        fitting = group_bounds(self.counts)
        return self.group_sizes is None and (self.many_above, self.few_below) == fitting != USUAL_BOUNDS

    @property
    def tail_classes(self) -> tuple[int, ...]:
        """Class indices with n_c <= tail_threshold.

        Raises:
            ValueError: there is no `tail_threshold`.
        """
        threshold = self._required_tail_threshold
        return tuple(c for c, n in enumerate(self.counts) if n <= threshold)

    @property
    def head_classes(self) -> tuple[int, ...]:
        """Class indices with n_c > tail_threshold."""
        threshold = self._required_tail_threshold
        return tuple(c for c, n in enumerate(self.counts) if n > threshold)

    @property
    def _required_tail_threshold(self) -> int:
        if self.tail_threshold is None:
            raise ValueError(
                "This needs a split into head and tail classes: set `tail_threshold` (the largest number of training "
                f"samples of a tail class). {self.describe_counts()} {self.propose_tail_threshold()}"
            )
        return self.tail_threshold

    @property
    def proposed_tail_threshold(self) -> int:
        """The count that comes closest to making half of the classes tail; it leaves a head unless all are equal."""
        candidates = sorted(set(self.counts), reverse=True)[1:] or self.counts
        return min(candidates, key=lambda n: abs(2 * self._num_up_to(n) - self.num_classes))

    def propose_tail_threshold(self) -> str:
        """One sentence for messages that ask for a split."""
        n = self.proposed_tail_threshold
        return f"For example tail_threshold={n}, which makes {self._num_up_to(n)} of {self.num_classes} classes tail."

    def _num_up_to(self, n: int) -> int:
        return sum(count <= n for count in self.counts)

    def describe_counts(self) -> str:
        """One sentence for messages and logs."""
        shown = ", ".join(map(str, self.counts[:10])) + (", ..." if self.num_classes > 10 else "")
        return (
            f"{self.num_classes} classes, {self.total} training samples, largest {max(self.counts)}, "
            f"smallest {min(self.counts)}; counts: {shown}."
        )

    def contradicted_by(self, seen: Sequence[int], risk: float = 1e-6) -> int | None:
        """The class whose number among labels drawn at random fits its count least, if it does not fit at all.

        Args:
            seen: labels of each class (C,), drawn from the training set with or without replacement.
            risk: probability of naming a class although they were drawn from it; Bernstein's inequality for every class.
        """
        n, (prior, drawn) = sum(seen), (np.asarray(values, dtype=np.float64) for values in (self.prior, seen))
        if not n:
            return None
        log = np.log(2 * self.num_classes / risk)
        bound = np.sqrt(2 * n * prior * (1 - prior) * log) + 2 * log / 3
        excess = np.abs(drawn - n * prior) / bound
        return int(excess.argmax()) if excess.max() > 1 else None

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """A per-class quantity (C,) as a tensor, on the device of `like` and in its floating-point type.

        All callers of the process share the tensor: never write into it.

        Args:
            name: "counts", "prior", "log_prior", "head" or "tail" (the last two are 0/1).
            like: any tensor.

        Raises:
            ValueError: an unknown name, or "head" or "tail" without a `tail_threshold`.
        """
        match name:
            case "counts":
                return _counts(self, like)
            case "prior":
                return _prior(self, like, self.total)
            case "log_prior":
                return _log_prior(self, like, self.total)
            case "head":
                return _head(self, like, self._required_tail_threshold)
            case "tail":
                return _tail(self, like, self._required_tail_threshold)
        raise ValueError(f"No per-class quantity {name!r}. Valid: counts, prior, log_prior, head, tail.")

    def to_dict(self) -> dict[str, Any]:
        values = {**asdict(self), "counts": list(self.counts), "group_sizes": list(self.group_sizes or ())}
        return {name: value for name, value in values.items() if name not in ("group_sizes", "samples") or value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassStatistics:
        names = {field.name for field in fields(cls)}
        if set(values) - names or "counts" not in values:
            raise ValueError(f"Not class statistics: expected the keys {sorted(names)}, got {sorted(values)}.")
        return cls(**{**values, "counts": tuple(values["counts"])})

    def save(self, folder: str | Path) -> Path:
        """Write `class_statistics.json` into a folder."""
        path = Path(folder) / FILE_NAME
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> ClassStatistics:
        """Read `class_statistics.json`.

        Args:
            path: of the file, or of its folder.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"No class statistics at {path}: pass the file, or a folder saved by LTSamTrainer.")
        try:
            return cls.from_dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:  # damaged JSON is a ValueError
            raise ValueError(f"{path} does not hold class statistics: {error}") from error


Settings = TypeVarTuple("Settings")


def per_class(
    formula: Callable[[Tensor, *Settings], Tensor],
) -> Callable[[ClassStatistics, Tensor, *Settings], Tensor]:
    """Turn `formula(counts (C,), *settings) -> (C,)` into a cached `(statistics, like, *settings) -> (C,)`.

    The formula gets float64 counts on the CPU; its result is rounded once, to the floating-point type of `like`, and
    stays on the device of `like`, so that no step computes or copies it again. Settings must be hashable. All callers of
    the process share the tensor: never write into it.
    """

    @lru_cache(maxsize=64)
    def table(
        statistics: ClassStatistics, device: torch.device, dtype: torch.dtype, settings: tuple[*Settings]
    ) -> Tensor:
        # A table made in inference mode, by an evaluation for instance, could not serve a later backward pass;
        # device="cpu" overrides a default device, which may lack float64.
        with torch.inference_mode(False):
            values = formula(torch.tensor(statistics.counts, dtype=torch.float64, device="cpu"), *settings)
            return values.to(dtype).to(device)  # in this order: Apple's MPS has no float64

    def lookup(statistics: ClassStatistics, like: Tensor, /, *settings: *Settings) -> Tensor:
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return table(statistics, like.device, dtype, settings)

    return lookup


@per_class
def _counts(n: Tensor) -> Tensor:
    return n


@per_class
def _prior(n: Tensor, total: int) -> Tensor:
    """pi_c = n_c / N."""
    return n / total


@per_class
def _log_prior(n: Tensor, total: int) -> Tensor:
    return (n / total).log()


@per_class
def _tail(n: Tensor, threshold: int) -> Tensor:
    """1 where n_c <= threshold, else 0."""
    return (n <= threshold).to(n.dtype)


@per_class
def _head(n: Tensor, threshold: int) -> Tensor:
    """1 where n_c > threshold, else 0."""
    return (n > threshold).to(n.dtype)
