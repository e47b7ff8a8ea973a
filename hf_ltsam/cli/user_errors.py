"""Errors that the user can mend: one message in the words of the command line instead of a traceback."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.escaping import visible
from hf_ltsam.runs.secrets import without_secrets

TRACEBACK = "LTSAM_TRACEBACK"  # environment variable: set to 1, errors come with their traceback
# Dataclasses whose fields are options: "LTSamConfig(swa_start=...)" in a message is --swa_start on the command line.
_SETTINGS = "LTSamConfig|ModelArguments|DataArguments|SecondStageArguments|CurvatureSettings|EvaluationSettings"
_FIELD = re.compile(rf"\b(?:{_SETTINGS})\((\w+)=(?:\.\.\.|([^()]*))\)")


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a bad value, a missing file or a refusal as one message and exit with status 2; Ctrl-C exits with 130.

    No message, log, warning or traceback shows a secret.
    """
    try:
        with _without_secrets():
            yield
    except KeyboardInterrupt as interrupt:
        print(without_secrets(f"\nInterrupted. {interrupt}").rstrip(), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from hf_ltsam.runs.files import without_room

        full = without_room(error)  # torch, safetensors and datasets have types of their own for it
        is_expected = full is not None or isinstance(error, ValueError | OSError | NotImplementedError)
        if os.environ.get(TRACEBACK) == "1" or not is_expected:
            raise
        notes = vars(error).get("__notes__", [])  # of whoever knew more on its way
        lines = [
            f"error: {in_options(str(error))}",
            *notes,
            *_advice(error, full),
            f"({TRACEBACK}=1 shows where it was raised.)",
        ]
        print(without_secrets(visible("\n".join(lines), lines=True)), file=sys.stderr)
        sys.exit(2)


@contextmanager
def _without_secrets() -> Iterator[None]:
    """For everything that is logged meanwhile, and for the traceback that a process may end with."""
    record, warning = logging.getLogRecordFactory(), warnings.formatwarning
    logging.setLogRecordFactory(_CleanRecord)
    warnings.formatwarning = lambda *args, **kwargs: without_secrets(warning(*args, **kwargs))
    sys.excepthook = _print_traceback
    try:
        yield
    finally:
        logging.setLogRecordFactory(record)
        warnings.formatwarning = warning


class _CleanRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return without_secrets(super().getMessage())


def _print_traceback(*raised: Any) -> None:
    print(without_secrets("".join(traceback.format_exception(*raised))), end="", file=sys.stderr)


def _advice(error: Exception, full: BaseException | None) -> list[str]:
    """About a disk without room, unless the message has some."""
    if full is None or "room" in str(error):
        return []
    reason = "" if full is error else f"{full}. "
    return [f"{reason}Make room on the disk: what was complete before is kept."]


def in_options(message: str) -> str:
    """A message about the fields of our settings as one about the options of the same names."""
    return _FIELD.sub(lambda field: f"--{field[1]} {field[2] or ''}".rstrip(), message)


def check_choice(option: str, value: str, valid: Sequence[str]) -> None:
    """Refuse a value of an option that is not one of these.

    Raises:
        ValueError: with the nearest ones.
    """
    if value not in valid:
        raise ValueError(f"--{option} {value} does not exist.{nearest(value, valid)}")
