"""`ltsam tune`: trials on a reserve, a table, a figure and a recipe; stopped at any moment, it goes on."""

import json
import logging
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from cli.picture_folders import CLASSES, draw_images
from forked import PYTHON
from text_models import texts, write_lines
from transformers import TrainerCallback

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.options.plugins import PLUGINS, load_plugins
from hf_ltsam.cli.train.arguments import PERTURBING, make_run, parse
from hf_ltsam.cli.train.train import run_training
from hf_ltsam.cli.tune import jobs as processes
from hf_ltsam.cli.tune import study as studies
from hf_ltsam.cli.tune import trial as trials
from hf_ltsam.cli.tune.command import _plans, tune
from hf_ltsam.cli.tune.jobs import run_trials
from hf_ltsam.cli.tune.reserve import bounds_on_rest, contents, load_reserve, remaining
from hf_ltsam.cli.tune.results import LEGEND, remarks, shown, write_results
from hf_ltsam.cli.tune.space import laid_over
from hf_ltsam.cli.tune.study import JOURNAL, Plan, Study
from hf_ltsam.cli.tune.trial import run_of_trial
from hf_ltsam.methods import METHODS
from hf_ltsam.runs.recipes import expand
from hf_ltsam.training.second_stage.tau import hold_out

pytest.importorskip("optuna")
QUICK = {"use_cpu": True, "depth": 8, "learning_rate": 0.1, "per_device_train_batch_size": 6, "max_steps": 4, "many_above": 6,
         "few_below": 6, "normalisation": "cifar10"}  # fmt: skip
SEARCH = {"rho": [0.01, 0.5], "learning_rate": [0.01, 0.3]}


def settings(pictures, **others):
    return {**QUICK, "dataset": str(pictures), "method": "sam", "method_args": {"rho": 0.05}, **others}


def plan(pictures, **others):
    return Plan("mine", settings(pictures), SEARCH, **{"trials": 3, "prune": False, **others})


def trials_of(folder):
    return [(t.number, t.state, t.values, t.accuracies) for t in Study(folder).ended()]


