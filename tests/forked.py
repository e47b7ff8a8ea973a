"""Processes that start at once: forked from one that has imported what trainings need, which takes ten seconds itself."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from time_limits import PATIENCE

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["hf_ltsam.training.trainer", "accelerate", "transformers.trainer_jit_checkpoint"])


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What `accelerate launch` tells each of several processes."""
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "ACCELERATE_USE_CPU": "true",
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Script:
    """A script in a process of its own, as `python SCRIPT ARGUMENTS` would run it."""

    def __init__(self, *command: str, threads: int | None = None, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        self._log.touch()
        threads = torch.get_num_threads() if threads is None else threads
        arguments = (command, {**os.environ, **environment}, threads, self._log)
        self.process = PROCESSES.Process(target=_script, args=arguments)
        self.process.start()

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait(self) -> tuple[int | None, str]:
        """The exit code, negative for a signal, and what it said; who does not end is killed."""
        try:
            self.process.join(PATIENCE)
            return self.process.exitcode, self.output
        finally:
            self.process.kill()
            self.process.join()


def two_ranks(*command: str) -> list[Script]:
    """The two ranks of one training or evaluation."""
    port = free_port()
    return [Script(*command, threads=1, **rank_environment(rank, 2, port)) for rank in (0, 1)]


def _script(command: tuple[str, ...], environment: Mapping[str, str], threads: int, log: Path) -> None:
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    sys.argv = list(command)
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")
