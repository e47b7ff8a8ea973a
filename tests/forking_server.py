"""A process that has imported what takes ten seconds, and runs Python's command lines in copies of itself.

`python forking_server.py` inherits a listening socket as its standard input. Each client (`forked_client.py`) hands over
its arguments, environment, folder and open files, gets the number of the process that runs them, and its exit status at the
end. A client that is killed takes its process with it. The server ends when the tests do: at the end of the other pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
import types
from pathlib import Path

# Nothing of ours: what a test imports in its process is new there.
IMPORTED = (
    *("accelerate.commands.launch", "datasets", "jinja2", "matplotlib.pyplot", "open_clip", "optuna", "peft", "psutil"),
    *("rich.console", "scipy.ndimage", "sklearn.metrics", "torch._dynamo", "torch.distributed.fsdp", "torch.func"),
    *(
        "torch.distributed.run",
        "torchvision.transforms.v2",
        "transformers.trainer",
        "transformers.trainer_jit_checkpoint",
    ),
    *("transformers.models.clip.modeling_clip", "transformers.models.vit.modeling_vit", "yaml"),
)


def serve(listening: socket.socket, alive: int) -> None:
    """Until `alive`, the reading end of a pipe of the tests, is at its end."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.collect()
    gc.freeze()
    ended, wake = os.pipe()
    for end in (ended, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for source in (listening, alive, ended):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listening:
                    client = listening.accept()[0]
                    if pid := start(client):
                        running[pid] = client
                        selector.register(client, selectors.EVENT_READ, pid)
                elif key.fileobj == ended:
                    with contextlib.suppress(BlockingIOError):
                        os.read(ended, 4096)
                    for pid in over(running):
                        with contextlib.suppress(KeyError):  # its client went before it
                            selector.unregister(running[pid])
                        running.pop(pid).close()
                elif key.fileobj == alive:
                    for pid in running:
                        os.kill(pid, signal.SIGKILL)
                    return
                elif key.data in running:  # nothing more is said by a client: it was killed
                    os.kill(key.data, signal.SIGKILL)
                    selector.unregister(key.fileobj)


def over(running: dict[int, socket.socket]) -> list[int]:
    """The processes that have ended, of which their clients are told."""
    pids = []
    for pid in running:
        if (ended := os.waitpid(pid, os.WNOHANG))[0]:
            pids.append(pid)
            with contextlib.suppress(OSError):
                running[pid].sendall(os.waitstatus_to_exitcode(ended[1]).to_bytes(4, "big", signed=True))
    return pids


def start(client: socket.socket) -> int:
    """The process of a request; 0 where the client has gone."""
    message, files, _, _ = socket.recv_fds(client, 8, 250)
    request = b""
    while len(request) < int.from_bytes(message, "big"):
        if not (part := client.recv(1 << 16)):
            break
        request += part
    pid = os.fork() if request else 0
    if request and not pid:
        run(json.loads(request), files)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):
        client.sendall(pid.to_bytes(4, "big"))
    return pid


def run(request: dict, files: list[int]) -> None:
    """As `python ARGUMENTS` would in the client's place; does not return."""
    status = 1
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        first = max(request["files"], default=0) + 1  # so that nothing is overwritten on the way to its number
        above = [fcntl.fcntl(file, fcntl.F_DUPFD, first) for file in files]
        close_all_but(above)
        for file, number in zip(above, request["files"], strict=True):
            os.dup2(file, number, inheritable=number < 3)
            os.close(file)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.executable = request["executable"]
        os.getppid = parent_of(request["client"])
        for name, file, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
            setattr(sys, name, os.fdopen(file, mode, closefd=False))
        sys.stderr.reconfigure(line_buffering=True)
        if threads := os.environ.get("OMP_NUM_THREADS"):
            sys.modules["torch"].set_num_threads(int(threads))
        sys.modules[
            "torch"
        ].default_generator.seed()  # as in a new process: what nobody has seeded is equal in no two of them
        sys.modules["numpy"].random.seed()
        execute(*request["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        finish()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finish()
    os._exit(status & 255)


def close_all_but(kept: list[int]) -> None:
    """What belongs to the server."""
    for file in map(int, os.listdir("/dev/fd")):
        if file not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(file)


def finish() -> None:
    """What the interpreter does at its end."""
    import atexit
    import threading

    with contextlib.suppress(BaseException):
        threading._shutdown()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def parent_of(client: int):
    """`os.getppid` for the process: the parent of the client in whose place it runs. Of what it forks, it is the parent."""
    process = sys.modules["psutil"].Process(client)
    here, getppid = os.getpid(), os.getppid

    def number() -> int:
        if os.getpid() != here:
            return getppid()
        try:
            return process.ppid()
        except Exception:  # the client was killed
            return 1

    return number


def execute(*arguments: str) -> None:
    """`python -c CODE`, `python -m MODULE` or `python SCRIPT`, with what follows."""
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] not in ("-c", "-m"):
        words = words[2:] if words[0] in ("-X", "-W") else words[1:]
    beside = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    if words[0] == "-c":
        sys.argv, first = ["-c", *words[2:]], ""
    elif words[0] == "-m":
        sys.argv, first = words[1:], str(Path.cwd())
    else:
        sys.argv, first = words, str(Path(words[0]).resolve().parent)
    sys.path[:] = list(dict.fromkeys([first, *beside, *sys.path[1:]]))
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if words[0] == "-c":
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    elif words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        main.__file__ = words[0]
        exec(compile(Path(words[0]).read_bytes(), words[0], "exec"), main.__dict__)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and they end this
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        selector = selectors.DefaultSelector()
        for source in (listening, 0):
            selector.register(source, selectors.EVENT_READ)
        if any(key.fileobj is listening for key, _ in selector.select()):  # and not before somebody needs it
            selector.close()
            serve(listening, os.dup(0))
    os._exit(0)  # nothing is left to be cleaned up
