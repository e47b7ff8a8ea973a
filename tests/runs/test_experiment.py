"""Which runs are the same experiment but for the seed: by one table, on which card and report agree."""

from dataclasses import fields

import pytest
from runs.report.made_runs import metrics, write_run

from hf_ltsam import LTSamConfig
from hf_ltsam.cli.train.arguments import SecondStageArguments
from hf_ltsam.cli.train.settings import DataArguments, ModelArguments
from hf_ltsam.runs.card import read_facts
from hf_ltsam.runs.experiment import (
    OF_CHOOSING_THE_BEST,
    OF_ONE_RUN,
    OF_THE_EXPERIMENT,
    experiment_of,
    stock_defaults,
)
from hf_ltsam.runs.folder import Recipe, RunFolder
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.reading import read_run

SETTINGS = [f.name for kind in (LTSamConfig, ModelArguments, DataArguments, SecondStageArguments) for f in fields(kind)]
TABLES = {
    "OF_THE_EXPERIMENT": OF_THE_EXPERIMENT,
    "OF_CHOOSING_THE_BEST": OF_CHOOSING_THE_BEST,
    "OF_ONE_RUN": OF_ONE_RUN,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_classified(name):
    tables = [table for table, names in TABLES.items() if name in names]
    assert len(tables) == 1, (
        f"The setting {name} stands in {tables or 'no table'} of hf_ltsam/runs/experiment.py. Put it into _EXPERIMENT if it "
        "changes the trained weights, the data or what the test measures; into _ONE_RUN if it is a seed, a place or a name, "
        "or about logs, saving, the Hub, speed or memory."
    )


def test_the_tables_name_no_setting_that_does_not_exist():
    assert set().union(*TABLES.values()) == set(SETTINGS)


def pair(tmp_path, first=None, second=None, record=None):
    """Two seeds of one experiment with different recipes, and changes to the record of the second."""
    folders = []
    for seed, settings in enumerate((first, second)):
        values = metrics((0.9, 0.8, 0.7, 0.4, 0.2), seed)
        values |= (record or {}) if seed else {}
        recipe = {"learning_rate": 0.1, "seed": seed, **(settings or {})}
        folders.append(write_run(tmp_path / f"seed{seed}", values, recipe=recipe))
    return folders


def agreed(folders):
    """Whether card and report take them for one experiment; they must not disagree."""
    on_card = len(read_facts(folders[0]).other_seeds) == 1
    in_report = len(configurations([read_run(folder) for folder in folders])) == 1
    assert on_card == in_report
    return on_card


@pytest.mark.parametrize("name", SETTINGS)
def test_card_and_report_agree_on_every_setting(tmp_path, name):
    """Of method, loss, model and data a finished run has the settings from its record, whatever its recipe says."""
    folders = pair(tmp_path, {name: 1}, {name: 2} if name != "seed" else None)
    recorded = experiment_of(RunFolder(folders[0]).record, None)
    assert agreed(folders) == (name in recorded or name not in OF_THE_EXPERIMENT)


@pytest.mark.parametrize("chosen", [{"load_best_model_at_end": True}, {"lr_scheduler_type": "reduce_lr_on_plateau"}])
@pytest.mark.parametrize("name", sorted(OF_CHOOSING_THE_BEST))
def test_evaluations_count_where_they_choose_weights_or_learning_rate(tmp_path, name, chosen):
    assert not agreed(pair(tmp_path, {**chosen, name: 1}, {**chosen, name: 2}))


def test_a_setting_of_a_newer_release_parts_runs(tmp_path):
    assert not agreed(pair(tmp_path, {"brand_new": 1}, {"brand_new": 2}))


def test_data_are_told_apart_by_their_labels(tmp_path):
    data = metrics((0.5,) * 5)["data"]
    assert agreed(pair(tmp_path, record={"data": {**data, "dataset": "elsewhere"}}))
    assert not agreed(pair(tmp_path, record={"data": {**data, "training_labels_sha256": "11"}}))


@pytest.mark.parametrize(
    ("record", "same"),
    [
        ({"hardware": "2 x cpu"}, False),  # batches twice as large
        ({"hardware": "1 x NVIDIA H100"}, True),
        ({"hardware": ""}, True),  # not known
        ({"optimizer": {"name": "Lion", "args": {"lr": 1e-3}}}, False),
    ],
)
def test_processes_and_an_optimizer_of_its_own_part_runs(tmp_path, record, same):
    assert agreed(pair(tmp_path, record=record)) == same


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (("v1", "a"), ("v1", "a"), True),
        (("v1", "a"), ("v2", "b"), False),
        (("v1", "a"), ("v1", "b"), False),  # a tag that was moved
        (("v1", "a"), ("a", "a"), True),
        (("v1", None), ("v2", None), False),
        (("v1", "a"), (None, "a"), False),  # of a data set that goes on
        ((None, "a"), (None, "b"), True),  # whose labels tell whether it went on
        ((None, None), ((), None), True),  # of a release without revisions
    ],
)
def test_revisions_part_runs_by_the_commits_that_they_are(tmp_path, first, second, same):
    """Stated revision and recorded commit of both; the training labels are the same."""
    folders = []
    for seed, (revision, commit) in enumerate((first, second)):
        record = metrics((0.9, 0.8, 0.7, 0.4, 0.2), seed)
        record["data"] |= {} if revision == () else {"dataset_revision": revision}
        record["hub"] = {"dataset": "me/animals", **({"dataset_commit": commit} if commit else {})}
        settings = {"dataset_revision": revision} if revision else {}
        folders.append(write_run(tmp_path / f"seed{seed}", record, recipe={"seed": seed, **settings}))
    assert agreed(folders) == same


