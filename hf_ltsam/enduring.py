"""The stock Trainer among other processes: those that want its folder, those that end it, those it waits for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

from .checkpoint_folders import last_checkpoint, tidy
from .distributed import limit_waiting
from .folder_lock import folder_lock
from .termination import EndsOnSigterm
from .whole_checkpoints import WritesWholeCheckpoints


class Endures(WritesWholeCheckpoints):
    """Trains alone in its folder, ends in order on SIGTERM where `enable_jit_checkpoint` is set, and says how to go on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        on_sigterm = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
        super().__init__(*args, **kwargs)
        limit_waiting(self.args.ddp_timeout)
        self._ends_on_sigterm = EndsOnSigterm()
        if self.args.enable_jit_checkpoint:
            self.pop_callback(JITCheckpointCallback)        # it has set its handler already
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
