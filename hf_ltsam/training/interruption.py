"""What ends a training from outside: SIGTERM, as schedulers send it before they take a machine away, Ctrl-C, lost ranks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging, strtobool

try:
    from torch.distributed import set_timeout
except ImportError:  # its name before it became public
    from torch.distributed.distributed_c10d import _set_pg_timeout as set_timeout

logger = logging.get_logger(__name__)

EXIT_STATUS = 128 + signal.SIGTERM  # as a shell reports a process that SIGTERM has ended


class SigtermCheckpoint(TrainerCallback):
    """Ends the process with status 143 after the step in which SIGTERM came, with a checkpoint of that step.

    It replaces transformers' own callback behind `enable_jit_checkpoint`, which saves in the middle of a step (batch
    norm and random numbers have moved, the weights have not), straight into `checkpoint-N`, and only in the processes
    that the signal has reached. Several processes all end after the same step: at the end of every step they begin to
    exchange whether any of them was asked to end, and read the answer at the end of the next.
    """

    _cause = "SIGTERM"

    def __init__(self) -> None:
        self._asked = self._ending = False
        self._group: Any = None
        self._exchanges: list[tuple[torch.Tensor, Any]] = []  # of the last step, if any: flag, pending reduction

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
        """Launchers and schedulers may both send it: several are as good as one."""
        self._asked = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if dist.is_available() and dist.is_initialized() and self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=args.ddp_timeout_delta)  # of the host: no GPU waits

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._save_if_agreed(state, control):
            control.should_evaluate = False  # there may be seconds left

    def _save_if_agreed(self, state: Any, control: Any) -> bool:
        self._ending = self._agreed()
        if self._ending:
            logger.warning(f"{self._cause}: saving a checkpoint of step {state.global_step}, then ending.")
            control.should_save = True
        return self._ending

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._ending:
            self._end()

    def _end(self) -> NoReturn:
        raise SystemExit(EXIT_STATUS)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._asked = self._answer() or self._asked

    def _agreed(self) -> bool:
        """Whether any process was asked to end, and every process knows."""
        if self._group is None:
            return self._asked
        answer = self._answer()
        flag = torch.tensor([int(self._asked)])
        self._exchanges.append((flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)))
        return answer

    def _answer(self) -> bool:
        """Of the pending exchange, if there is one."""
        for flag, reduction in self._exchanges:
            reduction.wait()
            self._exchanges = []
            return bool(flag)
        return False


class _CtrlCCheckpoint(SigtermCheckpoint):
    """The same on Ctrl-C, in one process; a second one ends at once, and one that came too late ends nothing.

    What is evaluated after the step is evaluated before the end, as at the end of an epoch: a resumed run does not make up
    for it.
    """

    _cause = "Ctrl-C"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not float(state.epoch).is_integer():
            self._save_if_agreed(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._save_if_agreed(state, control)

    @contextmanager
    def listening(self) -> Iterator[None]:
        signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._asked:
            logger.warning("Ctrl-C came after the last step: the training is at its end.")

    def _end(self) -> NoReturn:
        raise KeyboardInterrupt

    def _note(self, *_: Any) -> None:
        super()._note()
        os.write(2, b"\nCtrl-C: ends after this step, with a checkpoint of it; once more: at once, without one.\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def saved_on_ctrl_c(trainer: Trainer) -> Iterator[None]:
    """While this training runs, Ctrl-C ends it behind a checkpoint of its step.

    Raises:
        KeyboardInterrupt: it did. At once, in several processes, or where no checkpoint is to be resumed from.
    """
    args = trainer.args
    resumable = args.save_strategy != "no" and not args.save_only_model
    in_main_thread = threading.current_thread() is threading.main_thread()
    interrupts = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup
    if args.world_size > 1 or not resumable or not interrupts:
        yield
        return
    checkpoint = _CtrlCCheckpoint()
    trainer.add_callback(checkpoint)
    try:
        with checkpoint.listening():
            yield
    finally:
        trainer.remove_callback(checkpoint)


def join_processes(args: TrainingArguments) -> None:
    """Wait for the other processes of a training on CPUs, to which transformers does not pass `ddp_timeout` on.

    Its own call afterwards finds them together. Nothing is done where there are no others, or on GPUs.

    Raises:
        TimeoutError: one of them did not come.
    """
    on_cpus = args.use_cpu or strtobool(os.environ.get("ACCELERATE_USE_CPU", "False"))
    if not on_cpus or launched_processes() == 1 or not dist.is_available() or dist.is_initialized():
        return
    try:
        PartialState(cpu=True, backend=args.ddp_backend, timeout=args.ddp_timeout_delta)
    except dist.DistError as error:
        raise TimeoutError(
            f"Not all of {launched_processes()} processes have come within ddp_timeout={args.ddp_timeout} seconds ({error}) "
            "The log of the missing one says why it ended; a machine that starts slowly needs a longer ddp_timeout."
        ) from error


def check_launched(args: TrainingArguments) -> None:
    """Refuse processes that were launched together and would each train alone.

    Raises:
        ValueError: accelerate takes them for processes on GPUs, of which there are none.
    """
    if args.world_size == 1 and launched_processes() > 1:
        raise ValueError(
            f"{launched_processes()} processes were launched together, but there is no GPU here that they could train on, "
            "and each would train alone. On CPUs: use_cpu=True (training_scripts/accelerate_configs/multi_cpu.yaml). "
            "Otherwise look at CUDA_VISIBLE_DEVICES and the driver."
        )


def launched_processes() -> int:
    """How many processes a launcher (torchrun, accelerate) has started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def limit_waiting(seconds: float) -> None:
    """Let `ddp_timeout` apply between processes on CPUs, to which transformers does not pass it on."""
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
        set_timeout(timedelta(seconds=seconds))
