"""In the place of `python`: what it is told to run starts at once, as a copy of a process that has imported much.

    python -I -S forked_client.py EXECUTABLE SOCKET ARGUMENTS...

Signals go on to that process, and its exit status comes back, negative for a signal. See `forking_server.py`.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(executable: str, address: str, *arguments: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until there is somebody to forward to
    files = [int(name) for name in os.listdir("/dev/fd") if is_open(int(name))]
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    request = {
        "arguments": arguments,
        "client": os.getpid(),
        "environment": dict(os.environ),
        "executable": executable,
        "files": files,
        "folder": str(Path.cwd()),
    }
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "big")], files)
    server.sendall(content)
    pid = int.from_bytes(received(server), "big")

    def forward(number, _):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    status = int.from_bytes(received(server), "big", signed=True)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def is_open(file: int) -> bool:
    try:
        os.fstat(file)
    except OSError:  # that of the listing itself
        return False
    return True


def received(server: socket.socket) -> bytes:
    content = b""
    while len(content) < 4:
        part = server.recv(4 - len(content))
        if not part:
            sys.exit("The process that forks has gone.")
        content += part
    return content


main(*sys.argv[1:])