def test_without_labels_their_place_tells_data_apart():
    recipes = [Recipe({"dataset": name}, "") for name in ("cifar10", "cifar100")]
    assert experiment_of(None, recipes[0]) != experiment_of(None, recipes[1])
    assert experiment_of(None, None) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"method": {"name": "sgd", "args": {"interval": 2}}},
        {"loss": {"name": "focal", "args": {}}},
        {"loss": {"name": "cross_entropy", "args": {}, "start": 0.5}},
        {"reweighting": {"scheme": "inverse", "start": 0.0}},
        {"sampling": "square_root"},
        {"weight_averaging": {"start": 0.5, "interval": None}},
        {"model": {"depth": 20}},
        {"class_statistics": {"counts": [41, 30, 12, 5, 2], "many_above": 20, "few_below": 10}},
        {"second_stage": {"name": "crt", "args": {}, "first_stage": {"folder": "runs/a/seed1"}}},
    ],
)
def test_what_the_record_says_of_the_experiment_parts_runs(tmp_path, change):
    assert not agreed(pair(tmp_path, record=change))


@pytest.mark.parametrize(
    "change",
    [
        {"timing": {"train_seconds": 5.0}},
        {"hardware": "1 x cuda"},
        {"command": "ltsam train --again"},
        {"versions": {"torch": "9"}},
    ],
)
def test_the_outcome_of_a_run_does_not_part_it(tmp_path, change):
    assert agreed(pair(tmp_path, record=change))


def stage(seed, first="runs/first", **changes):
    """The record of a second stage whose first stage had the same seed."""
    origin = {
        "folder": f"{first}/seed{seed}",
        "weights_sha256": str(seed),
        "method": {"name": "sam"},
        "loss": {"name": "ldam"},
    }
    chosen = {"tau": 0.1 * seed, "accuracies_by_tau": [seed], "chosen_by": 6}
    second = {"name": "tau_norm", "args": {"taus": [0.1, 0.2]}, **chosen, "first_stage": {**origin, **changes}}
    return RunRecord(
        **{k: v for k, v in metrics((0.5,) * 5, seed).items() if k != "schema_version"}, second_stage=second
    )


def test_second_stages_start_from_the_first_stage_of_their_seed():
    recipes = [Recipe({"first_stage": f"runs/first/seed{seed}/checkpoint-9"}, "") for seed in (0, 1)]
    one = experiment_of(stage(0), recipes[0])
    assert one == experiment_of(stage(1), recipes[1]) and one["second_stage"] == "tau_norm"
    assert one != experiment_of(stage(1, first="runs/other"), recipes[1])
    assert one != experiment_of(stage(1, method={"name": "sgd"}), recipes[1])
    assert experiment_of(None, recipes[0]) == experiment_of(None, recipes[1])


def test_an_experiment_is_that_of_its_folder(tmp_path):
    one, other = (RunFolder(folder) for folder in pair(tmp_path, {"report_to": "none", "logging_steps": 5}))
    assert experiment_of(one.record, one.recipe) == experiment_of(other.record, other.recipe)


@pytest.mark.parametrize("stated", [{"weight_decay": 0.0}, {"warmup_steps": 0}, {"label_smoothing_factor": 0.0}])
def test_stating_a_default_is_no_other_experiment(tmp_path, stated):
    assert agreed(pair(tmp_path, second=stated))
    ((name, default),) = stated.items()
    assert not agreed(pair(tmp_path, second={name: default + 0.25}))


def test_the_stock_defaults_are_those_of_ltsam_config():
    ours = {f.name: f.default for f in fields(LTSamConfig)}
    assert stock_defaults() and all(ours[name] == default for name, default in stock_defaults().items())
