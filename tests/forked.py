"""Processes that start at once: copies of one that has imported what trainings need, which takes ten seconds itself.

`PYTHON` runs in the place of `sys.executable`, with the same arguments: `subprocess.run([PYTHON, "-c", code])`. There torch,
transformers, datasets and the like are imported, and nothing of ours. One server (`forking_server.py`) makes them for all
workers of a session, and the workers too (`conftest.py`); it starts when it is first needed. `sys.executable` is for what must be imported by nobody else.
"""

from __future__ import annotations

import os
import pickle
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from time_limits import PATIENCE

_VARIABLE = "LTSAM_TESTS_PYTHON"  # for the workers of the session
PYTHON = os.environ.get(_VARIABLE, sys.executable)


class ForkingServer:
    """Makes `PYTHON` available, here and in what is started from here.

    Raises:
        OSError: not where temporary files lie: their path is too long for a socket, or nothing may be executed there.
    """

    def __init__(self) -> None:
        global PYTHON
        self._folder = tempfile.TemporaryDirectory(prefix="ltsam")
        place = Path(self._folder.name)
        executable, client = (
            place / "python",
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("forked_client.py"))],
        )
        words = shlex.join([*client, str(executable), str(place / "socket")])
        executable.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        executable.chmod(0o700)
        if not os.access(executable, os.X_OK):
            raise PermissionError(f"{place} is mounted without execution")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place / "socket"))
            listening.listen(64)  # who comes before it is ready waits there
            server = [sys.executable, str(Path(__file__).with_name("forking_server.py")), str(listening.fileno())]
            self._process = subprocess.Popen(server, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
        PYTHON = os.environ[_VARIABLE] = str(executable)

    def close(self) -> None:
        """It ends, and with it what it has made and still runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        os.environ.pop(_VARIABLE)
        self._folder.cleanup()


def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """A function of a module with these arguments in a process of its own; `options` are those of `Popen`."""
    code = f"import pickle; function, arguments = pickle.loads({pickle.dumps((function, arguments))!r}); function(*arguments)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([PYTHON, "-c", code], env=environment, text=True, **options)


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

    def __init__(self, *command: str, **environment: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        everything = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        self.process = subprocess.Popen([PYTHON, *command], env=everything, stdout=self._log, stderr=self._log)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode()

    def wait(self) -> tuple[int, str]:
        """The exit code, negative for a signal, and what it said; who does not end is killed."""
        try:
            return self.process.wait(PATIENCE), self.output
        finally:
            self.process.kill()
            self.process.wait()


def two_ranks(*command: str) -> list[Script]:
    """The two ranks of one training or evaluation."""
    port = free_port()
    return [Script(*command, OMP_NUM_THREADS="1", **rank_environment(rank, 2, port)) for rank in (0, 1)]
