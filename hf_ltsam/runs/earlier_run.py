"""A run that is in a folder already, in the words of a warning before a training replaces it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import IDENTITY, RECORD, RunFolder


def earlier_run(folder: Path) -> str | None:
    """What a training of this library has left in a folder: method, loss, and when it ended or wrote its last checkpoint.

    None where there is nothing of it; checkpoints of the stock Trainer are nobody's run.
    """
    run = RunFolder(folder)
    if run.has(RECORD):
        return f"{_what(run)}ended {_when(folder / RECORD)}"
    checkpoints = [checkpoint for checkpoint in run.checkpoints.values() if checkpoint.has(IDENTITY)]
    if checkpoints:
        last = checkpoints[-1]
        return f"{_what(last)}not ended, {last.path.name} of {_when(last.path / IDENTITY)}"
    return f"{_what(run)}saved {_when(folder / IDENTITY)}" if run.has(IDENTITY) else None


def _what(run: RunFolder) -> str:
    """Method and loss; nothing where the files do not say it."""
    try:
        described: Any = run.identity or {}
        return f"{described['method']['name']} with {described['loss']['name']}, "
    except (DamagedFileError, KeyError, TypeError):
        return ""


def _when(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
