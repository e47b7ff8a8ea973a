"""Checkpoint folders on the disk: whole or not there, whatever fails; otherwise as transformers would leave them."""

import errno
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from time_limits import PATIENCE
from training.killed_runs import dies_in, left, log, run, start, train
from training.noisy_run import Model, Noisy, noisy_trainer
from training.test_killed import assert_same, complete
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hf_ltsam.training.checkpoint_folders import ASIDE, CheckpointError
from hf_ltsam.training.results.publishing import HubTrainer


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fails(monkeypatch, function, call, error):
    """The `call`-th call of the function raises."""
    owner, name = function.rsplit(".", 1)
    module = importlib.import_module(owner)
    original, calls = getattr(module, name), []

    def sometimes(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, sometimes)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("function", "call", "error"),
    [
        ("torch.save", 4 + 3, FULL),  # the optimizer's state; a checkpoint has four such files
        ("torch.save", 4 + 2, RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")),
        ("safetensors.torch.save_file", 2, FULL),  # the weights
        ("hf_ltsam.training.checkpoint_folders._flush", 13, FULL),  # on a network, all seems written until here
    ],
)
def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(function, call, error, tmp_path, monkeypatch):
    fails(monkeypatch, function, call, error)
    trainer = noisy_trainer(tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=r"checkpoint-8 could not be written .*checkpoint-4 is complete and stays"
    ) as raised:
        trainer.train()
    assert str(error) in str(raised.value) and "MB are free" in str(raised.value)
    assert "resume_from_checkpoint=True goes on" in raised.value.__notes__[0]
    assert names(tmp_path / "run") == ["checkpoint-4"]
    trainer = noisy_trainer(tmp_path / "run")
    trainer.train(resume_from_checkpoint=True)
    whole = noisy_trainer(tmp_path / "whole")
    whole.train()
    assert_same(trainer.model.state_dict(), whole.model.state_dict())


def limited(folder, bytes_per_file, settings):
    sys.dont_write_bytecode = True  # Python would leave halves of it
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, hard))
    try:
        train(folder, None, {**settings, "logging_strategy": "no"})  # the log is a file too
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))  # and the traceback goes there


def test_a_limit_that_the_system_enforces(tmp_path):
    (process,) = start(tmp_path / "run", 4000, target=limited)  # the weights fit, the optimizer's state does not
    assert process.wait(PATIENCE) == 1
    assert "checkpoint-4 could not be written" in log(tmp_path / "run") and "There is no earlier one" in log(
        tmp_path / "run"
    )
    assert names(tmp_path / "run") == []


def test_a_folder_that_cannot_be_written_any_more(tmp_path):
    class Blocks(TrainerCallback):
        """A root user may write everywhere; nobody can make a folder where a file lies."""

        def on_step_end(self, args, state, control, **_):
            if state.global_step == 6:
                (tmp_path / ASIDE).write_text("")

    with pytest.raises(CheckpointError, match=r"checkpoint-8 could not be written .*checkpoint-4 is complete"):
        noisy_trainer(tmp_path, callbacks=[Blocks()]).train()
    assert get_last_checkpoint(str(tmp_path)).endswith("checkpoint-4")


def from_the_start(folder, death, settings):
    trainer = noisy_trainer(folder, **settings)
    dies_in(*death)
    trainer.train()


@pytest.mark.parametrize("call", [1, 2])  # before the old one has left its place, and before the new one has taken it
def test_killed_while_a_checkpoint_replaces_one_of_the_same_name(call, tmp_path):
    noisy_trainer(tmp_path / "run", max_steps=4).train()
    before = (tmp_path / "run" / "checkpoint-4" / "model.safetensors").read_bytes()
    death = ("pathlib.Path.rename", call)
    assert run(tmp_path / "run", death, target=from_the_start, max_steps=4, seed=9) == [-signal.SIGKILL]
    complete(tmp_path / "run")
    noisy_trainer(tmp_path / "run", max_steps=4).train(resume_from_checkpoint=True)  # the old one, which is at its end
    assert (tmp_path / "run" / "checkpoint-4" / "model.safetensors").read_bytes() == before
    assert names(tmp_path / "run") == ["checkpoint-4"]


