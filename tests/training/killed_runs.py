"""Trainings in processes of their own, which a signal ends at a chosen call; they start fast, from one that has imported all."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from forked import call, free_port, rank_environment
from time_limits import PATIENCE
from training.noisy_run import noisy_trainer
from transformers.trainer_utils import get_last_checkpoint

FORWARD = "training.noisy_run.Model.forward"
PASSES = {
    "sam": 2,
    "looksam": 2,
    "msam": 1,
    "momentum_focal_sam": 1,
    "friendly_sam": 2,
    "focal_sam": 2,
    "sse_sam": 3,
    "xsam": 2,
}


def dies_in(function: str, call: int, with_signal: int = signal.SIGKILL) -> None:
    """From now on, the process gets the signal in the `call`-th call of the function."""
    owner, name = _owner(function)
    original, calls = owner.__dict__[name], 0

    @functools.wraps(original)  # transformers asks a model's forward for its arguments
    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), with_signal)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def _owner(function: str):
    """`package.module.function` or `package.module.Class.method`."""
    path, name = function.rsplit(".", 1)
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        module, cls = path.rsplit(".", 1)
        return getattr(importlib.import_module(module), cls), name


def train(folder: Path, death: tuple | None, settings: dict) -> None:
    """What a process does: go on from the last checkpoint that transformers finds, and leave what came out."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = (folder.parent / f"{folder.name}.log").open("a", buffering=1)
    trainer = noisy_trainer(folder, **settings)
    if death is not None:
        dies_in(*death)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    momentum = trainer.optimizer.state_dict()["state"]
    left = {"weights": trainer.model.state_dict(), "optimizer": momentum, "memory": trainer.method_memory.values}
    torch.save(left, folder / f"left_{trainer.args.process_index}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def start(folder: Path, *deaths: tuple | None, target=train, **settings) -> list[subprocess.Popen]:
    """One process for every death; more than one are the ranks of one training."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    return [
        call(_as_rank, rank, len(deaths), port, target, folder, death, settings) for rank, death in enumerate(deaths)
    ]


def run(folder: Path, *deaths: tuple | None, **settings) -> list[int]:
    """The exit codes; a negative one is the signal that ended the process."""
    started = start(folder, *deaths, **settings)
    try:
        return [process.wait(PATIENCE) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def _as_rank(rank: int, ranks: int, port: int, target, folder: Path, death, settings) -> None:
    if ranks > 1:
        os.environ |= rank_environment(rank, ranks, port)
    target(folder, death, settings)


def left(folder: Path, rank: int = 0) -> dict:
    """Weights, optimizer's state and method's memory at the end of the training."""
    return torch.load(folder / f"left_{rank}.pt", weights_only=True)


def log(folder: Path) -> str:
    return (folder.parent / f"{folder.name}.log").read_text()
