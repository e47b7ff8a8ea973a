"""The training script: the recipe on real images, people's own folders, and what it refuses."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from forked import Script
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from hf_ltsam import CifarResNetForImageClassification, ClassStatistics
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.data import prepare
from hf_ltsam.cli.train.model import ImageFormat
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.folder import RunFolder

QUICK = ["--use_cpu", "true", "--depth", "8", "--learning_rate", "0.1", "--per_device_train_batch_size", "4"]


@pytest.fixture
def large_images(tmp_path):
    draw_images(tmp_path / "large" / "train", (4, 3, 2), 80)
    draw_images(tmp_path / "large" / "test", (2, 2, 2), 80, seed=1)
    return tmp_path / "large"


def words(dataset, out, *more):
    return ["--dataset", str(dataset), "--output_dir", str(out), *QUICK, *more]


def refused(capsys, *arguments):
    """The message with which the script ends, at status 2."""
    with pytest.raises(SystemExit) as exit_:
        train.main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    return capsys.readouterr().err


# --- the recipe on real images ---------------------------------------------------------------------------------------


@pytest.fixture
def cifar100(shared, tmp_path):
    """The shared training draw, and every tenth test image to save time."""
    source, folder = shared / "data" / "cifar100", tmp_path / "cifar100"
    if not source.is_dir():
        pytest.skip(f"no CIFAR-100 at {source}")
    folder.mkdir()
    (folder / "train_ir10.parquet").symlink_to(source / "train_ir10.parquet")
    test = pq.read_table(source / "test.parquet")
    pq.write_table(test.take(list(range(0, len(test), 10))), folder / "test.parquet")
    return folder


@pytest.mark.slow
def test_the_recipe_for_30_steps(cifar100, tmp_path, capsys):
    out = tmp_path / "run"
    train.main(
        [
            "--config",
            "cifar100_lt_ir100_la_focal_sam",
            "--dataset",
            str(cifar100),
            "--max_steps",
            "30",
            "--logging_steps",
            "5",
            "--depth",
            "8",
            "--use_cpu",
            "--output_dir",
            str(out),
        ]
    )
    logs = [entry for entry in json.loads((out / "trainer_state.json").read_text())["log_history"] if "loss" in entry]
    losses = [entry["loss"] for entry in logs]
    assert len(losses) == 6 and np.mean(losses[-2:]) < 0.95 * np.mean(losses[:2])
    assert all(entry["sam_eps_norm"] == pytest.approx(0.3, rel=1e-3) for entry in logs)
    record = RunFolder(out).finished_record()
    assert record.method["name"] == "focal_sam"
    assert {"rho": 0.3, "gamma": 3.2, "lam": 0.8}.items() <= record.method["args"].items()
    assert set(record.results["test"]["groups"]) == {"many", "medium", "few"}
    assert len(record.results["test"]["per_class"]) == 100 and record.results["test"]["samples"] == 1000
    statistics = ClassStatistics.load(out)
    assert (statistics.total, statistics.counts[0], statistics.counts[-1]) == (10847, 500, 5)
    assert [len(classes) for classes in statistics.groups.values()] == [35, 35, 30]


# --- people's own images ---------------------------------------------------------------------------------------------


def test_a_folder_of_images(images, tmp_path, capsys):
    out = tmp_path / "run"
    more = [
        "--method",
        "imbsam",
        "--tail_threshold",
        "6",
        "--many_above",
        "6",
        "--few_below",
        "6",
        "--num_train_epochs",
        "8",
    ]
    train.main(words(images, out, *more))
    record = RunFolder(out).finished_record()
    assert record.class_statistics["counts"] == [12, 6, 3]
    assert record.results["test"]["samples"] == 12
    assert record.results["test"]["overall"] > 0.6  # by colour alone
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("overall", "many", "medium", "few"))
    model = AutoModelForImageClassification.from_pretrained(out)
    assert model.config.id2label == dict(enumerate(CLASSES)) and model.config.label2id["owl"] == 2


def test_the_saved_folder_serves_a_pipeline_that_agrees(images, tmp_path):
    out = tmp_path / "run"
    train.main(words(images, out, "--num_train_epochs", "6"))
    classify = pipeline("image-classification", model=str(out), device="cpu")
    files = sorted((images / "test").rglob("*.png"))
    right = [classify(str(file))[0]["label"] == file.parent.name for file in files]
    assert np.mean(right) == pytest.approx(RunFolder(out).finished_record().results["test"]["overall"])


def test_the_saved_recipe_repeats_the_run(images, tmp_path):
    train.main(words(images, tmp_path / "a", "--max_steps", "3", "--method", "sam", "--method_args", '{"rho": 0.2}'))
    train.main(["--config", str(tmp_path / "a" / "recipe.yaml"), "--output_dir", str(tmp_path / "b")])
    a, b = (RunFolder(tmp_path / name).finished_record() for name in ("a", "b"))
    assert a.results == b.results and a.method == b.method
    assert (a.method["name"], a.method["args"]["rho"]) == ("sam", 0.2)
    assert (tmp_path / "a" / "recipe.yaml").read_text().startswith(f"# {a.command}\n")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_a_drawn_tail_and_held_out_images(images, tmp_path):
    run = parse(words(images / "train", tmp_path / "run", "--held_out_per_class", "1", "--imbalance_ratio", "2"))
    splits = load_splits(run.data)
    assert splits.test_labels.tolist() == [0, 1, 2]
    assert np.bincount(splits.train_labels).tolist() == [5, 3, 2]  # the last class has 2 left: int(5/2)


def test_grey_images_in_one_channel(images, tmp_path):
    train.main(words(images, tmp_path / "run", "--max_steps", "1", "--num_channels", "1"))
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "run").config.num_channels == 1


def test_a_second_run_can_start_from_the_weights_of_the_first(images, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    train.main(words(images, folders[0], "--max_steps", "3"))
    train.main(words(images, folders[1], "--max_steps", "1", "--learning_rate", "1e-9", "--model", str(folders[0])))
    first, second = (AutoModelForImageClassification.from_pretrained(folder) for folder in folders)
    torch.testing.assert_close(second.conv1.weight, first.conv1.weight, rtol=0, atol=1e-6)
    first, second = ((folder / "preprocessor_config.json").read_text() for folder in folders)
    assert first == second


@pytest.fixture
def vit(tmp_path):
    """A tiny ViT for images of 72 pixels, as it would lie on the Hub, with 7 other classes."""
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=72,
        patch_size=24,
        num_labels=7,
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 72, "width": 72}).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.mark.parametrize("pretrained", ["true", "false"])
def test_a_transformers_model_on_larger_images(large_images, vit, tmp_path, pretrained):
    out = tmp_path / "run"
    train.main(
        words(
            large_images,
            out,
            "--model",
            str(vit),
            "--pretrained",
            pretrained,
            "--learning_rate",
            "1e-6",
            "--max_steps",
            "2",
        )
    )
    model = AutoModelForImageClassification.from_pretrained(out)
    assert isinstance(model, ViTForImageClassification) and model.config.id2label == dict(enumerate(CLASSES))
    start = ViTForImageClassification.from_pretrained(vit)
    near = [
        torch.allclose(w, v, atol=1e-3)
        for w, v in zip(model.vit.state_dict().values(), start.vit.state_dict().values())
    ]
    assert all(near) == (pretrained == "true")


def test_a_timm_model(large_images, tmp_path):
    form = {"input_size": (3, 68, 68), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    config = TimmWrapperConfig(architecture="resnet10t", num_labels=5, pretrained_cfg=form)
    TimmWrapperForImageClassification(config).save_pretrained(tmp_path / "timm")
    train.main(words(large_images, tmp_path / "run", "--model", str(tmp_path / "timm"), "--max_steps", "1"))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert isinstance(model, TimmWrapperForImageClassification) and model.config.id2label == dict(enumerate(CLASSES))
    assert model(torch.zeros(1, 3, 68, 68)).logits.shape == (1, 3)


def test_a_tiny_last_batch_is_pointed_out(images, tmp_path):
    """Batch norm takes one image's statistics for the data's: on the digits that cost 30 points."""
    with pytest.warns(UserWarning, match=r"1 of 20 images.*--per_device_train_batch_size 16"):
        train.main(words(images, tmp_path / "run", "--max_steps", "1", "--per_device_train_batch_size", "20"))


# --- resuming --------------------------------------------------------------------------------------------------------


def test_resuming_goes_on_from_the_last_checkpoint(images, tmp_path, capsys, caplog):
    command = words(images, tmp_path / "run", "--num_train_epochs", "2", "--method", "sam", "--save_strategy", "epoch")
    train.main([*command, "--output_dir", str(tmp_path / "whole"), "--resume_from_checkpoint", "false"])
    train.main(command)
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")
    (tmp_path / "run" / "model.safetensors").unlink()
    message = refused(capsys, *command)
    assert "checkpoint-6" in message and "--resume_from_checkpoint true" in message
    train.main([*command, "--resume-from-checkpoint", "true"])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    resumed, whole = (RunFolder(tmp_path / name).finished_record() for name in ("run", "whole"))
    assert resumed.resumed and resumed.train_seconds > resumed.timing["seconds_before"] > 0  # of both parts
    assert not whole.resumed and whole.train_seconds == whole.timing["train_seconds"]
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    # it has ended: no step is left, whatever is set now
    train.main([*command, "--resume-from-checkpoint", "true", "--num_train_epochs", "1"])
    after = RunFolder(tmp_path / "run").finished_record()
    assert (after.timing, after.command) == (resumed.timing, resumed.command)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == recipe
    assert "No step was left" in caplog.text


def test_resuming_with_another_method_is_refused_and_changes_nothing(images, tmp_path, capsys):
    command = words(images, tmp_path / "run", "--max_steps", "1")
    train.main([*command, "--method", "sam"])
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    message = refused(capsys, *command, "--method", "sgd", "--resume_from_checkpoint", "true")
    assert "sam" in message and "sgd" in message
    assert (tmp_path / "run" / "recipe.yaml").read_text() == recipe


@pytest.mark.parametrize(
    ("save", "step"),
    [
        (["--save_steps", "500"], 4),
        (["--save_strategy", "epoch"], 4),
        (["--save_strategy", "no"], 4),
        (["--save_steps", "500", "--eval_strategy", "epoch"], 6),  # the last of an epoch
        (["--save_strategy", "epoch", "--eval_strategy", "steps", "--eval_steps", "4"], 4),
        (["--save_steps", "500", "--eval_strategy", "epoch"], 12),  # the last one
    ],
)
def test_ctrl_c_in_a_step_saves_it_and_a_resumed_run_is_the_same(save, step, images, tmp_path, capsys, monkeypatch):
    command = words(images, tmp_path / "run", "--num_train_epochs", "2", "--method", "sam", *save)
    train.main([*command, "--output_dir", str(tmp_path / "whole")])
    forward, passes = CifarResNetForImageClassification.forward, []

    def interrupted(self, *args, **kwargs):
        passes.append(self.training)
        if self.training and sum(passes) == 2 * step:  # the second pass of one of 12 steps
            signal.raise_signal(signal.SIGINT)
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(CifarResNetForImageClassification, "forward", interrupted)
        with pytest.raises(SystemExit) as stopped:
            train.main(command)
    assert stopped.value.code == 130 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    said = capsys.readouterr().err
    if "no" in save:
        assert "there is nothing to resume" in said and not list((tmp_path / "run").glob("checkpoint-*"))
        return
    assert sum(passes) == 2 * step and "goes on from" in said
    assert (tmp_path / "run" / f"checkpoint-{step}").is_dir()
    train.main([*command, "--resume_from_checkpoint", "true"])
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole"))
    assert one == other
    logs = [
        json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"] for name in ("run", "whole")
    ]
    looked, all_of_them = ([(row["step"], row["eval_overall"]) for row in log if "eval_overall" in row] for log in logs)
    assert looked == all_of_them and bool(looked) == ("--eval_strategy" in save)


def test_a_second_ctrl_c_ends_at_once(images, tmp_path, capsys, monkeypatch):
    forward, passes = CifarResNetForImageClassification.forward, []

    def interrupted(self, *args, **kwargs):
        passes.append(self.training)
        if sum(passes) in (3, 4):
            signal.raise_signal(signal.SIGINT)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(CifarResNetForImageClassification, "forward", interrupted)
    with pytest.raises(SystemExit) as stopped:
        train.main(words(images, tmp_path / "run", "--method", "sam"))
    assert stopped.value.code == 130 and sum(passes) == 4
    assert "nothing to resume" in capsys.readouterr().err and not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(images, tmp_path):
    command = words(
        images, tmp_path / "run", "--num_train_epochs", "100000", "--save_steps", "5", "--save_total_limit", "2"
    )
    script = Script(str(Path(__file__).parents[3] / "training_scripts" / "train.py"), *command)
    while not list(tmp_path.glob("run/checkpoint-*/trainer_state.json")):
        assert script.is_alive, script.output
        time.sleep(0.1)
    os.kill(script.process.pid, signal.SIGINT)
    code, err = script.wait()
    assert code == 130
    assert "Traceback" not in err
    assert sum("--resume_from_checkpoint true goes on from" in line for line in err.splitlines()) == 1


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, said",
    [
        (["--learning_ratee", "1"], ["--learning_ratee", "learning_rate"]),
        (["--method", "focal_sm"], ["'focal_sm'", "'focal_sam'"]),
        (["--method", "sam", "--method_args", '{"roh": 0.1}'], ["'roh'", "'rho'"]),
        (["--method", "sam", "--method_args", '{"rho": -0.1}'], ["rho in --method_args", "non-negative", "-0.1"]),
        (["--method", "sse_sam", "--method_args", '{"gamma": 1.5}'], ["gamma in --method_args", "[0, 1]", "1.5"]),
        (["--loss", "logit_adjustmnet"], ["'logit_adjustmnet'", "'logit_adjustment'"]),
        (["--reweighting", "inverted"], ["'inverted'", "inverse"]),
        (["--dataloader_drop_last", "true"], ["--dataloader_drop_last", "--per_device_train_batch_size"]),
        (["--builder", "image_folders"], ["image_folders", "'image_folder'"]),
        (["--normalisation", "cifar_10"], ["cifar_10", "'cifar10'"]),
        (["--profile", "exponent"], ["'exponent'", "'exponential'"]),
        (["--imbalance_ratio", "0.5"], ["0.5", "at least 1"]),
        (["--largest_class", "10"], ["--largest_class 10", "--imbalance_ratio"]),
    ],
)
def test_settings_are_refused_before_data_are_loaded(more, said, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "load_splits", lambda *_: pytest.fail("time was spent"))
    message = refused(capsys, *words(images, tmp_path / "run", *more))
    assert message.startswith("error: ") and all(part in message for part in said), message


def test_the_data_set_is_missing(images, tmp_path, capsys):
    assert "--dataset" in refused(capsys, "--method", "sam", "--output_dir", tmp_path / "run")
    nowhere = tmp_path / "nowhere"
    assert f"{nowhere}: there is no such folder" in refused(capsys, *words(nowhere, tmp_path / "run"))
    file = next(images.rglob("*.png"))
    assert "give the folder" in refused(capsys, *words(file, tmp_path / "run"))


def test_a_wrong_recipe_lists_those_there_are(capsys):
    message = refused(capsys, "--config", "recipes/cifar100_lt_ir100_la_focal.yaml")
    assert "recipes/cifar100_lt_ir100_la_focal.yaml" in message and "'cifar100_lt_ir100_la_focal_sam'" in message


def test_the_output_folder_is_a_file(images, tmp_path, capsys):
    (tmp_path / "file").touch()
    message = refused(capsys, *words(images, tmp_path / "file"))
    assert str(tmp_path / "file") in message and "cannot be written" in message


def test_an_earlier_run_is_not_overwritten(images, tmp_path, capsys):
    command = words(images, tmp_path / "run", "--max_steps", "1", "--save_strategy", "no")
    train.main(command)
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    message = refused(capsys, *command)
    assert "metrics.json" in message and "--output_dir" in message
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before


def test_a_tail_method_without_a_threshold_proposes_one(images, tmp_path, capsys):
    message = refused(capsys, *words(images, tmp_path / "run", "--method", "imbsam"))
    assert "12, 6, 3" in message and "--tail_threshold 6" in message


@pytest.mark.parametrize("folder, size", [("images", 12), ("large_images", 80)])
def test_a_corrupt_image_is_named(request, folder, size, tmp_path, capsys):
    broken = request.getfixturevalue(folder) / "train" / "dog" / "1.png"
    broken.write_bytes(b"no image")
    size_of = [] if size == 12 else ["--image_size", "72"]
    assert str(broken) in refused(capsys, *words(broken.parents[2], tmp_path / "run", *size_of))


def test_large_images_need_a_size(large_images, tmp_path, capsys):
    message = refused(capsys, *words(large_images, tmp_path / "run"))
    assert "80 x 80" in message and "--image_size" in message


@pytest.mark.parametrize("jitter, differ", [("0", False), ("0.4", True)])
def test_colour_jitter_reaches_the_training_images(jitter, differ, tmp_path):
    """Of one colour, so that neither crop nor flip shows."""
    for folder in (tmp_path / "grey" / split / name for split in ("train", "test") for name in CLASSES):
        folder.mkdir(parents=True)
        Image.new("RGB", (80, 80), (100, 100, 100)).save(folder / "0.png")
    run = parse(
        ["--dataset", str(tmp_path / "grey"), "--image_size", "72", "--color_jitter", jitter, "--use_cpu", "true"]
    )
    data = prepare(load_splits(run.data), run.data, ImageFormat(72, ((0.0,) * 3, (1.0,) * 3)), seed=0, progress=False)
    assert (len({data.train[0]["pixel_values"].mean().item() for _ in range(3)}) == 3) is differ
    for plain in (data.plain_train, data.test):
        assert plain[0]["pixel_values"].mean().item() == pytest.approx(100 / 255)


def test_an_unlabelled_test_split(tmp_path, capsys):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn

    pixels = [np.zeros((8, 8, 3), dtype=np.uint8)] * 4
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=list(CLASSES))})
    (tmp_path / "parquet").mkdir()
    for split, labels in (("train", [0, 1, 2, 0]), ("test", [-1] * 4)):
        Dataset.from_dict({"image": pixels, "label": labels}, features).to_parquet(
            tmp_path / "parquet" / f"{split}.parquet"
        )
    message = refused(capsys, *words(tmp_path / "parquet", tmp_path / "run"))
    assert "not labelled" in message and "--test_split" in message
    message = refused(capsys, *words(tmp_path / "parquet", tmp_path / "run", "--test_split", "tset"))
    assert "'tset'" in message and "'test'" in message


# --- averaging, spectral normalisation, losses that read features ----------------------------------------------------


EXTRAS = """
num_train_epochs: 4
method: sam
loss: influence_balanced
loss_args: {alpha: 1.0}
loss_start: 0.5
method_args:
  rho: {piecewise: {values: [0.05, 0.1], epochs: [2]}}