def test_a_new_checkpoint_replaces_one_of_the_same_name(tmp_path):
    noisy_trainer(tmp_path, max_steps=4).train()
    (tmp_path / "checkpoint-4" / "of the old one").touch()
    again = noisy_trainer(tmp_path, max_steps=4, seed=9)
    again.train()
    assert names(tmp_path) == ["checkpoint-4"] and "of the old one" not in names(tmp_path / "checkpoint-4")
    assert json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["global_step"] == 4


def test_killed_while_old_checkpoints_are_deleted(tmp_path):
    """A later one, from before the training was resumed further back, is what get_last_checkpoint would find half deleted."""
    assert run(tmp_path / "run", None, max_steps=12) == [0]
    for step in (4, 8):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    death = ("shutil.rmtree", 3)  # leftovers at the start, then after the first checkpoint, then what is too much
    assert run(tmp_path / "run", death, target=from_the_start, save_total_limit=1, seed=9) == [-signal.SIGKILL]
    assert names(tmp_path / "run") == ["_run.lock", ASIDE, "checkpoint-4", "left_0.pt"]
    complete(tmp_path / "run")


def test_killed_between_naming_and_rotating(tmp_path):
    """Resumed at its end, it saves nothing more, and the surplus goes all the same."""
    settings = {"max_steps": 12, "eval_dataset": Noisy(), "eval_strategy": "steps", "eval_steps": 4}
    settings |= {"metric_for_best_model": "accuracy", "compute_metrics": worse_later}
    worse_later.calls = 0
    noisy_trainer(tmp_path, **settings).train()  # the second is best
    shutil.copytree(tmp_path / "checkpoint-4", tmp_path / "checkpoint-2")
    noisy_trainer(tmp_path, **settings, save_total_limit=2).train(resume_from_checkpoint=True)
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-8"]


def test_folders_of_similar_names_are_let_alone(tmp_path):
    theirs = ["checkpoint-", "checkpoint-4-copy", "checkpoint-best", "checkpoint-old1", "checkpoint-old-99"]
    for name in theirs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    noisy_trainer(tmp_path, max_steps=8, save_total_limit=1).train()
    assert names(tmp_path) == sorted([*theirs, "checkpoint-8"])
    start = Started()
    noisy_trainer(tmp_path, max_steps=8, save_total_limit=1, callbacks=[start]).train(resume_from_checkpoint=True)
    assert start.step == 8 and names(tmp_path) == sorted([*theirs, "checkpoint-8"])


class Started(TrainerCallback):
    def on_train_begin(self, args, state, control, **_):
        self.step = state.global_step


def test_what_a_killed_run_left_aside_is_removed(tmp_path):
    (tmp_path / ASIDE / "checkpoint-4").mkdir(parents=True)
    (tmp_path / ASIDE / "checkpoint-4" / "half").touch()
    noisy_trainer(tmp_path, max_steps=4).train()
    assert names(tmp_path) == ["checkpoint-4"] and "half" not in names(tmp_path / "checkpoint-4")