def run_all(folder, made, jobs=1):
    study = Study(folder, made)
    told = []
    run_trials(study, jobs, study.reserve(), lambda _, number: told.append(number))
    return told


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """A search that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "mine"
    assert run_all(folder, plan(pictures)) == [0, 1, 2]
    return folder


# The reserve.


def test_no_content_of_the_reserve_is_in_training_or_test(tmp_path):
    draw_images(tmp_path / "train", (12, 6, 3), 12)
    draw_images(tmp_path / "test", (4, 4, 4), 12, seed=1)
    run = run_of_trial(settings(tmp_path), 0.3, tmp_path / "out")
    before = load_reserve(run.data)
    assert before.left_out == 0 and len(before.splits.test) == 4 + 2 + 1 and len(before.splits.train) == 21 - 7
    held = hold_out(before.splits.train_labels.new_tensor([0] * 12 + [1] * 6 + [2] * 3), 0.3, 0).tolist()
    again, elsewhere = held[0], held[4]  # of the first class, and of the second one
    file = sorted((tmp_path / "train" / CLASSES[0]).iterdir())[again]
    shutil.copy(file, tmp_path / "test" / CLASSES[1] / "the_same.png")  # under another class, too
    kept = next(k for k in range(12, 18) if k not in held)
    second = sorted((tmp_path / "train" / CLASSES[1]).iterdir())
    shutil.copy(second[kept - 12], second[elsewhere - 12])
    now = load_reserve(run.data)
    assert now.left_out == 2 and len(now.splits.test) == 5 and "2 more were left out" in str(now)
    parts = [contents(part, now.splits.label_column) for part in (now.splits.test, now.splits.train)]
    assert not parts[0] & parts[1] and now.splits.reserved is None


def test_a_class_of_one_image_is_trained_on_and_named(tmp_path):
    draw_images(tmp_path / "train", (6, 2, 1), 12)
    draw_images(tmp_path / "test", (2, 2, 2), 12, seed=1)
    reserve = load_reserve(run_of_trial(settings(tmp_path), 0.5, tmp_path / "out").data)
    assert torch.bincount(reserve.splits.train_labels).tolist() == [3, 1, 1] and reserve.unmeasured == (CLASSES[2],)
    assert str(reserve).startswith("4 reserved training images of 2 of 3 classes")


def test_a_reserve_of_texts_says_so(tmp_path):
    write_lines(tmp_path / "news", train=texts((6, 4, 1)), test=texts((2, 2, 2), seed=1))
    reserve = load_reserve(
        run_of_trial({"dataset": str(tmp_path / "news"), "model": "x/y"}, 0.5, tmp_path / "out").data
    )
    assert re.match(r"\d+ reserved training texts of 2 of 3 classes", str(reserve))
    assert "images" not in str(replace(reserve, left_out=2)) and "the same text is in" in str(
        replace(reserve, left_out=2)
    )


def test_trials_have_the_length_that_the_study_began_with(tmp_path):
    """Whatever a later release trains where nothing states it."""
    words = {"dataset": "x", "model": "y", "learning_rate": 0.1}
    (unstated,) = _plans([], {"learning_rate": [0.01, 0.3]}, words, 3, "balanced", 0.2, False, 0, False).values()
    (stated,) = _plans([], {"rho": [0.1, 1]}, {**words, "max_steps": 4}, 3, "balanced", 0.2, False, 0, False).values()
    assert unstated.settings["num_train_epochs"] == 10 and "num_train_epochs" not in stated.settings
    (from_scratch,) = _plans([], {"tau": [0.5, 1]}, {"dataset": "x"}, 3, "balanced", 0.2, False, 0, False).values()
    assert {name: from_scratch.settings[name] for name in PERTURBING} == {
        "method": "sam",
        "method_args": {"rho": 0.1, "start": 0.8},
    }


@pytest.mark.parametrize(
    ("stated", "search", "method"),
    [
        ({}, {"weight_decay": [0.0, 0.1]}, "sgd"),
        ({}, {"tau": [0.5, 2]}, "sgd"),  # of the loss that is taken where none is stated
        ({}, {"per_device_train_batch_size": [2, 4]}, "sgd"),
        ({}, {"rho": [0.01, 0.1]}, "sam"),
        ({}, {"learning_rate": [0.01, 0.1]}, "sgd"),
        ({"model": "cifar_resnet"}, {"learning_rate": [0.01, 0.1]}, "sam"),
        ({"method": "focal_sam"}, {"weight_decay": [0.0, 0.1]}, "focal_sam"),
    ],
)
def test_the_method_of_a_search_is_that_of_its_trials(tmp_path, stated, search, method):
    (plan,) = _plans([], search, {"dataset": "x", "model": "y", **stated}, 3, "balanced", 0.2, False, 0, False).values()
    assert ("method" in plan.settings) is ("rho" not in search)
    laid = laid_over(plan.settings, {parameter: parameter.ends[0] for parameter in plan.parameters})
    assert plan.first["method"] == run_of_trial(laid, 0.2, tmp_path).config.method == method
    (name,) = search
    assert plan.parameters[0].setting == {"tau": "loss_args", "rho": "method_args"}.get(name, name)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_bounds_part_the_same_classes_when_a_share_is_away(share):
    counts = torch.tensor([500, 120, 100, 60, 20, 12, 5, 2, 1])
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
    kept = torch.ones(len(labels), dtype=torch.bool).index_fill(0, hold_out(labels, share, 0), False)
    rest = torch.bincount(labels[kept])
    assert rest.tolist() == [remaining(n, share) for n in counts.tolist()]
    bounds = {"tail_threshold": 20, "many_above": 100, "few_below": 20}
    before = ClassStatistics(counts.tolist(), **bounds)
    after = ClassStatistics(rest.tolist(), **bounds_on_rest(bounds, share))
    assert (before.groups, before.tail_classes) == (after.groups, after.tail_classes)
    assert bounds_on_rest({}, share) == {}  # they follow from the counts
    assert set(bounds_on_rest({"few_below": 5}, share)) == {"many_above", "few_below"}


# A search.


def test_the_first_trial_has_the_values_of_the_recipe_and_the_seed_decides_the_others(whole, pictures, tmp_path):
    first, *others = trials_of(whole)
    assert first[2] == {"rho": 0.05, "learning_rate": 0.1} and {state for _, state, _, _ in [first, *others]} == {
        "complete"
    }
    assert all(0.01 <= values["rho"] <= 0.5 and 0.01 <= values["learning_rate"] <= 0.3 for _, _, values, _ in others)
    other = Study(tmp_path / "mine", plan(pictures, seed=1, trials=10))
    values = [{p.name: v for p, v in other.values(other.next()).items()} for _ in range(4)]
    assert values[0] == first[2] and values[1] != others[0][2]
    assert len({v["rho"] for v in values}) == 4  # before the sampler learns from others, too


def test_a_trial_is_a_training_on_the_rest_of_the_training_set(whole, pictures, tmp_path):
    """The same by `ltsam train` with --reserve, its model evaluated on what it has left out."""
    from hf_ltsam.cli.train.splits import load_splits
    from hf_ltsam.cli.train.train import build_trainer

    _, _, values, accuracies = trials_of(whole)[1]
    chosen = {"method_args": {"rho": values["rho"]}, "learning_rate": values["learning_rate"], "reserve": 0.2}
    run = make_run(
        {
            **settings(pictures),
            **chosen,
            "many_above": 5,
            "few_below": 5,
            "output_dir": str(tmp_path),
            "save_strategy": "no",
        }
    )
    splits = load_splits(run.data)
    reserve = load_reserve(run.data).splits
    trainer = build_trainer(run, reserve)
    trainer.train()
    measured = trainer.evaluate()
    assert {name: measured[f"eval_{name}"] for name in accuracies} == accuracies
    assert len(reserve.train) == len(splits.train) and len(reserve.test) == len(splits.reserved) == 4


def test_nothing_of_a_trial_is_left_but_its_numbers(whole):
    assert sorted(p.name for p in whole.iterdir()) == [studies.PLAN, JOURNAL]


def stopped_at(monkeypatch, trial, step):
    """The process dies in this step of this trial, once."""

    class Dying(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == step and args.output_dir.endswith(f"trial-{trial}"):
                monkeypatch.setattr(trials, "build_trainer", build)
                raise KeyboardInterrupt

    build = trials.build_trainer

    def dying(*args):
        trainer = build(*args)
        trainer.add_callback(Dying())
        return trainer

    monkeypatch.setattr(trials, "build_trainer", dying)


def watched(monkeypatch):
    """Trial -> the steps that it takes from here on."""
    steps = {}

    class Watching(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.setdefault(Path(args.output_dir).name, []).append(state.global_step)

    def watching(*args, build=trials.build_trainer):
        trainer = build(*args)
        trainer.add_callback(Watching())
        return trainer

    monkeypatch.setattr(trials, "build_trainer", watching)
    return steps


@pytest.mark.parametrize("trial", [0, 1])
def test_interrupted_and_started_again_is_uninterrupted(whole, pictures, trial, tmp_path, monkeypatch):
    """The trial goes on from its checkpoint, and the later ones are those that would have come."""
    stopped_at(monkeypatch, trial, 3)
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path / "mine", plan(pictures))
    assert (tmp_path / "mine" / f"trial-{trial}" / "checkpoint-2").is_dir() and len(
        trials_of(tmp_path / "mine")
    ) == trial
    with (tmp_path / "mine" / JOURNAL).open("a") as journal:
        journal.write('{"op_code":6,"worker')  # a kill in the middle of a line
    steps = watched(monkeypatch)
    assert run_all(tmp_path / "mine", plan(pictures)) == list(range(trial, 3))
    assert steps[f"trial-{trial}"] == [3, 4] and all(steps[f"trial-{k}"] == [1, 2, 3, 4] for k in range(trial + 1, 3))
    assert trials_of(tmp_path / "mine") == trials_of(whole)
    assert run_all(tmp_path / "mine", plan(pictures)) == []  # all have ended


def test_more_trials_come_on_top(whole, pictures, tmp_path):
    shutil.copytree(whole, tmp_path / "mine")
    assert run_all(tmp_path / "mine", plan(pictures, trials=4)) == [3]
    assert trials_of(tmp_path / "mine")[:3] == trials_of(whole)


def test_a_folder_of_another_search_is_refused(whole, pictures):
    for changed, said in (
        ({"metric": "overall"}, "metric balanced, which is overall now"),
        ({"reserve": 0.4}, "reserve 0.2, which is 0.4 now"),
        ({"seed": 3}, "seed 0, which is 3 now"),
    ):
        with pytest.raises(ValueError, match=f"{said}.*--output_dir OTHER"):
            Study(whole, plan(pictures, **changed))
    with pytest.raises(ValueError, match="settings depth 8, which is 20 now"):
        Study(whole, Plan("mine", settings(pictures, depth=20), SEARCH, trials=3, prune=False))
    with pytest.raises(ValueError, match="search rho"):
        Study(whole, Plan("mine", settings(pictures), {**SEARCH, "rho": [0.01, 0.6]}, trials=3, prune=False))


@pytest.mark.parametrize(
    ("asked", "ended", "shares", "said"),
    [
        ([3, 3], [1, 0], ["1 of 3", "0 of 3"], "of the best of 3 trials of each recipe."),
        ([2, 2], [3, 3], ["3 of 3", "3 of 3"], "of the best of 3 trials of each recipe."),
        ([2, 2], [3, 2], ["3 of 3", "2 of 2"], "of the best of several trials, not as many of each recipe."),
    ],
)
def test_the_trials_that_are_told_are_those_that_there_are(pictures, tmp_path, asked, ended, shares, said):
    """A later command may ask for fewer than there are."""
    made = []
    for name, wanted, number in zip(("first", "second"), asked, ended):
        study = Study(tmp_path / name, Plan(name, settings(pictures), SEARCH, trials=3))
        for accuracy in [0.6] * number:
            trial = study.next()
            study.values(trial)
            trial.set_user_attr("accuracies", {"balanced": accuracy})
            study.optuna.tell(trial, accuracy)
        made.append(Study(tmp_path / name, Plan(name, settings(pictures), SEARCH, trials=wanted)))
    write_results(tmp_path, made, None)
    table = (tmp_path / "tune.md").read_text()
    assert said in table
    assert [
        line.split(" | ")[2] for line in table.splitlines() if line.startswith(("| `first`", "| `second`"))
    ] == shares


def test_a_trial_behind_the_median_is_stopped(pictures, tmp_path, monkeypatch):
    """Reports at equal shares of the training; not in its first third."""
    study = Study(tmp_path / "mine", plan(pictures, prune=True, trials=4))
    reserve = study.reserve()
    for accuracy in (0.6, 0.7):  # two trials that were good throughout
        trial = study.next()
        study.values(trial)
        for percent in range(10, 100, 10):
            trial.report(accuracy, percent)
        trial.set_user_attr("accuracies", {"balanced": accuracy})
        study.optuna.tell(trial, accuracy)
    seen = []
    monkeypatch.setattr(
        trials._Report, "on_evaluate",
        lambda self, args, state, control, metrics, made=trials._Report.on_evaluate, **k: (
            seen.append(state.global_step), made(self, args, state, control, {**metrics, "eval_balanced": (0.12, 0.1)[len(seen) - 1]}, **k))[1],
    )  # fmt: skip
    trial = study.next()
    study.run(trial, reserve)
    assert seen == [1, 2] and study.ended()[-1].state == "pruned" and study.ended()[-1].accuracies["balanced"] == 0.1
    assert study.best.number == 1
    said = "stopped at epoch 0.667 (50 % of its training): balanced at most 12.00 % until there, below 65.00 %, the median there of 2"
    assert said in shown(study, 2) and "best of the complete ones 70.00 %" in shown(study, 2)
    write_results(tmp_path, [study], reserve)
    assert said in (tmp_path / "tune.md").read_text()
    picture = (tmp_path / "tune.svg").read_text()
    assert all(f"<!-- {label} -->" in picture for label in LEGEND)


@pytest.mark.parametrize(("balanced", "warned"), [(0.3, True), (0.9, False)])
def test_a_best_trial_at_chance_is_warned_of(pictures, tmp_path, balanced, warned):
    study = Study(tmp_path / "mine", plan(pictures))
    reserve = study.reserve()
    assert remarks(study, reserve) == []
    trial = study.next()
    study._tell(trial, trials.Outcome({"balanced": balanced}, False, 1.0, 3.0))
    said = "mine, best trial 0: The mean accuracy over classes, 30.00 %, is at chance (33.33 %, within the error of 4 reserved images)"
    assert [remark.startswith(said) for remark in remarks(study, reserve)] == [True] * warned
    assert "at chance (50.00 %" in remarks(study, replace(reserve, unmeasured=(CLASSES[2],)))[0]  # of two classes


def test_a_search_at_chance_ends_with_a_warning(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_ltsam.cli.tune.command.remarks", lambda study, reserve: [f"{study.plan.name}: at chance"])
    tune([], {"rho": [0.1, 0.2]}, settings(pictures), trials=1, output_dir=tmp_path)
    assert "Warning: settings: at chance" in capsys.readouterr().out


def test_a_trial_that_cannot_be_stopped_is_evaluated_once(pictures, tmp_path, monkeypatch):
    evaluations = []
    monkeypatch.setattr(
        trials._Report, "on_evaluate", lambda self, args, state, *_, **__: evaluations.append(state.global_step)
    )
    study = Study(tmp_path / "mine", plan(pictures, trials=1))
    study.run(study.next(), study.reserve())
    assert evaluations == [QUICK["max_steps"]] and study.ended()[-1].state == "complete"


def test_a_trial_that_diverges_fails_and_the_others_go_on(pictures, tmp_path):
    made = Plan("mine", settings(pictures), {"learning_rate": {"choices": [0.1, 1e30]}}, trials=3, prune=False)
    assert run_all(tmp_path / "mine", made) == [0, 1, 2]
    by_rate = {t.values["learning_rate"]: t for t in Study(tmp_path / "mine").ended()}
    assert by_rate[0.1].state == "complete"
    if 1e30 in by_rate:
        assert by_rate[1e30].state in ("failed", "complete")


def test_a_full_disk_ends_the_command_and_not_the_trial(pictures, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(studies, "run_trial", full)
    with pytest.raises(OSError, match="No space left"):
        run_all(tmp_path / "mine", plan(pictures))
    assert trials_of(tmp_path / "mine") == [] and len(Study(tmp_path / "mine").interrupted()) == 1


# The command.


def test_the_command_writes_a_table_a_figure_and_a_recipe(pictures, tmp_path, capsys, caplog):
    logging.getLogger("transformers").propagate = True
    (tmp_path / "sam.yaml").write_text(yaml.safe_dump(settings(pictures, warmup_steps=2, hub_token="hf_secret")))
    (tmp_path / "sgd.yaml").write_text(yaml.safe_dump({**QUICK, "dataset": str(pictures), "method": "sgd"}))
    cli.main(["tune", str(tmp_path / "sgd.yaml"), str(tmp_path / "sam.yaml"), "--search", "rho: [0.01, 0.5]", "learning_rate: [0.01, 0.3]",
              "--trials", "2", "--output-dir", str(tmp_path / "out"), "--", "--max-steps", "3"])  # fmt: skip
    told = [r.getMessage() for r in caplog.records if "Not set, so" in r.getMessage()]
    assert len(told) == 2 and all("--loss logit_adjustment" in text for text in told)  # once for each study
    said = capsys.readouterr().out
    assert "sgd: 2 trials of sgd. learning_rate: 0.01 to 0.3, log scale" in said
    assert "sam: 2 trials of sam. rho: 0.01 to 0.5, log scale; learning_rate: 0.01 to 0.3, log scale" in said
    assert "sam trial 1 (2 of 2): rho 0." in said and "4 reserved training images of 3 of 3 classes" in said
    out = tmp_path / "out"
    table = (out / "tune.md").read_text()
    assert (
        table.count("2 of 2") == 2
        and "the best of 2 trials of each recipe" in table
        and "| `sam` | LA + SAM |" in table
        and "| `sgd` | LA + SGD |" in table
    )
    assert not [file for file in out.rglob("*") if file.is_file() and b"hf_secret" in file.read_bytes()]
    assert (out / "tune.png").stat().st_size > 5000 and (out / "tune.svg").is_file() and "](tune.png)" in table
    found = json.loads((out / "tune.json").read_text())["studies"]
    assert [len(study["trials"]) for study in found] == [2, 2]
    best = max(found[1]["trials"], key=lambda trial: trial["accuracies"]["balanced"])
    expanded = expand(out / "sam" / "best.yaml")
    assert expanded.settings["method_args"] == {"rho": best["values"]["rho"]} and "reserve" not in expanded.settings
    assert (
        expanded.settings["warmup_steps"] == 2
        and expanded.settings["max_steps"] == 3
        and expanded.settings["many_above"] == 6
    )
    assert (
        expanded.origins["method_args.rho"].kind == "ours"
        and "best of 2 trials" in expanded.origins["method_args.rho"].words
    )
    run = parse(["--config", str(out / "sam" / "best.yaml"), "--output_dir", str(tmp_path / "final")])
    record = run_training(run)
    assert record.results["test"]["samples"] == 12 and record.class_statistics["counts"] == [12, 6, 3]
    assert record.method["args"]["rho"] == best["values"]["rho"]


@pytest.fixture
def own_sam(tmp_path, monkeypatch):
    """SAM under a name that a plugin gives it."""
    file = tmp_path / "my_own_sam.py"
    file.write_text(
        "from hf_ltsam.methods import METHODS, SAM\n\n\nclass Own(SAM):\n    pass\n\n\nMETHODS['own_sam'] = Own\n"
    )
    monkeypatch.setenv(PLUGINS, str(file))
    load_plugins()
    yield "own_sam"
    METHODS.pop("own_sam")
    sys.modules.pop("my_own_sam")


@pytest.mark.slow  # processes that import torch
def test_several_trials_at_a_time_are_the_same_trials(whole, own_sam, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode(PYTHON))
    made = Plan("mine", settings(pictures, method=own_sam), SEARCH, trials=2, prune=False)
    assert sorted(run_all(tmp_path / "mine", made, jobs=2)) == [0, 1]
    here, there = trials_of(tmp_path / "mine"), trials_of(whole)  # the second one is chosen before the first is known
    assert here[0] == there[0] and here[1][1] == "complete" and here[1][2] != there[0][2]
    assert "Traceback" not in (tmp_path / "mine" / "trial-0.log").read_text()


def test_a_process_that_was_killed_has_failed_and_one_that_could_not_write_is_repeated(pictures, tmp_path):
    study = Study(tmp_path / "mine", plan(pictures))
    study.keep()
    trial = study.next()
    study.values(trial)
    (study.folder / "trial-0.log").write_text("No space left\n")
    with pytest.raises(OSError, match=r"the same command goes on with it. No space left"):
        processes._look_at(study, trial, 75)
    assert [t.number for t in study.interrupted()] == [0]
    processes._look_at(study, trial, -9)
    assert study.ended()[0].state == "failed" and "ended with status -9" in study.ended()[0].reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--search", "rho: [0.1, 0.2]", "--trials", "0"], "--trials must be at least 1"),
        (["--search", "rho: [0.1, 0.2]", "--reserve", "1.5"], "--reserve 1.5: a share"),
        (["--search", "rho: [0.1, 0.2]", "--metric", "balancd"], "--metric balancd does not exist. Did you mean 'balanced'"),
        (["--search", "rho: [0.1, 0.2]", "--jobs", "0"], "--jobs must be at least 1"),
        (["--search", "roh: [0.1, 0.2]"], "Did you mean 'rho'"),
        ([], "Nothing to search"),
        (["no_recipe", "--search", "rho: [0.1, 0.2]"], "--config no_recipe: no such file or recipe"),
        (["--search", "rho: [0.1, 0.2]", "--", "--output_dir", "x"], "--output_dir behind -- cannot be given"),
        (["--search", "rho: [0.1, 0.2]", "--", "--reserve", "0.1"], "--reserve behind -- cannot be given"),
        (["--search", "rho: [0.1, 0.2]", "--", "--hub-token", "hf_secret"], "--hub_token behind -- cannot be given"),
        (["--search", "rho: [0.1, 0.2]", "--", "--learning_rat", "0.1"], "Unknown option --learning_rat"),
        (["--search", "rho: [0.1, 0.2]", "--", "--method", "sam"], "No data set"),
        (["second_stage/cifar100_lt_ir100_ce_sgd_then_crt", "--search", "learning_rate: [0.1, 0.2]", "--", "--dataset", "/"], "ltsam decouple"),
        (["--search", "rho: [0.1, 0.2]", "--metric", "many", "--", "--dataset", "PICTURES", "--many_above", "50", "--use_cpu", "true"], "no class of this group"),
        (["cifar100_lt_ir100_ce_sgd", "cifar100_lt_ir100_ce_sam", "--search", "rho: [0.1, 0.2]"], "nothing that cifar100_lt_ir100_ce_sgd could be tried with"),
    ],
)  # fmt: skip
def test_refusals_before_a_trial(words, said, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["tune", *[word.replace("PICTURES", str(pictures)) for word in words]])
    assert end.value.code == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.rglob("trial-*"))


def test_without_optuna(monkeypatch, pictures, tmp_path):
    monkeypatch.setattr(studies, "is_optuna_available", lambda: False)
    with pytest.raises(ValueError, match=r"ltsam tune needs optuna: pip install optuna\."):
        tune([], {"rho": [0.1, 0.2]}, settings(pictures), output_dir=tmp_path)


def test_under_a_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start it without accelerate launch"):
        tune([], {"rho": [0.1, 0.2]})


def test_a_grid_tries_each_combination_once():
    settings = {"method": "sam", "loss": "logit_adjustment"}
    plan = Plan("mine", settings, {"rho": {"choices": [0.1, 0.2]}, "tau": {"choices": [1.0, 2.0]}}, grid=True)
    assert [tuple(values.values()) for values in plan.combinations] == [(0.1, 1.0), (0.1, 2.0), (0.2, 1.0), (0.2, 2.0)]
    with pytest.raises(ValueError, match=r"--search rho: 0.1 to 0.2.*'rho: \{choices: \[0.1, 0.2\]\}'"):
        _ = Plan("mine", settings, {"rho": [0.1, 0.2]}, grid=True).combinations
