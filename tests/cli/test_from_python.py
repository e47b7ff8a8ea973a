"""What the commands do, called with values: a training, and all that is done with the run afterwards."""

import ast
import json
from pathlib import Path

import pytest
from cli.picture_folders import draw_images
from syntax import tree_of

import hf_ltsam.cli
from hf_ltsam.cli.card import card
from hf_ltsam.cli.corrupt import corrupt_dataset
from hf_ltsam.cli.data import set_page
from hf_ltsam.cli.decouple import make_second_stage_run, run_second_stage
from hf_ltsam.cli.evaluate.command import evaluate_model
from hf_ltsam.cli.evaluate.evaluation import EvaluationSettings
from hf_ltsam.cli.methods import method_page
from hf_ltsam.cli.report import report
from hf_ltsam.cli.train.arguments import make_run, parse
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.cli.train.train import run_training
from hf_ltsam.runs.folder import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The data, the run's folder and its record."""
    root = tmp_path_factory.mktemp("from_python")
    draw_images(root / "images" / "train", (12, 6, 3), 12)
    draw_images(root / "images" / "test", (4, 4, 4), 12, seed=1)
    quick = {"use_cpu": True, "depth": 8, "learning_rate": 0.1, "per_device_train_batch_size": 4, "max_steps": 4}
    groups = {"many_above": 6, "few_below": 6, "tail_threshold": 6}
    places = {"dataset": str(root / "images"), "output_dir": str(root / "run")}
    run = make_run({**places, **quick, **groups, "method": "sam", "method_args": {"rho": 0.1}, "disable_tqdm": True})
    return root, run_training(run)


def test_a_training(finished):
    root, record = finished
    assert record == RunFolder(root / "run").finished_record() and record.method["args"]["rho"] == 0.1
    assert record.command.startswith("ltsam train --dataset=") and "--use_cpu=true" in record.command


def test_a_second_stage(finished):
    root, first = finished
    settings = {"first_stage": str(root / "run"), "second_stage": "tau_norm", "second_stage_args": {"tau": 1.0}}
    run = make_second_stage_run({**settings, "output_dir": str(root / "second"), "use_cpu": True, "disable_tqdm": True})
    record = run_second_stage(run)
    assert record.second_stage["tau"] == 1.0
    assert record.class_statistics["counts"] == first.class_statistics["counts"]
    assert record.command.startswith("ltsam decouple --first_stage=")


def test_an_evaluation(finished):
    root, record = finished
    name = str(root / "images" / "test")
    settings = EvaluationSettings(corruptions=("fog",), severities=(1,))
    results = evaluate_model(str(root / "run"), [name, f"{name}_c"], settings, use_cpu=True)
    assert results.sets[name]["result"]["overall"] == record.results["test"]["overall"]
    assert (
        json.loads((root / "run" / "evaluation" / "ood_results.json").read_text())["sets"].keys() == results.sets.keys()
    )
    with pytest.raises(ValueError, match=r"--severities 6 does not exist"):
        EvaluationSettings(severities=(6,))
    with pytest.raises(ValueError, match=r"EvaluationSettings\(batch_size=...\) must be"):
        EvaluationSettings(batch_size=0)


def test_a_report_and_a_card(finished):
    root, _ = finished
    page, damaged = report([root / "run"], root / "report")
    assert page == root / "report" / "report.html" and page.is_file() and not damaged
    assert "sam" in card(root / "run", "me/owls") and "me/owls" in card(root / "run", "me/owls")


def test_corruptions_of_a_folder(finished):
    root, _ = finished
    files = corrupt_dataset(str(root / "images"), root / "corrupted", "test", ["fog"], [1, 2], workers=1)
    assert [file.relative_to(root / "corrupted").as_posix() for file in files] == ["fog/1.parquet", "fog/2.parquet"]
    with pytest.raises(ValueError, match="fogg"):
        corrupt_dataset("nowhere", root / "corrupted", corruptions=["fogg"])


def test_pages_of_a_set_and_of_a_method():
    assert "fingerprint" in set_page("cifar10_lt") and "Focal-SAM" in method_page("focal_sam")
    with pytest.raises(ValueError, match="'cifar10_lt'"):
        set_page("cifar10_l")


def test_a_namespace_goes_no_further_than_the_reader_of_the_command_line():
    """`main` and the functions that turn options into a value are the only ones that see `argparse`."""
    readers = {"stated_by"}
    for file in Path(hf_ltsam.cli.__file__).parent.rglob("*.py"):
        for function in ast.walk(tree_of(file.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name not in readers:
                annotations = [a.annotation for a in function.args.args if a.annotation is not None]
                seen = [ast.unparse(annotation) for annotation in annotations]
                assert not any("Namespace" in text for text in seen), f"{file.name}: {function.name}"


def test_groups_by_rank(finished):
    """`--group_sizes` and the argument of Python are the same, and bounds are not looked at."""
    root, record = finished
    words = ["--dataset", str(root / "images"), "--group_sizes", "1", "2", "0", "--many_above", "6", "--few_below", "6"]
    run = parse(words)
    assert run == make_run(run.settings, words=words)
    statistics = load_splits(run.data).statistics(run.data, None)
    assert [len(classes) for classes in statistics.groups.values()] == [1, 2, 0]
    assert list(statistics.counts) == record.class_statistics["counts"]
