"""The parts of a run's files that the report draws, checked when they are read.

`from_json` raises ValueError, KeyError, TypeError, IndexError or AttributeError for a file that is not what it should be.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_ltsam.class_statistics import GROUPS, ClassStatistics
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.sharpness.figures import subset_label
from hf_ltsam.runs.sharpness.parts import check_sharpness
from hf_ltsam.runs.shift.results import Cell, check_results, remarks

Floats = NDArray[np.float64]


def floats(values: Any, ndim: int = 1) -> Floats:
    """Numbers, null as NaN.

    Raises:
        ValueError: something else, or another number of dimensions.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"expected numbers in {ndim} dimension(s), got shape {array.shape}")
    return array


@dataclass(frozen=True)
class TestResult:
    """An entry of `results` in a record. Accuracies are fractions.

    Args:
        per_class: (C,); NaN for a class without test image.
        groups: of many, medium, few, and of head and tail where the training set is split, from `per_class` by the bounds of
            the statistics; an empty one is left out.
        scores: every other number that was recorded, such as "macro_f1"; "balanced" is among them.
        of_classes: what was recorded of every class (C,): "per_class", and of newer runs "precision", "f1" and "auprc".
    """

    __test__ = False  # for pytest, which takes the name for a test

    overall: float
    balanced: float
    groups: dict[str, float]
    per_class: Floats
    ece: float
    samples: int
    scores: dict[str, float] = field(default_factory=dict)
    of_classes: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], statistics: ClassStatistics) -> TestResult:
        per_class = floats(values["per_class"])
        if len(per_class) != statistics.num_classes:
            raise ValueError(f"per_class has {len(per_class)} entries for {statistics.num_classes} classes")
        groups = {
            name: float(np.nanmean(per_class[list(classes)]))
            for name, classes in all_groups(statistics).items()
            if not np.isnan(per_class[list(classes)]).all()
        }
        ece = float("nan") if values["ece"] is None else float(values["ece"])
        scores = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        of_classes = {name: floats(value) for name, value in values.items() if isinstance(value, list)}
        return cls(
            scores["overall"], scores["balanced"], groups, per_class, ece, int(values["samples"]), scores, of_classes
        )


class Bounds(NamedTuple):
    """What makes classes many, medium and few, head and tail, as in `ClassStatistics`."""

    many_above: int
    few_below: int
    tail_threshold: int | None = None
    group_sizes: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, statistics: ClassStatistics) -> Bounds:
        return cls(statistics.many_above, statistics.few_below, statistics.tail_threshold, statistics.group_sizes)

    @property
    def groups(self) -> tuple[Any, ...]:
        """What many, medium and few hang on."""
        return (self.group_sizes,) if self.group_sizes is not None else (self.many_above, self.few_below)


@dataclass(frozen=True)
class Recorded:
    """The record of a run, with its statistics and test results."""

    record: RunRecord
    statistics: ClassStatistics
    test: TestResult

    @classmethod
    def from_json(cls, values: Any) -> Recorded:
        record = RunRecord.from_json(values)
        statistics = ClassStatistics.from_dict(record.class_statistics)
        return cls(record, statistics, TestResult.from_json(record.results["test"], statistics))

    def with_bounds(self, bounds: Bounds) -> Recorded:
        """The same with groups by other bounds; by its own where those are sizes for another number of classes."""
        fitting = (
            bounds if sum(bounds.group_sizes or ()) in (0, self.statistics.num_classes) else Bounds.of(self.statistics)
        )
        statistics = replace(self.statistics, **fitting._asdict())
        return replace(self, statistics=statistics, test=TestResult.from_json(self.record.results["test"], statistics))


def head_and_tail(statistics: ClassStatistics) -> dict[str, tuple[int, ...]]:
    """The split of the methods, where there is one and it leaves no part empty."""
    if statistics.tail_threshold is None:
        return {}
    parts = {"head": statistics.head_classes, "tail": statistics.tail_classes}
    return {name: classes for name, classes in parts.items() if classes}


def all_groups(statistics: ClassStatistics) -> dict[str, tuple[int, ...]]:
    """many, medium, few, head, tail: those that have classes."""
    return {**{name: classes for name, classes in statistics.groups.items() if classes}, **head_and_tail(statistics)}


