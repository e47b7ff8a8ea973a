"""Two processes that run one script, as `accelerate launch` would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from time_limits import PATIENCE


def outputs_of_two_ranks(*command: str) -> list[str]:
    """What both say; they must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "WORLD_SIZE": "2",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "ACCELERATE_USE_CPU": "true",
            },
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [p.communicate(timeout=PATIENCE)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(outputs)
    return outputs


def results_of_two_ranks(script: Path, folder: Path) -> list[Any]:
    """What a script, called with a folder, leaves there as rank0.pt and rank1.pt."""
    outputs_of_two_ranks(str(script), str(folder))
    return [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in (0, 1)]
