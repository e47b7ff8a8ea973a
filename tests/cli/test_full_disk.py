"""A disk that is full, for every command: one message, what was there is kept, and the status is not 0."""

import importlib
import json
import os
import resource
import sys

import pytest
from cli.train.test_train_script import words
from safetensors import SafetensorError

from hf_ltsam.cli import main as cli
from hf_ltsam.cli.train import train

FULL = OSError(28, "No space left on device")
OF_SAFETENSORS = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
OF_TORCH = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train.main(words(pictures, out, "--depth", "8", "--num_train_epochs", "1"))
    return out


def fails(monkeypatch, function, call, error):
    """The `call`-th call of a function raises, and all after it."""
    owner, name = function.rsplit(".", 1)
    try:
        module = importlib.import_module(owner)
    except ModuleNotFoundError:
        above, cls = owner.rsplit(".", 1)
        module = getattr(importlib.import_module(above), cls)
    original, calls = getattr(module, name), []

    def sometimes(*args, **kwargs):
        calls.append(1)
        if len(calls) >= call:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, sometimes)


AFTER_THE_TRAINING = {
    "weights": ("transformers.Trainer._save", 2, OF_SAFETENSORS),  # the first call is the checkpoint's
    "settings": ("transformers.Trainer._save", 2, OF_TORCH),
    "statistics": ("hf_ltsam.class_statistics.ClassStatistics.save", 2, FULL),
    "log": ("transformers.TrainerState.save_to_json", 2, FULL),
    "predictions": ("hf_ltsam.runs.folder.RunFolder.write_predictions", 1, FULL),
    "recipe": ("hf_ltsam.runs.folder.RunFolder.write_recipe", 2, FULL),
    "record": ("hf_ltsam.runs.folder.RunFolder.write_record", 1, FULL),
}


@pytest.mark.parametrize("what", AFTER_THE_TRAINING)
def test_after_the_training(what, pictures, run, tmp_path, capsys, monkeypatch):
    """It says where to go on, and the same command does so."""
    options = ["--depth", "8", "--num_train_epochs", "1", "--save_strategy", "epoch"]
    command = ["train", *words(pictures, tmp_path / "run", *options)]
    with monkeypatch.context() as full:
        fails(full, *AFTER_THE_TRAINING[what])
        message = refused(capsys, *command)
    assert "The training is at its end, but" in message and "MB are free there" in message
    assert f"--resume_from_checkpoint true goes on from {tmp_path / 'run' / 'checkpoint-6'}" in message
    if what not in ("weights", "record"):  # the first and the last
        return
    cli.main([*command, "--resume_from_checkpoint", "true"])
    ours, whole = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "run", run))
    assert ours["weights_sha256"] == whole["weights_sha256"] and ours["results"] == whole["results"]


def refused(capsys, *command):
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in command])
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and sum(line.startswith("error: ") for line in message.splitlines()) == 1
    assert ".." not in message
    return message


COMMANDS = {
    "decouple": lambda run, data, out: ["decouple", run, "--second_stage", "tau_norm", "--output_dir", out],
    "evaluate": lambda run, data, out: ["evaluate", "--model", run, "--sets", data / "test", "--output_dir", out],
    "export": lambda run, data, out: ["export", run, out],
    "sharpness": lambda run, data, out: ["sharpness", run, "--lanczos_steps", 2, "--probes", 1, "--output", out],
    "report": lambda run, data, out: ["report", run, "--output", out],
    "corrupt": lambda run, data, out: [
        "corrupt",
        "--dataset",
        data,
        "--output",
        out,
        "--workers",
        1,
        "--severities",
        1,
    ],
    "demo": lambda run, data, out: ["demo", "--output_dir", out, "--epochs", 1, "--seeds", 1],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name, pictures, run, tmp_path, capsys, monkeypatch):
    """The system lets no file grow beyond some bytes, as a full disk does not."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python would leave halves of it
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        message = refused(capsys, *COMMANDS[name](run, pictures, tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Make room" in message or "free some space" in message
    assert message.count("Make room") <= 1
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_weights_that_are_cut_short_are_named(run, tmp_path, pictures, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    os.truncate(copy / "model.safetensors", 1000)
    for command in COMMANDS["evaluate"], COMMANDS["export"], COMMANDS["sharpness"], COMMANDS["decouple"]:
        assert f"The weights in {copy} are damaged" in refused(capsys, *command(copy, pictures, tmp_path / "out"))
