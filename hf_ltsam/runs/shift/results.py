"""The results of one checkpoint, in one JSON file that is written after every part, so that a killed evaluation goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.metrics.corruption import Baseline
from hf_ltsam.runs.class_frequencies import describe_groups
from hf_ltsam.runs.files import plain, read_json, write_json

SCHEMA_VERSION = 1
CONTENT = "content_sha256"  # of an identity
SCORES = {"worst": "worst class", "macro_f1": "macro F1", "macro_auprc": "macro AUPRC"}
_NEEDED = {"result": ("overall", "groups", "samples"), "summary": ("errors", "severities", "mean_error")}
Cell = tuple[str, int] | None  # corruption and severity; None: a set without corruptions


class Results:
    """The results of one checkpoint so far.

    In the file: `checkpoint`, `class_statistics`, `sets`. A set has `result`, or for corruptions `cells` (corruption ->
    severity -> result) and `summary`. A result has its `identity` (what it follows from, beside the checkpoint),
    `overall`, `balanced`, `groups` and `samples`; accuracies and errors are fractions. `left_out` are images of classes that
    the model does not know, `published` those that the whole set has (null where that is not known), `note` is for readers.

    Args:
        path: of the file.
        checkpoint: whose results these are; its "fingerprint" tells it from others.
        statistics: of its training set.
        writes: whether this process writes the file.

    Raises:
        ValueError: the file holds the results of another checkpoint or by other groups of classes, or something else.
    """

    def __init__(
        self, path: Path, checkpoint: Mapping[str, Any], statistics: ClassStatistics | None, writes: bool = True
    ) -> None:
        self.path, self.writes = path, writes
        self.sets: dict[str, Any] = {}
        if path.is_file():
            values = read_results(path)
            if values["checkpoint"]["fingerprint"] != checkpoint["fingerprint"]:
                raise ValueError(
                    f"{path} holds the results of another checkpoint ({values['checkpoint']['name']}, weights "
                    f"{values['checkpoint']['fingerprint'][:12]}; now {checkpoint['fingerprint'][:12]}). Remove it, or "
                    "give --output_dir OTHER."
                )
            only_one_known = (statistics is None) != (values.get("class_statistics") is None)
            if only_one_known or not has_groups_of(values, statistics):
                nothing = "The checkpoint has no class statistics now."
                now = nothing if statistics is None else f"Now: {describe_groups(statistics)}"
                raise ValueError(
                    f"{path} holds accuracies by other groups of classes than the checkpoint has. {now} Remove it, or give "
                    "--output_dir OTHER."
                )
            self.sets = values["sets"]
        self.header = {
            "schema_version": SCHEMA_VERSION,
            "checkpoint": dict(checkpoint),
            "class_statistics": None if statistics is None else statistics.to_dict(),
        }

    def get(self, name: str, cell: Cell, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a set, or of one corruption and severity; None where there is none with this identity."""
        result = self._slot(name, cell).get(_key(cell))
        return result if result is not None and result["identity"] == identity else None

    def measured(self, name: str, like: tuple[str, int], but: Sequence[str] = ()) -> list[tuple[str, int]]:
        """The corruptions and severities of a set that have results on the labels and with the identity of one of them.

        Args:
            but: parts of the identity that may differ.
        """

        def of_one_table(result: Mapping[str, Any]) -> tuple[Any, ...]:
            identity = {key: value for key, value in result["identity"].items() if key not in but}
            return identity, result.get("labels_sha256")

        cells = self.sets[name]["cells"]
        wanted = of_one_table(cells[like[0]][str(like[1])])
        return [(c, int(s)) for c, row in cells.items() for s, result in row.items() if of_one_table(result) == wanted]

    def put(self, name: str, cell: Cell, result: dict[str, Any]) -> None:
        """Keep a result, and write the file."""
        self._slot(name, cell)[_key(cell)] = plain(result)
        self.write()

    def table(self, name: str, cells: Sequence[tuple[str, int]]) -> dict[str, dict[int, float]]:
        """corruption -> severity -> error, of these cells."""
        errors: dict[str, dict[int, float]] = {}
        for corruption, severity in cells:
            accuracy = self.sets[name]["cells"][corruption][str(severity)]["overall"]
            errors.setdefault(corruption, {})[severity] = 1 - accuracy
        return errors

    def summarise(self, name: str, summary: Mapping[str, Any]) -> None:
        """Keep what follows from the cells of a set, and write the file."""
        self.sets[name]["summary"] = plain(summary)
        self.write()

    def to_dict(self) -> dict[str, Any]:
        return {**self.header, "sets": self.sets}

    def write(self) -> None:
        if self.writes:
            write_json(self.path, self.to_dict())

    def _slot(self, name: str, cell: Cell) -> dict[str, Any]:
        of_set: dict[str, Any] = self.sets.setdefault(name, {})
        if cell is None:
            return of_set
        row: dict[str, Any] = of_set.setdefault("cells", {}).setdefault(cell[0], {})
        return row