def worse_later(prediction):
    """An accuracy that is best at the second evaluation."""
    worse_later.calls += 1
    return {"accuracy": [0.5, 0.9, 0.7, 0.6, 0.8, 0.4][worse_later.calls - 1]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"save_total_limit": 2},
        {"save_total_limit": 2, "load_best_model_at_end": True},
        {"save_total_limit": 1, "load_best_model_at_end": True},
        {"save_total_limit": 3, "load_best_model_at_end": True, "save_only_model": True},
        {"save_strategy": "best", "save_total_limit": 1},
    ],
)
def test_the_same_checkpoints_remain_as_with_the_stock_trainer(settings, tmp_path):
    common = {
        "max_steps": 24,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 4,
        "metric_for_best_model": "accuracy",
        "greater_is_better": True,
        "save_strategy": "steps",
        **settings,
    }
    worse_later.calls = 0
    ours = noisy_trainer(tmp_path / "ours", method="sgd", eval_dataset=Noisy(), compute_metrics=worse_later, **common)
    ours.train()
    worse_later.calls = 0
    args = TrainingArguments(str(tmp_path / "stock"), report_to="none", disable_tqdm=True, use_cpu=True, **common)
    stock = Trainer(Stock(), args, train_dataset=Noisy(), eval_dataset=Noisy(), compute_metrics=worse_later)
    stock.train()
    assert names(tmp_path / "ours") == names(tmp_path / "stock")
    for mine, theirs in zip(sorted((tmp_path / "ours").iterdir()), sorted((tmp_path / "stock").iterdir()), strict=True):
        assert set(names(theirs)) <= set(names(mine))
        states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (mine, theirs)]
        best = [state["best_model_checkpoint"] for state in states]
        assert (
            best[0] == (best[1] and best[1].replace("stock", "ours"))
            and states[0]["best_metric"] == states[1]["best_metric"]
        )
    assert ours.state.best_model_checkpoint == str(tmp_path / "ours" / "checkpoint-8")
    complete(tmp_path / "ours") if "save_only_model" not in settings else None


class Stock(Model):
    """As the stock Trainer wants it: with a loss."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_nothing_is_uploaded_before_it_has_its_name(tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        HubTrainer, "push_checkpoint", lambda self, folder: pushed.append((str(folder), names(tmp_path)))
    )
    trainer = noisy_trainer(tmp_path, max_steps=4)
    trainer.args.push_to_hub = True
    trainer.train()
    assert pushed == [(str(tmp_path / "checkpoint-4"), ["_run.lock", "checkpoint-4"])]


def test_all_is_flushed_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        pytest.skip("/proc tells what was flushed")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(str((opened / str(descriptor)).readlink())))
    noisy_trainer(tmp_path, max_steps=4).train()
    aside = tmp_path / ASIDE / "checkpoint-4"
    lasting = {path for path in flushed if not Path(path).name.startswith(".")}  # a dot: renamed when it is whole
    assert {str(aside / name) for name in names(tmp_path / "checkpoint-4")} | {str(aside), str(tmp_path)} == lasting
    assert flushed[-1] == str(tmp_path)


def test_old_checkpoints_are_only_deleted_out_of_sight(tmp_path, monkeypatch):
    deleted, rmtree = [], shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **how: (deleted.append(Path(path).name), rmtree(path, **how)))
    worse_later.calls = 0
    noisy_trainer(
        tmp_path,
        method="sgd",
        eval_dataset=Noisy(),
        compute_metrics=worse_later,
        max_steps=12,
        eval_strategy="steps",
        eval_steps=4,
        metric_for_best_model="accuracy",
        load_best_model_at_end=True,
        save_total_limit=1,
    ).train()
    assert names(tmp_path) == ["checkpoint-8"]
    assert set(deleted) - {".hub_uploads"} <= {ASIDE, "replaced-checkpoint-4"}


def the_second_is_slow(folder, death, settings):
    save = torch.save
    if os.environ["RANK"] == "1":
        torch.save = lambda *args, **kwargs: (time.sleep(0.1), save(*args, **kwargs))
    train(folder, death, settings)


def test_two_ranks_share_a_folder(tmp_path):
    settings = {"method": "msam", "save_total_limit": 2, "save_steps": 2}
    assert run(tmp_path / "run", None, None, target=the_second_is_slow, **settings) == [0, 0], log(tmp_path / "run")
    assert names(tmp_path / "run") == ["checkpoint-10", "checkpoint-12", "left_0.pt", "left_1.pt"]
    own = {"rng_state_0.pth", "rng_state_1.pth", "method_memory.pt", "method_memory_1.pt"}
    assert own <= set(names(tmp_path / "run" / "checkpoint-12"))
    memories = [left(tmp_path / "run", rank)["memory"] for rank in (0, 1)]
    assert_same(torch.load(tmp_path / "run" / "checkpoint-12" / "method_memory_1.pt", weights_only=True), memories[1])