@dataclass(frozen=True)
class Spectrum:
    """Density of the eigenvalues of one subset's Hessian."""

    grid: Floats
    values: Floats
    lam_min: float
    lam_max: float
    ratio: float
    trace: float

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Spectrum:
        density = record["density"]
        grid, values = floats(density["grid"]), floats(density["values"])
        if grid.shape != values.shape:
            raise ValueError(f"a density of {len(values)} values on a grid of {len(grid)}")
        low, high = float(record["lam_min"]["value"]), float(record["lam_max"]["value"])
        return cls(grid, values, low, high, _ratio(record), float(record["trace"]["value"]))


@dataclass(frozen=True)
class Checkpoint:
    """Extreme eigenvalues at one moment of the training, and what bounds on the test loss are made of.

    Args:
        loss, gradient_norm: of the subset's mean loss; NaN in files of older releases, as the next one.
        weight_norm: of the trainable weights.
        weights: their number; 0 in files of older releases, as the next one.
        samples: all training images of the subset.
    """

    step: int
    epoch: float
    lam_min: float
    lam_max: float
    ratio: float
    loss: float = math.nan
    gradient_norm: float = math.nan
    weight_norm: float = math.nan
    weights: int = 0
    samples: int = 0

    @property
    def time(self) -> float:
        """The epoch; the step where the epoch is not known."""
        return self.step if math.isnan(self.epoch) else self.epoch

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Checkpoint:
        epoch = float("nan") if record["epoch"] is None else float(record["epoch"])
        low, high = float(record["lam_min"]["value"]), float(record["lam_max"]["value"])
        loss, gradient, norm = (float(record.get(name, "nan")) for name in ("loss", "gradient_norm", "weight_norm"))
        weights, samples = (int(record.get(name, 0)) for name in ("trainable_parameters", "training_samples"))
        step, ratio = int(record["step"] or 0), _ratio(record)
        return cls(step, epoch, low, high, ratio, loss, gradient, norm, weights, samples)


@dataclass(frozen=True)
class Surface:
    """Mean loss of subsets around the weights.

    Args:
        coordinates: one array for each direction.
        directions: in words.
        loss: subset -> values, one dimension for each direction.
    """

    coordinates: tuple[Floats, ...]
    directions: tuple[str, ...]
    loss: dict[str, Floats]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Surface:
        coordinates = tuple(floats(c) for c in record["coordinates"])
        loss = {name: floats(values, len(coordinates)) for name, values in record["loss"].items()}
        shape = tuple(map(len, coordinates))
        if len(coordinates) not in (1, 2) or not loss or any(values.shape != shape for values in loss.values()):
            raise ValueError(f"a loss surface that does not fit its coordinates {shape}")
        return cls(coordinates, tuple(map(str, record["directions"])), loss)


@dataclass(frozen=True)
class Curvature:
    """The results of `ltsam sharpness`.

    Args:
        labels: subset -> in words.
        loss: whose curvature.
        spectra: subset -> its spectrum.
        evolution: subset -> its checkpoints, by step.
        surfaces: such as 1d, 2d, 2d towards.
    """

    labels: dict[str, str]
    loss: str
    spectra: dict[str, Spectrum]
    evolution: dict[str, list[Checkpoint]]
    surfaces: dict[str, Surface]

    @classmethod
    def from_json(cls, values: Any) -> Curvature:
        check_sharpness(values)
        spectra = {name: Spectrum.from_json(record) for name, record in values.get("spectra", {}).items()}
        evolution: dict[str, list[Checkpoint]] = {}
        for record in values.get("evolution", {}).values():
            evolution.setdefault(str(record["subset"]), []).append(Checkpoint.from_json(record))
        surfaces = {name: Surface.from_json(record) for name, record in values.get("surface", {}).items()}
        subsets = {*spectra, *evolution, *(subset for surface in surfaces.values() for subset in surface.loss)}
        counts = values["class_statistics"]["counts"]
        ordered = sorted(subsets, key=lambda name: _place(name, counts))
        return cls(
            {name: subset_label(name, values) for name in ordered},
            str(values["loss"]["name"]).replace("_", " "),
            {name: spectra[name] for name in ordered if name in spectra},
            {name: sorted(evolution[name], key=lambda c: c.step) for name in ordered if name in evolution},
            surfaces,
        )