swa_start: 0.5
swa_learning_rate: 0.05
spectral_norm: [classifier, "stages.2.*"]
logging_steps: 6
save_strategy: epoch
"""


def test_averaging_spectral_norm_and_influence_from_a_recipe(images, tmp_path, capsys):
    recipe, out = tmp_path / "extras.yaml", tmp_path / "run"
    recipe.write_text(EXTRAS)
    train.main(["--config", str(recipe), *words(images, out)])
    record = RunFolder(out).finished_record()
    assert record.weight_averaging == {"start": 0.5, "interval": None}
    assert record.loss["start"] == 0.5 and record.model["spectral_norm"] == ["classifier", "stages.2.*"]
    assert "test images with the averaged weights" in " ".join(capsys.readouterr().out.split())
    model = AutoModelForImageClassification.from_pretrained(out)
    assert torch.linalg.svdvals(model.classifier.weight)[0].item() == pytest.approx(1, abs=0.05)
    logs = [log for log in json.loads((out / "trainer_state.json").read_text())["log_history"] if "sam_eps_norm" in log]
    assert [log["sam_eps_norm"] for log in logs] == pytest.approx([0.05, 0.05, 0.1, 0.1], rel=1e-4)  # 6 steps an epoch
    assert logs[-1]["learning_rate"] == 0.05

    shutil.copytree(out / "checkpoint-18", tmp_path / "again" / "checkpoint-18")
    train.main(["--config", str(recipe), *words(images, tmp_path / "again"), "--resume_from_checkpoint", "true"])
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_the_results_of_the_best_checkpoint_are_not_called_those_of_the_last_epoch(images, tmp_path, capsys):
    out = tmp_path / "run"
    each = ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--num_train_epochs", "3"]
    train.main(words(images, out, *each, "--load_best_model_at_end", "true", "--metric_for_best_model", "worst"))
    step = json.loads((out / "trainer_state.json").read_text())["best_global_step"]
    assert RunFolder(out).finished_record().best_checkpoint == {"step": step, "metric": "worst"}
    said = f"of step {step}, chosen by worst in the evaluations during the training"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in model_card(read_facts(out), "me/digits").text


def test_a_best_checkpoint_that_was_not_loaded_is_not_named(images, tmp_path):
    out = tmp_path / "run"
    each = ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--num_train_epochs", "2"]
    train.main(words(images, out, *each, "--metric_for_best_model", "worst"))
    assert json.loads((out / "trainer_state.json").read_text())["best_model_checkpoint"] is not None
    record = RunFolder(out).finished_record()
    assert record.best_checkpoint == {} and record.weights == "after the last epoch"


@pytest.mark.parametrize(
    "more, message",
    [
        (["--spectral_norm", "head"], r"'head' matches no linear or convolutional layer"),
        (["--loss", "influence_balanced", "--head", "cosine"], r"reads the input of a linear last layer"),
        (["--swa_start", "0.75", "--load_best_model_at_end", "true"], r"does not go with --swa_start"),
        (["--swa_start", "75"], r"--swa_start must be in \[0, 1\), got 75"),
        (["--loss_start", "100"], r"--loss_start must be a share of training"),
        (
            [
                "--method",
                "sam",
                "--max_steps",
                "5",
                "--method_args",
                '{"rho": {"linear": {"start": 0, "end": 1, "epochs": [1, 2]}}}',
            ],
            r"'rho' counts in epochs=\[1, 2\].*--max_steps 5",
        ),
    ],
)
def test_they_are_refused_before_images_are_decoded(images, tmp_path, capsys, more, message):
    assert re.search(message, " ".join(refused(capsys, *words(images, tmp_path / "run", *more)).split()))
    assert not list(tmp_path.glob("run/checkpoint*"))
