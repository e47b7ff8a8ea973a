"""The trials that are left of a study: one after the other here, or several at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_ltsam.cli.options.plugins import load_plugins
from hf_ltsam.cli.tune.reserve import Reserve
from hf_ltsam.cli.tune.study import Study, alone_in
from hf_ltsam.runs.processes import end_with

POLL = 0.2  # seconds between two looks at the processes
_TEMPORARY = 75  # exit status of a trial that can be repeated: EX_TEMPFAIL

Told = Callable[[Study, int], Any]


def run_trials(study: Study, jobs: int, reserve: Reserve, told: Told) -> None:
    """Run all trials that have not ended; interrupted ones go on first, from their last checkpoints.

    Args:
        jobs: trials at a time.
        reserve: the data of the study.
        told: is told the number of each trial that has ended.

    Raises:
        FolderInUseError: another command runs trials there.
        OSError: a full disk, say.
    """
    with alone_in(study):
        study.keep()
        interrupted = study.interrupted()

        def following() -> Any:
            return interrupted.pop(0) if interrupted else study.next()

        if jobs == 1:
            while (trial := following()) is not None:
                study.run(trial, reserve)
                told(study, trial.number)
        else:
            _in_processes(study, jobs, following, told)


def _in_processes(study: Study, jobs: int, following: Callable[[], Any], told: Told) -> None:
    """Where this process is stopped, so are they; where it is killed, they end too."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    running: list[tuple[Any, Any]] = []
    left = True
    try:
        while left or running:
            while left and len(running) < jobs:
                trial = following()
                left = trial is not None
                if left:
                    study.values(trial)  # here, where all that has ended is known
                    process = context.Process(target=_work, args=(str(study.folder), trial.number, threads))
                    process.start()
                    running.append((trial, process))
            time.sleep(POLL)
            for trial, process in [pair for pair in running if pair[1].exitcode is not None]:
                running.remove((trial, process))
                _look_at(study, trial, process.exitcode)
                told(study, trial.number)
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.join()


def _look_at(study: Study, trial: Any, status: int) -> None:
    """After the process of a trial.

    Raises:
        OSError: it could not write, say.
    """
    log = _log(study.folder, trial.number)
    if status == _TEMPORARY:
        raise OSError(
            f"Trial {trial.number} was interrupted; the same command goes on with it. {_last_line(log)} ({log})"
        )
    if any(unfinished.number == trial.number for unfinished in study.interrupted()):
        study.fail(trial, f"its process ended with status {status}: {_last_line(log)}")


def _work(folder: str, number: int, threads: int) -> None:
    """A trial in a process of its own, which ends with the one that has started it."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid)
    log = os.open(_log(Path(folder), number), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import torch

    torch.set_num_threads(threads)
    try:
        load_plugins()
        study = Study(Path(folder))
        study.run(study.trial(number), study.reserve())
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(_TEMPORARY)


def _log(folder: Path, number: int) -> Path:
    """What a trial in a process of its own printed."""
    return folder / f"trial-{number}.log"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.is_file() else []
    return lines[-1] if lines else f"nothing in {log}"
