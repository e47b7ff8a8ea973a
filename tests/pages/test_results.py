"""The tables of RESULTS.md are those of the files of runs that it names."""

import json
import re
import sys
from math import nan

import pytest
from pages.checks import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import tables

FILES = sorted((ROOT / "benchmarks" / "results").glob("*.jsonl"))
COLUMNS = {"overall": "overall", "balanced": "balanced", "many": "many", "medium": "medium", "few": "few",
           "macro F1": "macro_f1", "ECE": "ece"}  # fmt: skip
ROUNDED_TWICE = 0.011  # the files have two digits or three


def rows_of(section):
    """Metric -> text, of every row of every table, without what is no metric."""
    for table in re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE):
        header, _, *lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
        for line in lines:
            yield {COLUMNS[name]: cell for name, cell in zip(header, line) if name in COLUMNS}


def shown_in(section):
    """Rows with deviations: of several seeds."""
    return [cells for cells in rows_of(section) if cells and all(" ± " in cell for cell in cells.values())]


def differences_in(section):
    """Rows of differences, which have signs."""
    return [
        {metric: float(cell.split()[0]) for metric, cell in cells.items()}
        for cells in rows_of(section)
        if cells and all(re.match(r"[+-]\d", cell) for cell in cells.values())
    ]


def section_of(file):
    sections = re.split(r"^## ", (ROOT / "RESULTS.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    [section] = [section for section in sections if f"benchmarks/results/{file.name}" in section]
    return section


def agree(cells, rows):
    for metric, cell in cells.items():
        written = [float(number) for number in cell.split(" ± ")]
        values = [row["test"][metric] for row in rows]
        found = [tables.np.mean(values), tables.np.std(values, ddof=1)]
        if any(abs(a - b) > 0.05 + ROUNDED_TWICE for a, b in zip(written, found)):
            return False
    return True


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_mean_comes_from_the_runs(file):
    configurations = [rows for rows in tables.configurations(file).values() if len(rows) > 1]
    rows = shown_in(section_of(file))
    assert bool(rows) == bool(configurations)
    for cells in rows:
        assert any(agree(cells, runs) for runs in configurations), cells


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_run_is_left_out(file):
    rows = shown_in(section_of(file))
    for name, runs in tables.configurations(file).items():
        assert len(runs) == 1 or any(agree(cells, runs) for cells in rows), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_difference_is_one_of_two_configurations(file):
    runs = tables.configurations(file).values()
    for cells in differences_in(section_of(file)):
        means = [
            {metric: tables.np.mean([row["test"].get(metric, nan) for row in rows]) for metric in cells}
            for rows in runs
        ]
        assert any(
            all(abs(one[metric] - other[metric] - cell) <= 0.05 + ROUNDED_TWICE for metric, cell in cells.items())
            for one in means
            for other in means
        ), cells


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_row_has_each_seed_once(file):
    for name, runs in tables.configurations(file).items():
        seeds = [row["seed"] for row in runs]
        assert len(set(seeds)) == len(seeds), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accuracies_follow_from_what_was_right(file):
    for row in map(json.loads, file.read_text().splitlines()):
        assert row["test"]["overall"] == pytest.approx(100 * sum(row["correct"]) / sum(row["total"]), abs=0.006)
        if row.get("kind") != "trial":
            groups = tables.groups_of(file.stem, row)
            for name in {"balanced", "many", "medium", "few"} & set(row["test"]):
                tested = [c for c in groups[name] if row["total"][c]]
                mean = 100 * sum(row["correct"][c] / row["total"][c] for c in tested) / len(tested)
                assert row["test"][name] == pytest.approx(mean, abs=0.006)
        if "right" in row:
            assert row["correct"] == [samples.count("1") for samples in row["right"]]
            assert row["total"] == [len(samples) for samples in row["right"]]
