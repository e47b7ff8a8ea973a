"""Bounds of the groups where none are stated: the same in a run's record, for all who read it, and in Python."""

import dataclasses

import pytest
from cli.picture_folders import draw_images

from hf_ltsam import ClassStatistics
from hf_ltsam.cli.decouple import make_second_stage_run
from hf_ltsam.cli.options.wording import in_options
from hf_ltsam.cli.train.arguments import make_run
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.cli.train.train import run_training
from hf_ltsam.cli.tune.reserve import load_reserve
from hf_ltsam.cli.tune.trial import run_of_trial
from hf_ltsam.runs.class_frequencies import remark_on_bounds
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.training import training_set

COUNTS, FITTING, USUAL = (12, 6, 3), {"many_above": 10, "few_below": 5}, {"many_above": 100, "few_below": 20}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("fitting_groups")
    draw_images(root / "images" / "train", COUNTS, 12)
    draw_images(root / "images" / "test", (2, 2, 2), 12, seed=1)
    quick = {"use_cpu": True, "depth": 8, "learning_rate": 0.1, "max_steps": 1, "disable_tqdm": True, "method": "sgd"}
    return {"dataset": str(root / "images"), "output_dir": str(root / "run"), **quick}


def test_a_run_uses_and_records_them(settings, monkeypatch):
    said = []
    monkeypatch.setattr(training_set.logger, "warning", said.append)
    record = run_training(make_run(settings))
    place = RunFolder(settings["output_dir"])
    assert ClassStatistics(COUNTS).bounds == place.statistics.bounds == FITTING
    for recorded in (record.class_statistics, record.data):
        assert {name: recorded[name] for name in FITTING} == FITTING
    assert set(record.results["test"]["groups"]) == {"many", "medium", "few"}
    assert [line for line in said if "many above 10 (1 class), medium 5 to 10 (1), few below 5 (1)" in line]
    assert open_run(place.path).statistics.bounds == FITTING
    second = {"first_stage": str(place.path), "second_stage": "tau_norm", "second_stage_args": {"tau": 1.0}}
    assert make_second_stage_run({**second, "use_cpu": True}).data.many_above == 10

    dataclasses.replace(place.statistics, **USUAL).save(place.path)  # a run of before, with the usual bounds
    assert open_run(place.path).statistics.bounds == USUAL


def test_trials_part_the_classes_as_the_whole_set_does(settings, tmp_path):
    reserve = load_reserve(run_of_trial(settings, 0.5, tmp_path).data)
    run = run_of_trial(settings, 0.5, tmp_path, reserve.bounds)
    assert reserve.splits.statistics(run.data, None).groups == ClassStatistics(COUNTS).groups
    stated = load_reserve(run_of_trial({**settings, "few_below": 4}, 0.5, tmp_path).data)
    assert stated.bounds == {}


@pytest.mark.parametrize(
    ("stated", "bounds"),
    [
        ({"builder": "cifar10_lt"}, (1000, 200)),  # its own
        ({"builder": "cifar10_lt", "few_below": 10}, (100, 10)),
        ({"builder": "cifar_lt"}, (10, 5)),
        ({"builder": "table", "many_above": 4}, (4, 5)),
    ],
)
def test_a_published_set_has_its_own(stated, bounds):
    labels = training_set.torch.tensor([0] * 12 + [1] * 6 + [2] * 3)
    splits = Splits(None, None, labels, labels, "label", ["a", "b", "c"])
    assert tuple(splits.statistics(DataArguments(**stated), None).bounds.values()) == bounds


def test_what_is_said_names_arguments_in_python_and_options_on_a_command_line():
    said = remark_on_bounds(ClassStatistics(COUNTS))
    assert said.endswith("ClassStatistics(many_above=...) and ClassStatistics(few_below=...) state others.")
    of_a_command = in_options(said, ["many_above", "few_below"])
    assert of_a_command.endswith("would be empty; --many_above and --few_below state others.")


def test_nothing_is_said_of_the_usual_bounds():
    assert remark_on_bounds(ClassStatistics((500, 50, 5))) is None
    assert remark_on_bounds(ClassStatistics(COUNTS, **USUAL)) is None
