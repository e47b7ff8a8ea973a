"""What `benchmarks/full_size.py` counts and adds up."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "benchmarks" / "full_size.py"
SPEC = importlib.util.spec_from_file_location("full_size", FILE)
full_size = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(full_size)


def test_rows_are_all_of_resnet_32_in_the_two_tables():
    """Li et al. 2025: two losses on CIFAR-100, four on both in the ablations; here five methods at four ratios of each."""
    for name in full_size.TABLES:
        rows = full_size.resnet_rows(full_size.read_table(name), [])
        assert rows and not any("clip" in row.name for row in rows)
        assert {row.expanded["imbalance_ratio"] for row in rows} == {10, 50, 100, 200}
        assert {"sgd", "sam", "imbsam", "cc_sam", "focal_sam"} == {row.expanded["method"] for row in rows}


def test_steps_of_a_whole_training():
    """CIFAR-100-LT at ratio 100 has 10,847 images: 170 batches of 64, 200 epochs."""
    (row,) = full_size.resnet_rows(full_size.read_table("li2025_table2"), ["cifar100_lt_ir100_la_sgd"])
    assert full_size.steps(row) == 170 * 200


def test_hours_are_those_of_all_seeds_and_each_kind_is_timed_once(monkeypatch):
    timed = []

    def quarter_of_a_second(row, options, number):
        timed.append(row.name)
        return 0.25

    monkeypatch.setattr(full_size, "seconds_per_step", quarter_of_a_second)
    names = ["cifar100_lt_ir100_la_sgd", "cifar100_lt_ir10_la_sgd"]
    rows = full_size.resnet_rows(full_size.read_table("li2025_table2"), names)
    hours = full_size.estimate(rows, 3, 5, {}, [])
    assert len(timed) == 1
    assert hours == pytest.approx(3 * 0.25 * (170 + 306) * 200 / 3600)  # ratio 10: 19,573 images, 306 batches