def read_results(path: str | Path) -> dict[str, Any]:
    """A file of results.

    Raises:
        FileNotFoundError: there is none.
        DamagedFileError: it is damaged, or something else.
    """
    values = read_json(Path(path), check_results, "Remove it, and evaluate again.")
    if values is None:
        raise FileNotFoundError(f"There are no results at {path}: give the JSON file that `ltsam evaluate` wrote.")
    return values


def check_results(values: Any) -> dict[str, Any]:
    """The content of a file of results, as far as all its readers need it.

    Raises:
        ValueError, KeyError, TypeError: it is something else, or incomplete.
    """
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION or "checkpoint" not in values:
        raise ValueError("it does not hold results of an evaluation that this release reads")
    for of_set in values["sets"].values():
        for part, names in _NEEDED.items():
            missing = [name for name in names if part in of_set and name not in of_set[part]]
            if missing:
                raise KeyError(missing[0])
    return values


def has_groups_of(values: Mapping[str, Any], statistics: ClassStatistics | None) -> bool:
    """Whether the groups of results are those of these statistics, as far as both are known: a run may be tested again with
    other bounds.
    """
    measured = values.get("class_statistics")
    if measured is None or statistics is None:
        return True
    return ClassStatistics.from_dict(measured).groups == statistics.groups


def without_groups(values: Mapping[str, Any]) -> dict[str, Any]:
    """Results without accuracies by group."""
    parts = ("result", "summary")
    return {
        **values,
        "sets": {
            name: {part: {**content, "groups": {}} if part in parts else content for part, content in of_set.items()}
            for name, of_set in values["sets"].items()
        },
    }


