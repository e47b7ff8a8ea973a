"""The runs of a table: each a process of its own, in a folder of its own, which tells whether it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml
from transformers.utils import logging

from hf_ltsam.cli.reproduce.tables import Row
from hf_ltsam.cli.train.arguments import decided_settings, read_settings, with_recipe
from hf_ltsam.runs.folder import RECIPE, RunFolder, seed_folder
from hf_ltsam.runs.processes import PARENT
from hf_ltsam.runs.recipes import find_recipe
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.secrets import without_secrets
from hf_ltsam.training.checkpoint_folders import last_checkpoint
from hf_ltsam.training.folder_lock import FolderInUseError, folder_lock

logger = logging.get_logger(__name__)

STARTED = "--- started"  # a line of the log
POLL = 0.2  # seconds between two looks at the processes
# What a run's folder decides; tokens are not kept in it.
_OF_THE_PLACE = ("output_dir", "first_stage", "resume_from_checkpoint", "seed", "config", "hub_token")


@dataclass(frozen=True)
class RowRun:
    """One row with one seed.

    Args:
        root: folder of the table.
        options: of `ltsam train`, the same for all rows.
    """

    row: Row
    seed: int
    root: Path
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return seed_folder(self.root / self.row.name, self.seed)

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.with_suffix(".log")

    @property
    def result(self) -> RunRecord | None:
        """Of a run that has ended."""
        return RunFolder(self.folder).record

    @property
    def program(self) -> str:
        return "train" if self.row.first_stage is None else "decouple"

    @property
    def holder(self) -> str:
        """Who trains there, in words: a table that is ending, or one beside this one; empty where nobody does."""
        if not self.folder.is_dir():
            return ""
        try:
            with folder_lock(self.folder):
                return ""
        except FolderInUseError as error:
            return error.fact

    def last_words(self) -> str:
        """The last line that the run has printed since it was last started."""
        printed = self.log.read_text(errors="replace").rpartition(STARTED)[2].splitlines()[1:]
        lines = [line for line in printed if line.strip() and not line.startswith("(")]
        return lines[-1] if lines else f"nothing in {self.log}"

    def arguments(self) -> list[str]:
        """The options of `ltsam train` or `ltsam decouple`."""
        words = ["--config", self.recipe(), "--seed", str(self.seed), "--output_dir", str(self.folder)]
        if self.row.first_stage is not None:
            stage = self.row.stage.name if self.row.stage is not None else Path(self.row.first_stage).stem
            return [*words, "--first_stage", str(seed_folder(self.root / stage, self.seed))]
        return [*words, *self.options]

    def start(self, threads: int) -> subprocess.Popen[bytes]:
        """Train, or go on from the last checkpoint; what is printed goes to the end of `log`."""
        resume = ["--resume_from_checkpoint", "true"] if last_checkpoint(str(self.folder)) else []
        self.folder.mkdir(parents=True, exist_ok=True)
        return start_command([self.program, *self.arguments(), *resume], self.log, threads)

    def check(self) -> None:
        """Refuse settings that do not exist, and a folder in which other settings were trained with.

        Raises:
            ValueError: naming the first one that differs.
        """
        now, _ = read_settings(self.arguments(), self.program)
        file = self.folder / RECIPE
        if not file.is_file():
            return
        then = with_recipe({}, file, self.program)
        if self.program == "train":  # its file holds what was decided where nothing stated it
            now = {**decided_settings(now), **now}
        relevant = {name for name in {**now, **then} if name not in _OF_THE_PLACE}
        if self.program == "decouple":  # its file holds the first stage's settings too
            relevant &= set(now)
        for name in sorted(relevant):
            if now.get(name) != then.get(name):
                raise ValueError(
                    f"{self.folder} was trained with {name} {then.get(name)}, which is {now.get(name)} now: "
                    "--output_dir OTHER starts anew, and nothing there is lost."
                )

    def recipe(self) -> str:
        """The row's recipe, or a file beside the runs that lays the table's settings over it."""
        if not self.row.settings and not self.row.parts:
            return self.row.recipe
        path = self.root / "recipes" / f"{self.row.name}.yaml"
        settings = {"inherits": self._inherited(), **self.row.settings}
        secret = next(
            (name for name, value in settings.items() if without_secrets({name: value}) != {name: value}), None
        )
        if secret is not None:
            raise ValueError(
                f"The table sets {secret} to a secret, which would be copied beside the runs: set HF_TOKEN, or the "
                "variable of whatever needs it, in the environment in its place."
            )
        text = yaml.safe_dump(settings, sort_keys=False)
        if not path.is_file() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(path)

    def _inherited(self) -> str | list[str]:
        """Parts, a row by its name, or a file by its whole path."""
        if self.row.parts:
            return list(self.row.parts)
        recipe = find_recipe(self.row.recipe)
        return str(recipe.resolve() if isinstance(recipe, Path) else recipe)


def start_command(words: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
    """`ltsam WORDS` as a process that ends with this one; what it prints goes to the end of `log`."""
    command = [sys.executable, "-m", "hf_ltsam.cli.main", *words]
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, PARENT: str(os.getpid())}
    with log.open("ab") as file:
        file.write(f"\n{STARTED} {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n".encode())
        file.flush()
        return subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment)


class Startable(Protocol):
    """What `run_all` runs: a training, or a test or an analysis of one."""

    @property
    def result(self) -> Any:
        """None until it has ended."""

    @property
    def holder(self) -> str:
        """Who runs it elsewhere, in words."""

    def start(self, threads: int) -> subprocess.Popen[bytes]: ...


S = TypeVar("S", bound=Startable)


def run_all(runs: Sequence[S], jobs: int, ended: Callable[[S, int], Any]) -> None:
    """Start the runs in their order, `jobs` at a time, and wait for all of them.

    Where this process ends, so do they. A run in whose folder another process trains is waited for.

    Args:
        ended: is told each run that has ended, and its exit status.
    """
    waiting, running = list(runs), list[tuple[S, subprocess.Popen[bytes]]]()
    announced = list[S]()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            while len(running) < jobs and (run := _next(waiting, announced)) is not None:
                waiting.remove(run)
                if run.result is None:  # another process may have run it since
                    running.append((run, run.start(threads)))
                else:
                    ended(run, 0)
            time.sleep(POLL)
            over = [(run, process) for run, process in running if process.poll() is not None]
            for run, process in over:
                running.remove((run, process))
                if process.returncode and run.holder:
                    waiting.insert(0, run)  # another process was faster
                else:
                    ended(run, process.returncode)
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()


def _next(waiting: Sequence[S], announced: list[S]) -> S | None:
    """The first one whose folder is free; the others are announced, once."""
    for run in waiting:
        holder = run.holder
        if not holder:
            return run
        if run not in announced:
            announced.append(run)
            logger.warning(f"Waiting: {holder}")
    return None
