"""Errors that the user can mend, and warnings of ours: one message in the words of the command line, not Python's."""

from __future__ import annotations

import logging
import os
import select
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.options.plugins import load_plugins
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.escaping import visible
from hf_ltsam.runs.secrets import without_secrets

TRACEBACK = "LTSAM_TRACEBACK"  # environment variable: set to 1, errors come with their traceback
_PACKAGES = ("hf_ltsam", "dataset_builders")
_OURS = tuple(str(Path(__file__).parents[2] / package) + os.sep for package in _PACKAGES)
# Errors of the machine and of packages below, by the names of their classes; {} is their text
_FOREIGN = {
    "OutOfMemoryError": "The accelerator's memory is full ({}).",
    "MemoryError": "The memory of this machine is full ({}).",
    "SafetensorError": "A file of weights is damaged or cut off ({}): take another checkpoint, or fetch it again.",
    "UnpicklingError": "A file is damaged or no checkpoint ({}): take another one, or fetch it again.",
    "DatasetGenerationError": "The data set could not be read ({}): is a file in it damaged, or of another kind?",
    "ImportError": "A package is missing, or too old for this: {}.",
    "HTTPError": "The network failed: {}. The same command tries again.",
    "DistError": "The processes lost each other ({}). Where another one has ended, its message says why.",
    "BrokenProcessPool": "A worker process was ended from outside, often because memory was short ({}).",
}
_CLOSED = 141  # as the shell says of a program that ends because its reader has
_LESS_MEMORY = {
    "per_device_train_batch_size": "A smaller --per_device_train_batch_size needs less; --gradient_accumulation_steps makes "
    "up for it.",
    "batch_size": "A smaller --batch_size needs less.",
}


# Of every loader that the stock Trainer makes where there is none: nothing is wrong, and nothing can be done about it
_WITHOUT_ACCELERATOR = "'pin_memory' argument is set as true but no accelerator is found"


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a bad value, a missing file or a refusal as one message and exit with status 2; Ctrl-C exits with 130.

    Plugins are imported first, by every command and script, since their errors are the user's too.
    No message, log, warning or traceback shows a secret. Warnings of ours are one line, those of others Python's two.
    """
    try:
        with _clean_output():
            load_plugins()
            yield
            sys.stdout.flush()
    except BrokenPipeError as error:
        if not _reader_has_gone():
            _end(error)
        sys.exit(_CLOSED)
    except KeyboardInterrupt as interrupt:
        print(without_secrets(f"\nInterrupted. {interrupt}").rstrip(), file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, NotImplementedError) as error:
        _end(error)
    except Exception as error:
        if _raised_by_us(error) or _foreign(error) or _without_room(error):
            _end(error)
        print(
            f"error: {type(error).__name__}, which is a fault of hf_ltsam or of a package below it and not of your command. "
            "Please report it as an issue of hf_ltsam, with the command, the output of `ltsam --version`, and these lines:",
            file=sys.stderr,
        )
        raise


@contextmanager
def _clean_output() -> Iterator[None]:
    """How logs and warnings read meanwhile, and the traceback that a process may end with."""
    record, as_python = logging.getLogRecordFactory(), warnings.formatwarning

    def formatwarning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if not _warned_by_us():
            return without_secrets(as_python(message, category, filename, lineno, line))
        text = OptionParser.worded(" ".join(str(message).splitlines()))
        return f"warning: {without_secrets(visible(text))}\n"

    logging.setLogRecordFactory(_CleanRecord)
    warnings.formatwarning = formatwarning
    sys.excepthook = _print_traceback
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_WITHOUT_ACCELERATOR)
            yield
    finally:
        logging.setLogRecordFactory(record)
        warnings.formatwarning = as_python


class _CleanRecord(logging.LogRecord):
    def getMessage(self) -> str:
        message = without_secrets(super().getMessage())
        return OptionParser.worded(message) if self.name.startswith(_PACKAGES) else message


def _warned_by_us() -> bool:
    """Whether the warning that is being shown is raised in our packages, whichever line its `stacklevel` names."""
    frames = reversed(traceback.extract_stack())
    raised = next((frame for frame in frames if (frame.line or "").startswith("warnings.warn(")), None)
    return raised is not None and raised.filename.startswith(_OURS)


def _print_traceback(*raised: Any) -> None:
    print(without_secrets("".join(traceback.format_exception(*raised))), end="", file=sys.stderr)


def _end(error: Exception) -> NoReturn:
    """The one message, and status 2."""
    if os.environ.get(TRACEBACK) == "1":
        raise error
    message = _foreign(error) or _of_the_system(error) or OptionParser.worded(str(error))
    notes = [OptionParser.worded(note) for note in getattr(error, "__notes__", [])]  # added on its way
    advice = _advice(str(error), error)
    lines = [f"error: {message}", *notes, *advice, f"({TRACEBACK}=1 shows where it was raised.)"]
    print(without_secrets(visible("\n".join(lines), lines=True)), file=sys.stderr)
    sys.exit(2)


def _reader_has_gone() -> bool:
    """Whether what reads the output, such as `head`, has ended: nothing is wrong, and the rest goes nowhere."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # errors are always told
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    return True


def _without_room(error: Exception) -> BaseException | None:
    """What says that a disk is full, here or among the causes: torch, safetensors and datasets have types of their own."""
    from hf_ltsam.runs.files import without_room  # which brings numpy, and is needed after an error alone

    return without_room(error)


def _advice(message: str, error: Exception) -> list[str]:
    """About a disk without room, unless the message has some."""
    full = _without_room(error)
    if full is None or "room" in message:
        return []
    reason = "" if full is error else f"{full}. "
    return [f"{reason}Make room on the disk: what was complete before is kept."]


def _raised_by_us(error: Exception) -> bool:
    """Whether it is a refusal of another kind, such as a type or a training that diverged, and no fault inside."""
    if not isinstance(error, TypeError | ArithmeticError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_OURS) and (frames[-1].line or "").startswith("raise ")


def _of_the_system(error: Exception) -> str | None:
    """An `OSError` that only the system described, without its number."""
    if not isinstance(error, OSError) or error.strerror is None or not str(error).startswith("[Errno"):
        return None
    return f"{error.filename or 'A file or device'}: {error.strerror}."


def _foreign(error: Exception) -> str | None:
    """What is known about an error of the machine or of a package below."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RuntimeError" in kinds and "gloo/transport" in str(error):  # which has no class of its own
        kinds |= {"DistError"}
    said = next((said for name, said in _FOREIGN.items() if name in kinds), None)
    if said is None or (isinstance(error, ImportError) and (error.name or "").startswith("hf_ltsam")):
        return None
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    memory = [hint for name, hint in _LESS_MEMORY.items() if name in OptionParser.declared and "memory" in said]
    return " ".join([said.format(text), *memory])


def check_choice(option: str, value: str, valid: Sequence[str]) -> None:
    """Refuse a value of an option that is not one of these.

    Raises:
        ValueError: with the nearest ones.
    """
    if value not in valid:
        raise ValueError(f"--{option} {value} does not exist.{nearest(value, valid)}")