def measurements(of_set: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The results that the numbers of a set rest on: the only one, or one for each corruption and severity."""
    if "result" in of_set:
        return [of_set["result"]]
    summary, cells = of_set["summary"], of_set["cells"]
    asked = [(corruption, str(severity)) for corruption in summary["errors"] for severity in summary["severities"]]
    return [cells[corruption][s] for corruption, s in asked if s in cells.get(corruption, {})]


def is_whole(of_set: Mapping[str, Any]) -> bool:
    """Whether all images of the set were measured, as far as that is known."""
    return not any(_left_out(result) or _lacking(result) for result in measurements(of_set))


def remarks(of_set: Mapping[str, Any]) -> str:
    """What a reader of the numbers of a set should know; empty where all is as expected."""
    results = measurements(of_set)
    seeds = {result["identity"]["seed"] for result in results if "seed" in result.get("identity", {})}
    notes = [f"corruptions made with seed {seed}" for seed in sorted(seeds)]
    notes += dict.fromkeys(result["note"] for result in results if result.get("note"))
    published = max((result.get("published") or 0 for result in results), default=0)
    if lacking := [number for result in results if (number := _lacking(result))]:
        notes.append(f"{spread_of(lacking)} of {published:,} published images are lacking")
    return "; ".join(notes)


def other_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """How the images of two results differ, in words; empty where they do not, as far as the results say."""
    this, that = one.get("identity", {}), other.get("identity", {})
    if _differ("samples", one, other):
        return f"on other images ({other['samples']:,} and {one['samples']:,})"
    if _differ("labels_sha256", one, other):
        return "on images of other classes"
    if _differ("seed", this, that):
        return f"under corruptions made with other random numbers (--seed {that['seed']} and {this['seed']})"
    if _differ("commit", this, that):
        return f"at another commit of {this['source']} ({that['commit'][:12]} and {this['commit'][:12]})"
    if this.get("source") == that.get("source") and _differ(CONTENT, this, that):
        return f"on images of {this['source']} that have changed in between"
    return ""


def _differ(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Older results do not have all of it."""
    return name in one and name in other and one[name] != other[name]


def spread_of(numbers: Collection[int]) -> str:
    """The number, where it is the same, or the smallest to the largest."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def percent(fraction: float | None) -> str:
    """12.3; a dash for a number that is missing."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _left_out(result: Mapping[str, Any]) -> bool:
    """Results of the first release do not say how many; only whether it was allowed."""
    return bool(result.get("left_out", result.get("identity", {}).get("only_known_classes", False)))


def _lacking(result: Mapping[str, Any]) -> int:
    """Images that the copy did not have."""
    return max((result.get("published") or 0) - result["samples"] - result.get("left_out", 0), 0)


@dataclass(frozen=True)
class OtherErrors:
    """The errors of another checkpoint under the corruptions of a set.

    Args:
        name: of the checkpoint.
        errors: of each corruption and severity, fractions.
        results: that the errors are of.
        path: of the file.
    """

    name: str
    errors: Mapping[tuple[str, int], float]
    results: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    path: str | Path = ""

    def missing(self, cells: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        return [cell for cell in cells if cell not in self.errors]

    def check_images(self, name: str, cell: tuple[str, int], result: Mapping[str, Any]) -> None:
        """Refuse errors on other images than those of a result.

        Raises:
            ValueError: saying how the two differ.
        """
        difference = other_images(result, self.results.get(cell, {}))
        if difference:
            raise ValueError(
                f"--baseline {self.path}: {self.name} was tested {difference} for {name}, so its errors cannot "
                "be compared. Evaluate it in the same way again, or leave --baseline out."
            )

    def over(self, cells: Sequence[tuple[str, int]]) -> Baseline:
        """The means over these corruptions and severities."""
        table: dict[str, dict[int, float]] = {}
        for corruption, severity in cells:
            table.setdefault(corruption, {})[severity] = self.errors[corruption, severity]
        return Baseline.from_table(self.name, table)


def read_baseline(path: str | Path, name: str, cells: Sequence[tuple[str, int]]) -> OtherErrors:
    """The errors of another checkpoint on the same corruptions of the same set.

    Raises:
        ValueError: it was not evaluated on these.
    """
    values = read_results(path)
    corrupted = [other for other, of_set in values["sets"].items() if "cells" in of_set]
    if name not in corrupted:
        raise ValueError(
            f"--baseline {path} has no results on {name}.{nearest(name, corrupted)} Evaluate {name} without --baseline, or "
            "that model on it first."
        )
    results = {
        (corruption, int(severity)): result
        for corruption, row in values["sets"][name]["cells"].items()
        for severity, result in row.items()
    }
    errors = {cell: 1 - result["overall"] for cell, result in results.items()}
    other = OtherErrors(values["checkpoint"]["name"], errors, results, path)
    missing = other.missing(cells)
    if missing:
        shown = ", ".join(f"{corruption} {s}" for corruption, s in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(f"--baseline {path} lacks {len(missing)} of {len(cells)} results on {name}: {shown}.")
    return other


def _key(cell: Cell) -> str:
    return "result" if cell is None else str(cell[1])
