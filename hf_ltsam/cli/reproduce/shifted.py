"""The runs of a table on other test sets: each evaluation a process, and its numbers beside the published ones."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_ltsam.cli.evaluate.sets import SUFFIX, Places, find_sets
from hf_ltsam.cli.reproduce.runs import RowRun, start_command
from hf_ltsam.cli.reproduce.tables import Row
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.escaping import markdown_code, markdown_table, markdown_text
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.recipe_tables import GROUPS, PublishedShift
from hf_ltsam.runs.report.configurations import spread
from hf_ltsam.runs.report.content import mean_and_deviation


@dataclass(frozen=True)
class Evaluation:
    """One run on other test sets.

    Args:
        run: that has ended.
        sets: by name.
        data_dir: where copies of them are, as `ltsam evaluate` takes it.
        use_cpu: leave an accelerator alone.
    """

    run: RowRun
    sets: tuple[str, ...]
    data_dir: tuple[str, ...] = ()
    use_cpu: bool = False
    holder: str = ""

    @property
    def result(self) -> dict[str, Any] | None:
        """Of all sets; None while one is missing."""
        measured = measured_sets(self.run.folder)
        return measured if set(self.sets) <= set(measured) else None

    @property
    def log(self) -> Path:
        return self.run.folder.with_suffix(".evaluation.log")

    def arguments(self) -> list[str]:
        """The options of `ltsam evaluate`."""
        words = ["--model", str(self.run.folder), "--sets", *self.sets]
        words += ["--data_dir", *self.data_dir] if self.data_dir else []
        return [*words, "--use_cpu"] if self.use_cpu else words

    def start(self, threads: int) -> subprocess.Popen[bytes]:
        """Test; what has been measured before is not measured again."""
        return start_command(["evaluate", *self.arguments()], self.log, threads)


def within_reach(names: Sequence[str], data_dir: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The test sets of which there is a copy, and why there is none of the others.

    Args:
        data_dir: words that read NAME=FOLDER or FOLDER.

    Raises:
        ValueError: a name that does not exist, or folders for a table without other test sets.
        FileNotFoundError: a folder that is stated and not there.
    """
    places = Places.of(data_dir)
    if data_dir and not names:
        raise ValueError(
            f"--data_dir {data_dir[0]}: the table is tested on no other sets. What is trained on is --dataset; "
            "`evaluate: [...]` in a table of your own names other test sets."
        )
    unused = sorted(set(places.folders) - bases_of(names))
    if unused:
        raise ValueError(f"--data_dir {unused[0]}=...: the table has no such test set.{nearest(unused[0], names)}")
    there, missing = list[str](), dict[str, str]()
    for name in names:
        folders = {key: folder for key, folder in places.folders.items() if key in bases_of([name])}
        try:
            find_sets([name], replace(places, folders=folders))
            there.append(name)
        except FileNotFoundError as error:
            missing[name] = str(error).removeprefix("--sets ")
        except ValueError as error:
            raise ValueError(f"The table has evaluate: {str(error).removeprefix('--sets ')}") from error
    return tuple(there), missing


def bases_of(names: Sequence[str]) -> set[str]:
    """The names by which `--data_dir NAME=FOLDER` places these test sets."""
    return {key for name in names for key in (name.partition(":")[0], name.removesuffix(SUFFIX))}


def measured_sets(folder: Path) -> dict[str, Any]:
    """The sets that a run has been tested on to their ends, by name: accuracies by group, mCE and CE in percent."""
    results = RunFolder(folder).evaluation
    sets = {} if results is None else results["sets"]
    return {name: _numbers(of_set) for name, of_set in sets.items() if "result" in of_set or "summary" in of_set}


def _numbers(of_set: Mapping[str, Any]) -> dict[str, Any]:
    if "summary" not in of_set:
        result = of_set["result"]
        return {**_percents(result["overall"], result["groups"]), "mce": None, "ce": {}}
    summary = of_set["summary"]
    accuracies = _percents(1 - summary["mean_error"], summary["groups"])
    return {**accuracies, "mce": summary.get("mce"), "ce": dict(summary.get("ce") or {})}


def _percents(overall: float, groups: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name: None if (value := {"overall": overall, **groups}.get(name)) is None else 100 * value for name in GROUPS
    }


def shifted_row(row: Row, folders: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    """For `table.json`: set -> what was published and what each seed reached, of the sets that have either."""
    measured = [measured_sets(folder) for folder in folders]
    found = {}
    for name in names:
        numbers = [sets[name] for sets in measured if name in sets]
        stated = row.shifted.get(name)
        if numbers or stated is not None:
            found[name] = {"published": None if stated is None else _stated(stated), "seeds": numbers}
    return found


def _stated(stated: PublishedShift) -> dict[str, Any]:
    return {**{name: stated.accuracies.get(name) for name in GROUPS}, "mce": stated.mce, "ce": stated.ce}


def shifted_lines(rows: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> list[str]:
    """Accuracies on the sets, and CE by corruption with mCE; in brackets what was published, then what is missing."""
    lines: list[str] = []
    accuracies = [
        [markdown_code(row["row"], cell=True), markdown_text(name), *(_cell(of_set, group) for group in (*GROUPS, "mce"))]
        for row in rows for name, of_set in row["shifted"].items()
        if any(_cell(of_set, group) != "-" for group in GROUPS)
    ]  # fmt: skip
    if accuracies:
        lines += [
            "",
            "## Other test sets",
            "",
            *markdown_table(["row", "set", *GROUPS, "mCE"], accuracies).splitlines(),
        ]
    corruptions = list(dict.fromkeys(c for row in rows for s in row["shifted"].values() for c in _corruptions(s)))
    errors = [
        [markdown_code(row["row"], cell=True), _cell(of_set, "mce"), *(_cell(of_set, c, of="ce") for c in corruptions)]
        for row in rows for of_set in row["shifted"].values() if _corruptions(of_set)
    ]  # fmt: skip
    if errors:
        lines += ["", "## Corruption errors (CE), relative to AlexNet's in %, lower is better", ""]
        lines += markdown_table(["row", "mCE", *(c.replace("_", " ") for c in corruptions)], errors).splitlines()
    return lines + [
        line
        for name, why in missing.items()
        for line in ("", f"Not tested on {markdown_text(name)}: {markdown_text(why)}")
    ]


def _corruptions(of_set: Mapping[str, Any]) -> list[str]:
    return [c for numbers in (of_set["published"], *of_set["seeds"]) if numbers for c in numbers["ce"]]


def _cell(of_set: Mapping[str, Any], name: str, of: str | None = None) -> str:
    def number(numbers: Mapping[str, Any]) -> float | None:
        value: float | None = (numbers if of is None else numbers[of]).get(name)
        return value

    ours = [value for numbers in of_set["seeds"] if (value := number(numbers)) is not None]
    published = None if of_set["published"] is None else number(of_set["published"])
    shown = mean_and_deviation(*spread(ours))
    return shown if published is None else f"{shown} ({published:g})"
