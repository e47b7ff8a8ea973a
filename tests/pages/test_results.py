"""The tables of RESULTS.md are those of the files of runs that it names."""

import json
import re
import sys
from functools import cache

import pytest
import yaml
from pages.checks import ROOT
from runs.report.made_runs import metrics, predictions, write

from dataset_builders.long_tail import exponential_profile
from hf_ltsam.class_statistics.groups import groups_by_bounds

sys.path.append(str(ROOT / "benchmarks"))
import collect
import tables

FILES = sorted(tables.RESULTS.glob("*.jsonl"))
PLANS = yaml.safe_load((tables.RESULTS / "tables.yaml").read_text(encoding="utf-8"))
BOUNDS = {"digits_demo": (40, 10)}  # many above, few below, where rows do not say; of the others 100 and 20
COUNTS = {"digits_demo": (128, 10, 50), "cifar10_lt_tenth": (500, 10, 100), "cifar100_lt_ir100": (500, 100, 100)}
BY_HAND = {"cifar100_lt_ir100"}  # between published numbers and other looks at the test set
of_each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@cache
def page():
    return tables.PAGE.read_text(encoding="utf-8")


def test_the_page_has_the_tables_of_the_files():
    """Otherwise: python benchmarks/tables.py."""
    assert tables.with_tables(page()) == page()
    marks = [
        f"<!-- {kind}: {name} -->" for name, plan in PLANS.items() for kind in ("rows", "differences") if kind in plan
    ]
    assert sorted(re.findall(r"<!-- (?:rows|differences): \w+ -->", page())) == sorted(marks)


@of_each_file
def test_no_table_of_a_section_with_a_file_is_written_by_hand(file):
    sections = re.split(r"^## ", tables._MARKED.sub("", page()), flags=re.MULTILINE)
    (section,) = [section for section in sections if f"benchmarks/results/{file.name}" in section]
    by_hand = [line for line in section.splitlines() if line.startswith("|") and re.search(r" ± |[+-]\d\.\d \[", line)]
    assert not by_hand or file.stem in BY_HAND


@of_each_file
def test_no_run_is_left_out(file):
    shown = {name for plan in PLANS.values() if plan["file"] == file.stem for name in plan["rows"]["of"].values()}
    for name, runs in tables.configurations(file).items():
        assert name in shown or len(runs) == 1, name
        seeds = [row["seed"] for row in runs]
        assert len(set(seeds)) == len(seeds), name


@pytest.mark.parametrize(("row", "published"), [("sgd", "SGD, published"), ("sam", "SAM, published")])
def test_looks_at_the_test_set_beside_published_numbers(row, published):
    runs = tables.configurations(tables.RESULTS / "cifar100_lt_ir100.jsonl")[f"cifar100_lt/la_{row}"]
    looks = [max(run["history"], key=lambda look: look["overall"]) for run in runs]
    cells = [tables._mean([{"test": look} for look in looks], group) for group in ("overall", "many", "medium", "few")]
    lines = page().splitlines()
    (place,) = (k for k, line in enumerate(lines) if line.startswith(f"| {published} |"))
    assert lines[place + 1].startswith("| the best of our 40 looks") and {len(run["history"]) for run in runs} == {40}
    assert lines[place + 1].endswith(f"| {' | '.join(cells)} |")


@of_each_file
def test_accuracies_follow_from_what_was_right(file):
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        assert row["test"]["overall"] == pytest.approx(100 * sum(row["correct"]) / sum(row["total"]), abs=0.006)
        counts = row.get("counts") or exponential_profile(*COUNTS[file.stem])
        bounds = [row[name] for name in ("many_above", "few_below") if name in row] or BOUNDS.get(file.stem, (100, 20))
        groups = {"balanced": range(len(counts)), **groups_by_bounds(counts, *bounds)}
        for name in groups.keys() & row["test"].keys() if row.get("kind") != "trial" else ():
            tested = [c for c in groups[name] if row["total"][c]]
            mean = 100 * sum(row["correct"][c] / row["total"][c] for c in tested) / len(tested)
            assert row["test"][name] == pytest.approx(mean, abs=0.006)
        if "right" in row:
            assert row["correct"] == [samples.count("1") for samples in row["right"]]
            assert row["total"] == [len(samples) for samples in row["right"]]


def test_numbers_stand_between_the_marks():
    """A cell, an interval and a name of a table: nothing else is compared."""
    for cell in ("| LA | `sgd` | 94.4", "+8.8 [+6.7", "| CE | `sam` | 91.7"):
        assert cell in page() and cell not in tables._MARKED.sub("", page())


def test_samples_are_drawn_in_pairs_where_the_file_says_which_were_right():
    """Two runs of one seed: the closed form of paired proportions; over all samples and of a group."""
    right = ["1" * 50 + "1" * 10 + "0" * 25 + "0" * 15, "1" * 50 + "0" * 10 + "1" * 25 + "0" * 15]
    base, run = (
        {"right": [samples, ""], "counts": [500, 1], "many_above": 100, "few_below": 20, "seed": 0,
         "test": {"overall": 100 * share, "many": 100 * share}}
        for samples, share in zip(right, (0.6, 0.75))
    )  # fmt: skip
    deviation = 100 * ((0.10 + 0.25 - 0.15**2) / 100) ** 0.5
    for found in tables.differences([run], [base], ("overall", "many")).values():
        assert found.difference == pytest.approx(15)
        assert (found.low, found.high) == (
            pytest.approx(15 - 1.96 * deviation, abs=1),
            pytest.approx(15 + 1.96 * deviation, abs=1),
        )


def test_a_line_says_which_samples_were_right(tmp_path, monkeypatch, capsys):
    folder, labels = tmp_path / "mine" / "sgd" / "seed3", [4, 0, 1, 1, 4, 2, 3]
    right = [True, False, True, False, False, True, True]
    record = metrics([0.0, 0.5, 1.0, 1.0, 0.5], seed=3, resumed=False)
    record["results"]["test"] |= {"macro_f1": 0.6, "overall": 4 / 7}
    write(folder / "metrics.json", record)
    write(folder / "predictions.json", predictions(right, labels))
    monkeypatch.setattr(sys, "argv", ["collect.py", str(folder)])
    collect.main()
    row = json.loads(capsys.readouterr().out)
    assert (row["row"], row["seed"], row["many_above"], row["few_below"]) == ("mine/sgd", 3, 20, 10)
    assert row["right"] == ["0", "10", "1", "1", "10"]  # of each class, in the order of the test
    assert (row["correct"], row["total"]) == ([0, 1, 1, 1, 1], [1, 2, 1, 1, 2])
    assert row["test"] == {
        "overall": 57.143,
        "balanced": 60.0,
        "macro_f1": 60.0,
        "ece": 5.0,
        "many": 25.0,
        "medium": 100.0,
        "few": 75.0,
    }


def test_a_run_that_has_not_ended_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["collect.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"No metrics.json in {tmp_path}: these have not ended."):
        collect.main()