@dataclass(frozen=True)
class ShiftedSet:
    """A test set of `ltsam evaluate`.

    Args:
        accuracy: overall, many, medium, few; of corrupted sets means over the corruptions.
        samples: test images.
        errors: corruption -> severity -> error, a fraction; empty for a set without corruptions.
        mce: in percent; NaN where there is none.
        relative_to: what mCE is relative to.
        bounds: of its groups; None where they are not known.
        remarks: what a reader of its numbers should know.
        results: that its numbers rest on, of each corruption and severity; None: of a set without corruptions.
    """

    accuracy: dict[str, float]
    samples: int
    errors: dict[str, dict[int, float]]
    mce: float = float("nan")
    relative_to: str = ""
    bounds: Bounds | None = None
    remarks: str = ""
    results: Mapping[Cell, Mapping[str, Any]] = field(default_factory=dict)

    def only(self, cells: Collection[Cell]) -> ShiftedSet:
        """With some of its corruptions and severities: means over corruptions again, no mCE where some are left out."""
        if set(self.results) <= set(cells):
            return self
        results = {cell: result for cell, result in self.results.items() if cell in cells}
        errors = {c: {s: e for s, e in row.items() if (c, s) in results} for c, row in self.errors.items()}
        errors = {corruption: row for corruption, row in errors.items() if row}
        rows = [[results[c, s] for s in row] for c, row in errors.items()]
        accuracy = {
            group: _mean_of_means([[result["groups"][group] for result in row] for row in rows])
            for group in self.accuracy
            if all(group in result.get("groups", {}) for result in results.values())
        }
        accuracy["overall"] = _mean_of_means([[result["overall"] for result in row] for row in rows])
        return replace(self, accuracy=accuracy, errors=errors, results=results, mce=math.nan, relative_to="")

    def with_bounds(self, bounds: Bounds) -> ShiftedSet:
        """Without groups where they are by other bounds: nothing is saved from which they could be computed."""
        if self.bounds is None or self.bounds.groups == bounds.groups:
            return self
        return replace(self, accuracy={"overall": self.accuracy["overall"]})

    @classmethod
    def from_json(cls, values: Mapping[str, Any], bounds: Bounds | None = None) -> ShiftedSet:
        if "summary" not in values:
            result = values["result"]
            accuracy = {"overall": float(result["overall"]), **_groups(result)}
            return cls(
                accuracy, int(result["samples"]), {}, bounds=bounds, remarks=remarks(values), results={None: result}
            )
        summary, cells = values["summary"], values["cells"]
        errors = {
            corruption: {int(s): 1 - float(cells[corruption][str(s)]["overall"]) for s in summary["severities"]}
            for corruption in summary["errors"]
        }
        some = next(iter(next(iter(cells.values())).values()))
        accuracy = {"overall": 1 - float(summary["mean_error"]), **_groups(summary)}
        mce = summary.get("mce")
        return cls(
            accuracy,
            int(some["samples"]),
            errors,
            float("nan") if mce is None else float(mce),
            summary.get("relative_to") or "",
            bounds,
            remarks(values),
            {(c, s): cells[c][str(s)] for c, row in errors.items() for s in row},
        )


def shifted_sets(values: Any) -> dict[str, ShiftedSet]:
    """The test sets of an evaluation that are finished, by name."""
    sets = check_results(values)["sets"]
    statistics = values.get("class_statistics")
    bounds = None if statistics is None else Bounds.of(ClassStatistics.from_dict(statistics))
    finished = {name: of_set for name, of_set in sets.items() if "result" in of_set or "summary" in of_set}
    return {name: ShiftedSet.from_json(of_set, bounds) for name, of_set in finished.items()}


def _mean_of_means(rows: Sequence[Sequence[float]]) -> float:
    return float(np.mean([np.mean(row) for row in rows]))


def _groups(result: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(result["groups"][name]) for name in GROUPS if name in result["groups"]}


def _ratio(record: Mapping[str, Any]) -> float:
    ratio = record["ratios"]["abs_min_over_max"]
    return float("nan") if ratio is None else float(ratio)


def _place(subset: str, counts: Sequence[int]) -> tuple[int, float, str]:
    """All images, then groups, then classes, the largest first."""
    if subset.startswith("class "):
        return 2, -counts[int(subset.removeprefix("class "))], subset
    order = ("all", "many", "head", "medium", "few", "tail")
    return (0 if subset == "all" else 1), order.index(subset) if subset in order else len(order), subset
