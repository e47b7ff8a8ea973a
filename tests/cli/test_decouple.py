"""`ltsam decouple`: from a finished run to another one whose classifier alone is different."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from hf_ltsam.cli import decouple
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.evaluate import command as evaluate_ood
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.folder import STATE, RunFolder
from hf_ltsam.runs.model import load_run
from hf_ltsam.training.second_stage import SECOND_STAGES

QUICK = [
    "--use_cpu",
    "true",
    "--learning_rate",
    "0.1",
    "--per_device_train_batch_size",
    "4",
    "--many_above",
    "6",
    "--few_below",
    "6",
]
STAGE = ["--use_cpu", "true", "--num_train_epochs", "2", "--learning_rate", "0.1", "--per_device_train_batch_size", "6"]


@pytest.fixture(scope="module")
def first(pictures, tmp_path_factory):
    """A first stage, with a checkpoint in mid-training."""
    out = tmp_path_factory.mktemp("first") / "run"
    train.main([
        "--dataset", str(pictures), "--output_dir", str(out), *QUICK, "--depth", "8", "--num_train_epochs", "2", "--save_strategy",
        "steps", "--save_steps", "6",
    ])  # fmt: skip
    return out


def stage(*words):
    decouple.main([str(word) for word in words])


def changed(a, b):
    a, b = load_run(a).state_dict(), load_run(b).state_dict()
    return {name for name in a if not torch.equal(a[name], b[name])}


CLASSIFIER = {"classifier.weight", "classifier.bias"}
COUNTED = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("name", ["crt", "lws", "maxnorm", "mislas", "cc_sam", "tau_norm"])
def test_the_folder_is_a_run_with_another_classifier(name, first, tmp_path, capsys):
    out = tmp_path / "out"
    stage(first, "--second_stage", name, "--output_dir", out, *STAGE)
    differences = changed(first, out)
    counted = {name for name in differences if name.rpartition(".")[2] in COUNTED}
    assert differences - counted <= CLASSIFIER and "classifier.bias" in differences
    assert bool(counted) == (name == "mislas")  # which shifts batch norm
    record = RunFolder(out).finished_record()
    assert record.second_stage["name"] == name and record.sampling == "class_aware"
    assert record.second_stage["first_stage"]["method"] == RunFolder(first).finished_record().method
    assert record.second_stage["first_stage"]["folder"] == str(first)
    kind, text = SECOND_STAGES[name], model_card(read_facts(out), "me/out").text
    assert f"the second stage {kind.title}" in text and f"{kind.title} ({kind.source}" in text
    changed_now = "the classifier and the running statistics of batch norm" if counted else "the classifier alone"
    assert f"changed {changed_now};" in text
    assert all(f"{{{key}," in text for key in kind.citations) and "`ltsam decouple --config recipe.yaml" in text
    assert record.class_statistics == RunFolder(first).finished_record().class_statistics
    assert record.results["test"]["samples"] == 12 and record.command.startswith(
        f"ltsam decouple {first} --second_stage"
    )
    said, before = capsys.readouterr().out.replace("\n", ""), RunFolder(first).finished_record().results["test"]
    assert f"{name} on {first}" in said and f"First stage: overall {100 * before['overall']:.2f}" in said
    again = open_run(out)  # for `ltsam sharpness`, which reads the recipe
    assert again.statistics.counts == (12, 6, 3) and again.run.model.depth == 8
    if name == "tau_norm":
        assert (
            record.second_stage["tau"] in [k / 20 for k in range(41)] and record.second_stage["chosen_by"] == 4
        )  # 2 + 1 + 1


def test_a_run_whose_recipe_leaves_something_out_is_opened_without_a_word_of_a_start(first, tmp_path, caplog):
    """As those of a release that decided less; what is decided now is not what it was trained with."""
    shutil.copytree(first, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text("".join(line for line in recipe.open() if not line.startswith(("num_train_epochs", "loss"))))
    run = open_run(tmp_path / "run").run
    assert "starts with" not in caplog.text and not {"num_train_epochs", "loss"} & run.settings.keys()


def test_the_model_that_was_tested_is_the_one_that_was_saved(first, pictures, tmp_path):
    out = tmp_path / "out"
    stage(first, "--second_stage", "lws", "--output_dir", out, *STAGE)
    test = pictures / "test"
    evaluate_ood.main(["--model", str(out), "--sets", str(test), "--output_dir", str(tmp_path / "ood"), "--use_cpu"])
    result = json.loads((tmp_path / "ood" / "ood_results.json").read_text())["sets"][str(test)]["result"]
    assert RunFolder(out).finished_record().results["test"]["per_class"] == pytest.approx(result["per_class"])


def test_the_saved_recipe_repeats_it(first, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    stage(first, "--second_stage", "crt", "--output_dir", out, *STAGE)
    stage("--config", out / "recipe.yaml", "--output_dir", again)
    assert (out / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert (out / "recipe.yaml").read_text().splitlines()[1].startswith("# the same again: ltsam decouple --config")


def test_resumed_is_uninterrupted(first, tmp_path):
    words = ["--second_stage", "cc_sam", *STAGE, "--save_strategy", "steps", "--save_steps", "3"]
    stage(first, "--output_dir", tmp_path / "whole", *words, "--save_total_limit", "5")
    stage(
        first,
        "--output_dir",
        tmp_path / "resumed",
        *words,
        "--resume_from_checkpoint",
        tmp_path / "whole" / "checkpoint-3",
    )
    assert changed(tmp_path / "whole", tmp_path / "resumed") == set()


def test_a_job_that_is_started_again_by_the_same_command(first, tmp_path):
    words = [
        "--second_stage",
        "cc_sam",
        "--output_dir",
        tmp_path,
        *STAGE,
        "--save_strategy",
        "steps",
        "--save_steps",
        "3",
    ]
    again = ["--save_total_limit", "5", "--resume_from_checkpoint", "auto"]
    stage(first, *words, *again)
    weights = (tmp_path / "model.safetensors").read_bytes()
    for name in [*(f"checkpoint-{step}" for step in (6, 8)), "metrics.json", "model.safetensors"]:
        shutil.rmtree(path) if (path := tmp_path / name).is_dir() else path.unlink()
    stage(first, *words, *again)
    assert RunFolder(tmp_path).finished_record().resumed
    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_from_a_checkpoint_and_with_cached_features(first, tmp_path):
    stage(
        first / "checkpoint-6",
        "--second_stage",
        "crt",
        "--output_dir",
        tmp_path / "out",
        "--cache_features",
        "true",
        *STAGE,
    )
    assert changed(first / "checkpoint-6", tmp_path / "out") == CLASSIFIER
    assert "conv1.weight" in changed(first, tmp_path / "out")


def test_a_second_stage_on_a_second_stage(first, tmp_path):
    stage(first, "--second_stage", "crt", "--output_dir", tmp_path / "a", *STAGE)
    stage(
        tmp_path / "a",
        "--second_stage",
        "tau_norm",
        "--second_stage_args",
        '{"tau": 1.0}',
        "--output_dir",
        tmp_path / "b",
        *STAGE,
    )
    assert changed(first, tmp_path / "b") <= CLASSIFIER
    torch.testing.assert_close(load_run(tmp_path / "b").classifier.weight.norm(dim=1), torch.ones(3))
    assert RunFolder(tmp_path / "b").finished_record().second_stage["args"]["tau"] == 1.0


def test_reserved_images_are_not_trained_on_and_choose_tau(pictures, tmp_path, caplog):
    words = [
        "--dataset",
        str(pictures),
        "--output_dir",
        str(tmp_path / "first"),
        *QUICK,
        "--depth",
        "8",
        "--reserve",
        "0.25",
    ]
    splits = load_splits(parse(words).data)
    assert (len(splits.train), len(splits.reserved)) == (15, 6)
    seen, kept = (
        {image.tobytes() for image in split[splits.train.column_names[0]]} for split in (splits.train, splits.reserved)
    )
    assert len(seen | kept) == 21 and not seen & kept
    train.main([*words, "--num_train_epochs", "1"])
    assert RunFolder(tmp_path / "first").finished_record().class_statistics["counts"] == [9, 4, 2]
    stage(tmp_path / "first", "--second_stage", "tau_norm", "--output_dir", tmp_path / "out", *STAGE)
    assert RunFolder(tmp_path / "out").finished_record().second_stage["chosen_by"] == 6


def test_a_first_stage_with_a_sampling_of_its_own(pictures, tmp_path):
    train.main(
        [
            "--dataset",
            str(pictures),
            "--output_dir",
            str(tmp_path),
            *QUICK,
            "--depth",
            "8",
            "--max_steps",
            "1",
            "--sampling",
            "square_root",
        ]
    )
    assert (
        RunFolder(tmp_path).finished_record().sampling == "square_root"
        and RunFolder(tmp_path).finished_record().second_stage == {}
    )


@pytest.mark.parametrize(
    ("stage", "words", "told"),
    [("crt", [], "--sampling class_aware --num_train_epochs 30 --learning_rate 0.01 --per_device_train_batch_size 64."),
     ("crt", ["--learning_rate", "0.1", "--sampling", "uniform"], "--num_train_epochs 30 --per_device_train_batch_size 64."),
     ("crt", ["--max_steps", "9"], "--sampling class_aware --learning_rate 0.01 --per_device_train_batch_size 64."),
     ("tau_norm", [], None)],
)  # fmt: skip
def test_the_defaults_that_a_stage_starts_with_are_told(stage, words, told, first, caplog):
    logging.getLogger("transformers").propagate = True
    decouple.parse_second_stage([str(first), "--second_stage", stage, *words])
    said = [r.getMessage() for r in caplog.records if "Not set, so" in r.getMessage()]
    assert said == ([] if told is None else [f"Not set, so the second stage starts with {told} Each of these options sets "
                                             "another value."])  # fmt: skip


def test_a_resumed_stage_is_not_said_to_start(first, caplog):
    logging.getLogger("transformers").propagate = True
    decouple.parse_second_stage([str(first), "--second_stage", "crt", "--resume_from_checkpoint", "true"])
    assert "Not set, so the second stage goes on with --sampling class_aware" in caplog.text


def test_a_second_stage_that_has_been_moved_is_not_begun_anew_in_its_old_place(first, tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / STATE).write_text("{}")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"first_stage: {first}\nsecond_stage: crt\noutput_dir: {tmp_path / 'old'}\n")
    words = ["--config", str(recipe), "--resume_from_checkpoint", "auto"]
    with pytest.raises(ValueError, match=rf"--output_dir {tmp_path} goes on with it"):
        decouple.parse_second_stage(words)
    assert decouple.parse_second_stage([*words, "--output_dir", str(tmp_path)]).config.output_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("option", "shown"),
    [("learning_rate", "(default: 0.01)"), ("num_train_epochs", "(default: 30)"), ("sampling", "(default: class_aware)"),
     ("output_dir", "runs/mine_crt")],
)  # fmt: skip
def test_the_help_shows_the_defaults_of_second_stages(option, shown, capsys):
    with pytest.raises(SystemExit):
        decouple.main(["--help", option])
    assert shown in " ".join(capsys.readouterr().out.split())


def test_the_default_folder_lies_beside_the_first_stage(first):
    run = decouple.parse_second_stage([str(first), "--second_stage", "lws"])
    assert (
        run.config.output_dir == f"{first}_lws"
        and run.config.learning_rate == 0.01
        and run.config.num_train_epochs == 30
    )


@pytest.mark.parametrize(
    ("named", "words", "folder", "seed"),
    [
        ("mine/seed3", [], "mine_lws/seed3", 3),
        ("mine/seed3/checkpoint-6", [], "mine_lws/seed3", 3),
        ("mine/seed3", ["--seed", "5"], "mine_lws/seed5", 5),
        ("mine/seed3", ["--output_dir", "other"], "other", 3),
        ("mine", [], "mine_lws", 0),
    ],
)
def test_the_default_folder_and_seed_of_a_stage_on_one_seed(named, words, folder, seed, first, tmp_path, monkeypatch):
    place = tmp_path / named.removesuffix("/checkpoint-6")
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(first, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    run = decouple.parse_second_stage([named, "--second_stage", "lws", *words])
    assert (run.config.output_dir, run.config.seed) == (folder, seed)
    if named == "mine/seed3" and not words:  # from inside the folder of the seeds
        monkeypatch.chdir(tmp_path / "mine")
        run = decouple.parse_second_stage(["seed3", "--second_stage", "lws"])
        assert Path(run.config.output_dir) == tmp_path / "mine_lws" / "seed3"


def test_the_seeds_of_a_stage_are_found_beside_each_other(first, tmp_path):
    for seed in (0, 1):
        shutil.copytree(first, tmp_path / "mine" / f"seed{seed}", ignore=shutil.ignore_patterns("checkpoint-*"))
        stage(tmp_path / "mine" / f"seed{seed}", "--second_stage", "tau_norm", "--use_cpu", "true")
    facts = read_facts(tmp_path / "mine_tau_norm" / "seed0")
    assert (facts.record.seed, [other.seed for other in facts.other_seeds]) == (0, [1])


def refused(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_refusals(first, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = ["--output_dir", tmp_path / "out", "--use_cpu", "true"]
    for words, message in (
        (["--second_stage", "crt"], "Which run?"),
        ([first], "Which second stage?"),
        (["nowhere", "--second_stage", "crt"], "--first_stage nowhere: there is no such folder."),
        (
            ["cifar100_lt_ir100_ce_cc_sam", "--second_stage", "crt", "--seed", "1"],
            "ltsam train --config cifar100_lt_ir100_ce_cc_sam --seed 1",
        ),
        ([pictures, "--second_stage", "crt"], "has no weights"),
        ([first, "--second_stage", "crt", "--depth", "20"], "the first stage was trained with 8"),
        ([first, "--second_stage", "cr"], "Unknown second stage 'cr'"),
        ([first, "--second_stage", "lws", "--second_stage_args", '{"tau": 1}'], "has no argument 'tau'"),
        (
            [first, "--second_stage", "tau_norm", "--resume_from_checkpoint", first / "checkpoint-6"],
            "tau_norm trains nothing",
        ),
        ([first, "--second_stage", "mislas", "--cache_features", "true"], "mislas shifts batch norm"),
        ([first, "--second_stage", "crt", "--output_dir", first], "is the first stage's own folder"),
        ([first / "checkpoint-6", "--second_stage", "crt", "--output_dir", first], "is the first stage's own folder"),
        (
            [first, "--second_stage", "crt", "--cuda_graphs", "true"],
            "true does not work here: the classifier of a second",
        ),
        ([first, "--second_stage", "cc_sam", "--method", "sam"], "perturbs features and SAM weights"),
    ):
        assert message in refused(capsys, "decouple", *words, *([] if "--output_dir" in words else out)), words
    assert "ltsam decouple RUN" in refused(capsys, "train", "--dataset", pictures, "--second_stage", "crt", *out)
    assert "between 0 and 1" in refused(capsys, "train", "--dataset", pictures, "--reserve", "1.5", *out)
