"""Processes of a command: how several are started for it, and how they end with the one that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence

PARENT = "LTSAM_PARENT"  # environment variable of a command that `ltsam` starts: the number of the process it ends with
_PAUSE = 0.2  # seconds between two looks; no call that is the same on all systems tells of the end of a parent


def in_processes(words: Sequence[str], processes: int) -> list[str]:
    """`ltsam PROGRAM ...` in so many processes; torchrun starts them with accelerators and without."""
    if processes == 1:
        return list(words)
    return ["torchrun", "--nproc_per_node", str(processes), "-m", "hf_ltsam.cli.main", *words[1:]]


def end_with(parent: int) -> None:
    """From now on, send this process SIGTERM once `parent` is not its parent any more, or at once if it is not."""
    threading.Thread(target=_wait, args=(parent,), name="hf_ltsam parent", daemon=True).start()


def end_with_parent() -> None:
    """`end_with` the process that the environment names, if it names one; what is started from here inherits no name."""
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        end_with(int(parent))


def _wait(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PAUSE)
    os.kill(os.getpid(), signal.SIGTERM)
