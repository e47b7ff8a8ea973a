"""The stock Trainer among other processes: those that want its folder, those that end it, those it waits for."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.distributed as dist
from transformers import TrainerCallback
from transformers.trainer_jit_checkpoint import JITCheckpointCallback
from transformers.utils import logging

from hf_ltsam.landscape.reduction import limit_waiting
from hf_ltsam.training.checkpoints import WritesWholeCheckpoints, last_checkpoint, tidy

# ---- one training at a time in a folder: a lock that goes with its process ----

logger = logging.get_logger(__name__)

FILE_NAME = "_run.lock"  # transformers pushes nothing with a leading underscore to the Hub


class FolderInUseError(ValueError):
    """Another process trains there."""


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Keep other processes from training in this folder.

    A record lock of POSIX: the system drops it when its process ends, however it ends, and workers that outlive the process
    have no part in it. It excludes nothing within one process. Where the file system has no locks, there is a warning.

    Raises:
        FolderInUseError: naming the process, its machine and its start.
    """
    path = Path(folder) / FILE_NAME
    file = _locked(path)
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()


def _locked(path: Path) -> TextIO | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        _warn(path, error)
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # EAGAIN and EACCES: systems say either
        raise FolderInUseError(_refusal(path)) from error
    except OSError as error:
        _warn(path, error)
        return None
    if not _is_still(path, file):  # its holder has just ended and removed it
        file.close()
        return _locked(path)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
    file.flush()
    return file


def _warn(path: Path, error: OSError) -> None:
    logger.warning(f"{path.parent} cannot be locked ({error.strerror}): take care that no other run writes to it.")


def _is_still(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _refusal(path: Path) -> str:
    return (
        f"output_dir={str(path.parent)!r} is in use by another run ({path.read_text() or 'just started'}). Wait for it or "
        "stop it, or choose another output_dir."
    )


# ---- sigterm, as schedulers send it before they take a machine away: finish the step, save, end ----

logger = logging.get_logger(__name__)

EXIT_STATUS = 128 + signal.SIGTERM  # as a shell reports a process that SIGTERM has ended


class EndsOnSigterm(TrainerCallback):
    """Ends the process with status 143 after the step in which SIGTERM came, with a checkpoint of that step.

    It stands for transformers' own callback behind `enable_jit_checkpoint`, which saves in the middle of a step (batch
    norm and random numbers have moved, the weights have not), straight into `checkpoint-N`, and on those processes only
    that the signal has reached. With several processes, all end after the same step: at the end of every step they begin
    to tell each other, and read what came of it at the end of the next.
    """

    def __init__(self) -> None:
        self._asked = self._ending = False
        self._group: Any = None
        self._under_way: list[tuple[torch.Tensor, Any]] = []  # the message of the last step, if any

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While the training runs. A signal that came too late for its last step is delivered when it is over."""
        if threading.current_thread() is not threading.main_thread():
            logger.warning("enable_jit_checkpoint has no effect: Python receives signals in the main thread only.")
            yield
            return
        self._asked = self._ending = False
        previous = signal.signal(signal.SIGTERM, self._note) or signal.SIG_DFL
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
        if self._asked:
            signal.raise_signal(signal.SIGTERM)

    def _note(self, *_: Any) -> None:
        """Launchers and schedulers may both send it: more than one is as good as one."""
        self._asked = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if dist.is_available() and dist.is_initialized() and self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=args.ddp_timeout_delta)  # of the host: no GPU waits

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._ending = self._all_asked()
        if self._ending:
            logger.warning(f"SIGTERM: saving a checkpoint of step {state.global_step}, then ending.")
            control.should_save, control.should_evaluate = True, False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._ending:
            raise SystemExit(EXIT_STATUS)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._asked = self._told() or self._asked

    def _all_asked(self) -> bool:
        """Whether any process was asked to end, and every process knows."""
        if self._group is None:
            return self._asked
        known = self._told()
        flag = torch.tensor([int(self._asked)])
        self._under_way.append((flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)))
        return known

    def _told(self) -> bool:
        """What came of the message that is under way, if there is one."""
        for flag, work in self._under_way:
            work.wait()
            self._under_way = []
            return bool(flag)
        return False


# ---- a package that nobody looks for while training ----


@contextmanager
def not_looked_for(package: str) -> Iterator[None]:
    """For the duration of a `with` block the package counts as not installed; finding that out takes no time.

    accelerate's optimizer looks for `lomo_optim` twice in every step, in every folder of `sys.path`: a quarter of a
    millisecond, as much as the optimizer's own step. LOMO is refused here (see `refusals.py`).
    """
    missing = object()
    known = sys.modules.get(package, missing)
    sys.modules[package] = None  # type: ignore[assignment]        # Python's own sign for what cannot be imported
    try:
        yield
    finally:
        if known is missing:
            sys.modules.pop(package, None)
        else:
            sys.modules[package] = known  # type: ignore[assignment]


class Endures(WritesWholeCheckpoints):
    """Trains alone in its folder, ends in order on SIGTERM where `enable_jit_checkpoint` is set, and says how to go on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        on_sigterm = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
        super().__init__(*args, **kwargs)
        limit_waiting(self.args.ddp_timeout)
        self._ends_on_sigterm = EndsOnSigterm()
        if self.args.enable_jit_checkpoint:
            self.pop_callback(JITCheckpointCallback)  # it has set its handler already
            signal.signal(signal.SIGTERM, on_sigterm)
            self.add_callback(self._ends_on_sigterm)

    @contextmanager
    def enduring(self) -> Iterator[None]:
        """While the training runs.

        Raises:
            FolderInUseError: another process trains in `output_dir`.
        """
        with ExitStack() as meanwhile:
            if self.args.should_save:
                meanwhile.enter_context(folder_lock(self.args.output_dir))
                tidy(Path(self.args.output_dir))
            self.accelerator.wait_for_everyone()
            if self.args.enable_jit_checkpoint:
                meanwhile.enter_context(self._ends_on_sigterm.listening())
            yield

    @contextmanager
    def telling_how_to_go_on(self) -> Iterator[None]:
        """A note to every error that ends the training."""
        try:
            yield
        except Exception as error:
            last = last_checkpoint(self.args.output_dir)
            if last is not None:
                error.add_note(f"{last} is complete: resume_from_checkpoint=True goes on from there.")
            raise

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """As stock, but none for a run that is resumed at its end: the stock loop would take one more step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)
