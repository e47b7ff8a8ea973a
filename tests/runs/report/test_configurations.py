"""Which runs are one configuration, and what it is called."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from runs.report.made_runs import metrics, write_run
from runs.report.made_runs import test_result as made_result

from hf_ltsam.runs.recipes import read_recipe
from hf_ltsam.runs.report.by_group import chance, other_bounds
from hf_ltsam.runs.report.calibration import group_gaps
from hf_ltsam.runs.report.comparison.differences import compare
from hf_ltsam.runs.report.configurations import configurations, differing, section, setting, spread
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.saved_parts import Bounds, ShiftedSet

ACCURACIES = [0.9, 0.8, 0.7, 0.4, 0.2]


@pytest.fixture
def made(tmp_path):
    """A function that writes a run and reads it; settings besides those of the record go to the recipe."""
    numbered = iter(range(100))

    def make(recipe=None, **record):
        own = metrics(ACCURACIES, **record)
        settings = {"learning_rate": 0.1, "seed": own["seed"], **(recipe or {})}
        return read_run(write_run(tmp_path / f"run{next(numbered)}", own, recipe=settings))

    return make


def titles(*runs):
    return [(c.title, len(c.runs)) for c in configurations(runs)]


def test_seeds_are_grouped(made):
    runs = [made(seed=s, method=m) for s in (0, 1, 2) for m in ("sgd", "focal_sam")]
    assert titles(*runs) == [("CE + SGD", 3), ("CE + Focal-SAM", 3)]


def test_what_does_not_change_the_training_does_not_part_runs(made):
    first = made({"output_dir": "here", "logging_steps": 10, "dataset": "/a", "disable_tqdm": True, "save_steps": 0.3})
    second = made({"output_dir": "there", "eval_strategy": "epoch", "dataset": "/b", "save_strategy": "no"}, seed=1)
    assert titles(first, second) == [("CE + SGD", 2)]


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.2}, {"num_train_epochs": 300}, {"per_device_train_batch_size": 16}]
)
def test_settings_part_runs_and_name_them(made, change):
    ((name, value),) = change.items()
    first, second = configurations([made(), made(change, seed=1)])
    assert second.title == f"CE + SGD ({name} {value})"
    assert differing([first, second]) == [name] and setting(second, name) == str(value)


def test_arguments_of_the_method_part_runs(made):
    runs = [made(method="sam", args={"rho": rho}) for rho in (0.05, 0.2)]
    assert titles(*runs) == [("CE + SAM (rho 0.05)", 1), ("CE + SAM (rho 0.2)", 1)]


def test_a_method_that_applies_throughout_needs_no_words(made):
    runs = [made(method="sam", args={"rho": 0.3, "interval": 1, "start": s, "stop": 1.0}) for s in (0.0, 0.8)]
    assert titles(*runs) == [("CE + SAM", 1), ("CE + SAM (start 0.8)", 1)]


def test_training_sets_part_runs(made):
    other = {"dataset": "images", "training_labels_sha256": "11"}
    assert [count for _, count in titles(made(), made(data=other, seed=1))] == [1, 1]


def test_losses_and_reweighting_are_named_as_in_the_papers(made):
    weighted = {"scheme": "effective_number", "start": 0.8}
    runs = [
        made(loss="logit_adjustment", method="sam"),
        made(reweighting=weighted),
        made(loss="my_loss", method="my_method"),
    ]
    assert [title for title, _ in titles(*runs)] == ["LA + SAM", "CE-DRW + SGD", "my_loss + my_method"]


def test_titles_are_unique(made):
    long = {"prompt_names": "x" * 100}
    names = [title for title, _ in titles(made(), made(long, seed=1), made({"prompt_names": "y" * 100}))]
    assert len(set(names)) == 3


def test_a_run_without_metrics_is_named_by_its_recipe(tmp_path):
    folder = write_run(tmp_path / "run", metrics(ACCURACIES), recipe={"method": "imbsam", "loss": "ldam"})
    (folder / "metrics.json").unlink()
    assert titles(read_run(folder)) == [("LDAM + ImbSAM, without results", 1)]


@pytest.mark.parametrize("loss", ["metrics.json is gone", "metrics.json is damaged"])
def test_a_seed_without_results_differs_in_no_setting(tmp_path, loss):
    """Its recipe says less than a record does."""
    folders = [
        write_run(tmp_path / f"seed{seed}", metrics(ACCURACIES, seed), recipe={"method": "sgd", "seed": seed})
        for seed in range(3)
    ]
    (folders[2] / "metrics.json").write_text("{")
    if loss == "metrics.json is gone":
        (folders[2] / "metrics.json").unlink()
    made = configurations([read_run(folder) for folder in folders])
    assert [(c.title, len(c.runs)) for c in made] == [("CE + SGD", 2), ("CE + SGD, without results", 1)]
    assert differing(made) == []


def test_means_and_deviations():
    assert spread([1.0, 2.0, 6.0]) == (3.0, pytest.approx(np.sqrt(7)))
    assert spread([2.0])[0] == 2.0 and np.isnan(spread([2.0])[1]) and np.isnan(spread([])).all()


def test_what_a_published_row_assumes_is_in_the_report(made):
    runs = [made(read_recipe(f"cifar100_lt_ir{ratio}_la_focal_sam"), method="focal_sam") for ratio in (100, 200)]
    (table,) = [table for table in section(configurations(runs)).tables if table.caption.startswith("Assumed")]
    assert [row[1] for row in table.rows] == ["method_args.rho", "method_args.gamma", "method_args.lam"]
    assert all("imbalance_ratio 200" in row[0] and "stated for other recipes only" in row[2] for row in table.rows)
    assert not [t for t in section(configurations(runs[:1])).tables if t.caption.startswith("Assumed")]


STAGE = {
    "name": "crt", "args": {}, "title": "cRT", "source": "", "citations": [],
    "first_stage": {"folder": "runs/x/seed0", "method": {"name": "sam", "args": {}}, "loss": {"name": "logit_adjustment", "args": {}}},
}  # fmt: skip


@pytest.mark.parametrize("record, recipe, title", [
    ({"second_stage": STAGE}, {}, "LA + SAM, then cRT"),
    ({"second_stage": STAGE, "method": "sam"}, {}, "LA + SAM, then cRT by CE + SAM"),
    ({"second_stage": {**STAGE, "first_stage": {"folder": "runs/x/seed0"}}}, {}, "runs/x/seed*, then cRT"),
    ({"second_stage": {**STAGE, "title": ""}}, {}, "LA + SAM, then crt"),
    ({"model": {"adapter": "lora"}}, {}, "CE + SGD, lora"),
    ({"model": {"head": "cosine", "spectral_norm": ["*"]}}, {}, "CE + SGD, cosine head, spectral norm"),
    ({"weight_averaging": {"start": 0.75, "interval": 1}}, {}, "CE + SGD, averaged weights"),
    ({"sampling": "class_aware"}, {}, "CE + SGD, class-aware sampling"),
    ({"data": {"test_time": "five_crops", "training_labels_sha256": "00"}}, {}, "CE + SGD, five crops"),
    ({"reweighting": {"scheme": "inverse", "start": 0.0}}, {}, "CE-RW + SGD"),
    ({}, {"swa_start": 0.5}, "CE + SGD, averaged weights"),
    ({}, {"load_best_model_at_end": True}, "CE + SGD, best checkpoint"),
    ({}, {"optim": "adamw_torch_fused"}, "CE + AdamW"),
    ({}, {"optim": "lion_32bit"}, "CE + lion_32bit"),
    ({"method": "sam"}, {"optim": "adamw_torch"}, "CE + SAM"),
])  # fmt: skip
def test_a_title_carries_what_makes_a_run_different(made, record, recipe, title):
    assert titles(made(recipe, **record)) == [(title, 1)]


@pytest.mark.parametrize(
    ("places", "members"),
    [
        (["a/seed0", "a/seed1"], [2]),
        (["x", "y"], [1, 1]),  # both of the default seed
        (["a/seed0", "b/seed0", "b/seed1", "a/seed1"], [2, 2]),
        (["a/seed0", "x", "a/seed1"], [2, 1]),
    ],
)
def test_two_runs_of_one_seed_are_no_two_seeds(made, places, members):
    """They may differ in what no record holds, so that they are never paired across folders."""
    runs = [
        dataclasses.replace(made(seed=int(place.partition("seed")[2] or 0)), folder=Path(place)) for place in places
    ]
    found = configurations(runs)
    assert [len(c.runs) for c in found] == members and len({c.title for c in found}) == len(found)
    assert all(len({run.folder.parent for run in c.runs}) == 1 for c in found)


def test_many_differences_are_counted(made):
    other = {f"setting{k}": "x" * 10 for k in range(8)}
    (_, first), (_, second) = [(c.runs, c.title) for c in configurations([made(), made(other, seed=1)])]
    assert first == "CE + SGD" or first.startswith("CE + SGD (")
    assert second.endswith(" more)") and len(second) < 80


def test_all_groups_are_by_one_set_of_bounds(made):
    """Recorded by other bounds, the same accuracies by class give the same groups, and differences inside their intervals."""
    first, second = made(), made(method="sam")
    bounds = {"counts": [40, 30, 12, 5, 2], "tail_threshold": 5, "many_above": 35, "few_below": 30}
    results = {"test": {**metrics(ACCURACIES)["results"]["test"], "groups": {"many": 0.9, "medium": 0.8, "few": 0.43}}}
    other = made(method="sam", class_statistics=bounds, results=results)
    shifted = {"x": ShiftedSet({"overall": 0.5, "many": 0.9}, 10, {}, bounds=Bounds(35, 30))}
    history = [{"epoch": 1.0, "eval_many": 0.9, "eval_overall": 0.5}]
    other = dataclasses.replace(other, shifted=shifted, history=history)
    base, same, apart = configurations([first, second, other])
    for group in ("overall", "balanced", "many", "medium", "few", "head", "tail"):
        assert base.accuracies(group) == same.accuracies(group) == apart.accuracies(group) != []
    (compared,) = [c for c in compare([base, apart]) if c.configuration is apart]
    assert all(i.low <= i.difference <= i.high and i.difference == 0 for i in compared.intervals.values())
    assert apart.runs[0].shifted["x"].accuracy == {"overall": 0.5} and "eval_many" not in apart.runs[0].history[0]
    assert other_bounds([base, same]) == [] and "many above 35 and few below 30" in other_bounds([base, apart])[0]
    assert group_gaps(apart.runs[0]) == {} and apart.statistics == base.statistics


def test_groups_by_rank_hold_for_all_that_have_as_many_classes(made):
    """The first run decides; one that was recorded by bounds is computed anew, one of another number of classes is not."""
    first, second = made(), made(method="sam")
    ranked = dataclasses.replace(first, metrics=first.metrics.with_bounds(Bounds(20, 10, None, (3, 1, 1))))
    base, other = configurations([ranked, second])
    assert base.statistics.group_sizes == other.statistics.group_sizes == (3, 1, 1)
    assert base.accuracies("many") == [np.mean(ACCURACIES[:3])] == other.accuracies("many")
    kept = second.metrics.with_bounds(Bounds(20, 10, None, (3, 1, 7)))
    assert kept.statistics.groups == second.metrics.statistics.groups
    assert "many above 20 and few below 10" in other_bounds([base, other])[0]


@pytest.mark.parametrize("per_class, losses, said", [
    (ACCURACIES, [2.0, 1.0], []),
    ([1.0, 0.0, 0.0, 0.0, 0.0], [1.6, 1.6], ["at chance (20.00 %.*taken for one class"]),
    ([0.2, 0.3, 0.2, 0.2, 0.1], [1.6, 1.6], ["at chance.*no better than guesses"]),
    ([0.0] * 5, [1.6, float("nan")], ["at chance", "diverged: its loss went from 1.6 to nan"]),
    (ACCURACIES, [1.0, 9.0], ["diverged: its loss went from 1 to 9"]),
])  # fmt: skip
def test_chance_and_divergence_are_said(made, per_class, losses, said):
    run = dataclasses.replace(
        made(results={"test": made_result(per_class)}), history=[{"loss": loss, "step": 1} for loss in losses]
    )
    level, *remarks = chance(configurations([run]))
    assert "gives 20 % in all" in level and len(remarks) == len(said)
    assert all(re.search(words.replace("(", r"\("), remark) for words, remark in zip(said, remarks))
