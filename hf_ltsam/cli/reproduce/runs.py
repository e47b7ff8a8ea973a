"""The runs of a table: each a process of its own, in a folder of its own, which tells whether it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_ltsam.cli.reproduce.tables import Row
from hf_ltsam.cli.train.arguments import read_settings, with_recipe
from hf_ltsam.runs.folder import RECIPE, RunFolder
from hf_ltsam.runs.recipes import find_recipe
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.secrets import without_secrets
from hf_ltsam.training.checkpoint_folders import last_checkpoint

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
        return self.root / self.row.name / f"seed{self.seed}"

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

    def arguments(self) -> list[str]:
        """The options of `ltsam train` or `ltsam decouple`."""
        words = ["--config", self._recipe(), "--seed", str(self.seed), "--output_dir", str(self.folder)]
        if self.row.first_stage is not None:
            return [*words, "--first_stage", str(self.root / Path(self.row.first_stage).stem / f"seed{self.seed}")]
        return [*words, *self.options]

    def start(self, threads: int) -> subprocess.Popen[bytes]:
        """Train, or go on from the last checkpoint; what is printed goes to the end of `log`."""
        resume = ["--resume_from_checkpoint", "true"] if last_checkpoint(str(self.folder)) else []
        command = [sys.executable, "-m", "hf_ltsam.cli.main", self.program, *self.arguments(), *resume]
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

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
        relevant = {name for name in {**now, **then} if name not in _OF_THE_PLACE}
        if self.program == "decouple":  # its file holds the first stage's settings too
            relevant &= set(now)
        for name in sorted(relevant):
            if now.get(name) != then.get(name):
                raise ValueError(
                    f"{self.folder} was trained with {name} {then.get(name)}, which is {now.get(name)} now: "
                    "--output_dir OTHER starts anew, and nothing there is lost."
                )

    def _recipe(self) -> str:
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


def run_all(runs: Sequence[RowRun], jobs: int, ended: Callable[[RowRun, int], Any]) -> None:
    """Start the runs in their order, `jobs` at a time, and wait for all of them.

    Where this process is stopped, so are they; one that is killed leaves them running to their end.

    Args:
        ended: is told each run that has ended, and its exit status.
    """
    waiting, running = list(runs), list[tuple[RowRun, subprocess.Popen[bytes]]]()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                if run.result is None:  # another process may have run it since
                    running.append((run, run.start(threads)))
                else:
                    ended(run, 0)
            time.sleep(POLL)
            over = [(run, process) for run, process in running if process.poll() is not None]
            for pair in over:
                running.remove(pair)
                ended(pair[0], pair[1].returncode)
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()
