"""The tables of RESULTS.md, from the files of runs under benchmarks/results.

    python benchmarks/tables.py                                          # writes them into RESULTS.md, between their marks
    python benchmarks/tables.py benchmarks/results/digits_demo.jsonl     # prints all that is in a file

Means and standard deviations are over seeds. Intervals are 95 % and those of `ltsam report`: what other seeds would change,
by Student's t, and, where the file says of both sides which test samples a run had right, what other test samples would. Of
one seed each without that there is none. `benchmarks/collect.py` makes lines of such files.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hf_ltsam.class_statistics.groups import groups_by_bounds
from hf_ltsam.runs.report.comparison.paired_bootstrap import (
    REPLICATES,
    Interval,
    differences_of_means,
    interval,
    resample_images,
)

Floats = NDArray[np.float64]
Row = Mapping[str, Any]
RESULTS = Path(__file__).with_name("results")
PAGE = RESULTS.parents[1] / "RESULTS.md"
COLUMNS = {"macro F1": "macro_f1", "ECE": "ece"}  # the others are called as in the files
METRICS = ("overall", "balanced", "many", "medium", "few", "macro F1", "ECE")
COMPARED = METRICS[:5]
_MARKED = re.compile(r"<!-- (rows|differences): (\w+) -->\n.*?<!-- end -->\n", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file", type=Path, nargs="?", help="print what is in this file; without it RESULTS.md is written"
    )
    options = parser.parse_args()
    if options.file is None:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    found = configurations(options.file)
    if not found:
        parser.error(f"{options.file} holds no run but trials.")
    first = next(iter(found))
    of = {name: name for name in found}
    print("\n".join(rows_table(found, {"names": "row", "columns": METRICS, "of": of})), "\n")
    pairs = {f"{name} - {first}": (name, first) for name in found if name != first}
    print("\n".join(differences_table(found, {"columns": COMPARED, "of": pairs})))


def with_tables(page: str) -> str:
    """The page with its tables as the files have them."""
    plans = yaml.safe_load((RESULTS / "tables.yaml").read_text(encoding="utf-8"))

    def table(mark: re.Match[str]) -> str:
        kind, name = mark.groups()
        found = configurations(RESULTS / f"{plans[name]['file']}.jsonl")
        made = (rows_table if kind == "rows" else differences_table)(found, plans[name][kind])
        return "\n".join([f"<!-- {kind}: {name} -->", *made, "<!-- end -->\n"])

    return _MARKED.sub(table, page)


def configurations(file: Path) -> dict[str, list[Row]]:
    """Name -> runs, one a seed. Trials on a reserve are left out; "NAME adjusted" has log pi subtracted afterwards."""
    found: dict[str, list[Row]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("kind") == "trial":
            continue
        found.setdefault(row["row"], []).append(row)
        if row["loss"] == "cross_entropy" and "test_adjusted" in row:
            adjusted = {key: value for key, value in row.items() if key != "right"} | {"test": row["test_adjusted"]}
            found.setdefault(f"{row['row']} adjusted", []).append(adjusted)
    return found


def rows_table(found: Mapping[str, Sequence[Row]], plan: Mapping[str, Any]) -> list[str]:
    """Lines: a row of means for each configuration."""
    header = [plan["names"], *plan["columns"]]
    lines = [[shown, *(_mean(found[name], column) for column in plan["columns"])] for shown, name in plan["of"].items()]
    return _lines(header, lines)


def differences_table(found: Mapping[str, Sequence[Row]], plan: Mapping[str, Any]) -> list[str]:
    """Lines: a row of differences for each pair of configurations, the second subtracted."""
    lines = []
    for shown, (name, base) in plan["of"].items():
        rows, others = found[name], found[base]
        intervals = differences(rows, others, [column for column in plan["columns"] if column in rows[0]["test"]])
        alone = len(rows) == len(others) == 1 and "right" not in rows[0]
        cells = [_cell(intervals.get(column), alone) for column in plan["columns"]]
        if plan.get("seeds"):
            ahead = [_seeds_ahead(rows, others, column) for column in plan["columns"]]
            cells = [f"{cell} ({number})" for cell, number in zip(cells, ahead)]
        lines.append([shown, *cells])
    return _lines(["", *plan["columns"]], lines)


def _lines(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    number = sum(cell.count(" | ") + 1 for cell in header)
    texts = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, *lines)]
    return [texts[0], f"|{'---|' * number}", *texts[1:]]


def _mean(rows: Sequence[Row], column: str) -> str:
    """With the standard deviation where there are several seeds and it is of the test."""
    if column == "training":  # accuracy on the training samples, of the seeds that have it
        return f"{np.mean([row['training']['balanced'] for row in rows if row['training']]):.1f}"
    if column == "CPU min":
        known = all("cpu_seconds" in row for row in rows)
        return f"{np.mean([row['cpu_seconds'] for row in rows]) / 60:.1f}" if known else "-"
    if COLUMNS.get(column, column) not in rows[0]["test"]:
        return "-"
    values = _of(rows, column)
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _of(rows: Sequence[Row], column: str) -> Floats:
    """(S,) of the test, in %."""
    return np.array([row["test"][COLUMNS.get(column, column)] for row in rows])


def _seeds_ahead(rows: Sequence[Row], base: Sequence[Row], column: str) -> int:
    assert [row["seed"] for row in rows] == [row["seed"] for row in base]
    return int((_of(rows, column) - _of(base, column) > 1e-9).sum())


def _cell(found: Interval | None, alone: bool) -> str:
    """Without the interval of one run each of which nothing more is known."""
    if found is None:
        return "-"
    return f"{found.difference:+.1f}" + ("" if alone else f" [{found.low:+.1f}, {found.high:+.1f}]")


def differences(rows: Sequence[Row], base: Sequence[Row], columns: Sequence[str], seed: int = 0) -> dict[str, Interval]:
    """Column -> mean of some runs minus that of others, in points."""
    generator, both = np.random.default_rng(seed), [*base, *rows]
    if all("right" in row for row in both):
        drawn = _resampled(both, columns, generator)
    else:
        drawn = {column: np.tile(_of(both, column), (10 * REPLICATES, 1)) for column in columns}
    found = {}
    for column, accuracies in drawn.items():
        first, second = np.split(accuracies, [len(base)], axis=1)
        replicates = differences_of_means(first, second, deepcopy(generator))  # other seeds alike in every column
        found[column] = interval(float(_of(rows, column).mean() - _of(base, column).mean()), replicates)
    return found


def _resampled(rows: Sequence[Row], columns: Sequence[str], generator: np.random.Generator) -> dict[str, Floats]:
    """Column -> accuracies (B, R) in %, the same test samples drawn anew for all runs."""
    numbers = [len(samples) for samples in rows[0]["right"]]
    right = np.array([[letter == "1" for samples in row["right"] for letter in samples] for row in rows]).T  # (N, R)
    labels = np.repeat(np.arange(len(numbers)), numbers)
    tested = {str(c): (c,) for c, number in enumerate(numbers) if number}
    groups = groups_by_bounds(rows[0]["counts"], rows[0]["many_above"], rows[0]["few_below"])
    by_name = resample_images(
        right, labels, {"balanced": range(len(numbers)), **groups, **tested}, generator, REPLICATES
    )
    by_name["overall"] = np.average(
        [by_name[c] for c in tested], axis=0, weights=[numbers[c] for (c,) in tested.values()]
    )
    return {column: 100 * by_name[column] for column in columns}


if __name__ == "__main__":
    main()
