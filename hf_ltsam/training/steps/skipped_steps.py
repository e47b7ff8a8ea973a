"""The method's memory, and skipped steps: one without a finite gradient leaves no trace in memory, weights or buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.landscape.sharded import memory_like, whole_memory
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.models.trained_weights import trained_parameters
from hf_ltsam.training.checkpoint_folders import load_tensors
from hf_ltsam.training.durable_trainer import CheckpointedCallback

logger = logging.get_logger(__name__)


class MethodMemory(CheckpointedCallback):
    """What the method remembers from step to step, kept for the whole training and saved with every checkpoint.

    Every process has its own, since it saw other samples. Resumed by more processes than there were, the others begin with
    that of the first one.

    Args:
        optimizer: gives the one that trains the weights.
        own_loss: whether the loss may have weights outside the model.
    """

    def __init__(self, optimizer: Callable[[], Any] = lambda: None, own_loss: bool = False) -> None:
        self.values: dict[str, Any] = {}
        self._optimizer, self._own_loss = optimizer, own_loss

    def save_state(self, folder: Path, args: TrainingArguments) -> None:
        if self.values:
            torch.save(whole_memory(self.values), folder / _memory_file(args.process_index))

    def load_state(self, folder: Path | None, args: TrainingArguments, model: nn.Module) -> None:
        self.values.clear()
        files = [] if folder is None else [folder / _memory_file(process) for process in (args.process_index, 0)]
        for file in [file for file in files if file.is_file()][:1]:
            trained = trained_parameters(model, self._optimizer(), self._own_loss)
            self.values.update(memory_like(load_tensors(file, args.device), trained))


def _memory_file(process: int) -> str:
    return "method_memory.pt" if process == 0 else f"method_memory_{process}.pt"


class SkippedSteps(TrainerCallback):
    """Skips a step without a finite gradient, so that only the logs show it.

    Weights are never touched by such a step, and the method's memory is put back to what it was before it. So are the
    model's buffers (batch norm's running statistics), but not where a scaler alone skips the step: the forward pass was in
    order then, and the stock Trainer keeps what it moved.

    Args:
        accelerator: whose gradient scaler, if it has one, skips steps on its own.
        memory: of the method.
        stop_after: skipped steps in a row that end the training, >= 1.
    """

    def __init__(self, accelerator: Accelerator, memory: dict[str, Any], stop_after: int) -> None:
        self.count = 0  # since the training began
        self.norm: Tensor | None = None  # of the last step's gradient; None: the step was skipped, or is scaled
        self._accelerator = accelerator
        self._memory = memory
        self._stop_after = stop_after
        self._in_a_row = 0
        self._before: dict[str, Any] | None = None  # the method's memory before the step
        self._buffers: list[tuple[Tensor, Tensor]] = []  # each with its copy
        self._passes: list[tuple[Sequence[MicroBatch], Tensor]] = []  # of the step: micro-batches and their mean loss

    @property
    def in_step(self) -> bool:
        """Whether the method has begun the present step."""
        return self._before is not None

    def begin(self, model: nn.Module) -> bool:
        """Keep what the step may move, with its first micro-batch; whether this is the first."""
        if self._before is not None:
            return False
        self._before = dict(self._memory)  # what a method remembers is replaced, never written into
        if [id(b) for b in model.buffers()] != [id(b) for b, _ in self._buffers]:
            self._buffers = [(b, b.clone()) for b in model.buffers()]
        if self._buffers:
            torch._foreach_copy_([copy for _, copy in self._buffers], [buffer for buffer, _ in self._buffers])
        return True

    def add(self, batches: Sequence[MicroBatch], loss: Tensor) -> None:
        """Micro-batches that were passed together, and their mean loss."""
        self._passes.append((batches, loss.detach()))

    def judge(
        self, parameters: Sequence[Tensor], step: int, samples_in_words: Callable[[int, Sequence[MicroBatch]], str]
    ) -> None:
        """Before the optimizer's step: keep the gradients, or take them away so that the step is skipped.

        Args:
            parameters: with the optimizer's gradients in their `.grad`, alike on all processes.
            step: completed optimizer steps.
            samples_in_words: (number of micro-batches before, micro-batches) -> which samples, for the message.

        Raises:
            FloatingPointError: this was one too many in a row.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        passes, self._passes = self._passes, []
        norm = WeightVector(gradients).norm() if gradients else None
        self.norm = None
        if norm is None or bool(norm.isfinite()):
            self.norm = norm if self._accelerator.scaler is None else None
            self._in_a_row = 0
            return
        bad = [k for k, (_, loss) in enumerate(passes) if not bool(loss.isfinite())]
        if self._accelerator.scaler is not None and not _anywhere(bool(bad), gradients[0].device):
            return  # an overflow, which the scaler looks after
        self._skip(step, [f"loss {float(passes[k][1])} for {samples_in_words(k, passes[k][0])}" for k in bad])
        self._put_back(buffers=True)
        if self._accelerator.scaler is None:  # the scaler itself skips the step, and wants to see why
            for p in parameters:
                p.grad = None

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._accelerator.optimizer_step_was_skipped:
            self._put_back(buffers=False)
        self._before = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.count, self._in_a_row, self._before, self._passes = 0, 0, None, []

    def _put_back(self, buffers: bool) -> None:
        if self._before is not None:
            self._memory.clear()
            self._memory.update(self._before)
        if buffers:
            for buffer, copy in self._buffers:
                buffer.copy_(copy)

    def _skip(self, step: int, causes: Sequence[str]) -> None:
        self.count += 1
        self._in_a_row += 1
        cause = "; ".join(causes) or "the loss is finite here, its gradient (or that of another process) is not"
        message = f"Step {step} is skipped, its gradient is not finite: {cause}."
        if self._in_a_row >= self._stop_after:
            raise FloatingPointError(
                f"{message} That is {self._in_a_row} in a row, and max_skipped_steps={self._stop_after} ends the "
                "training there. Look at these samples; else lower the learning rate or rho. The last checkpoint is intact."
            )
        logger.warning(message)


def _anywhere(flag: bool, device: torch.device) -> bool:
    """Whether it is so in any process. Every process asks: its gradient is the same."""
    if not (dist.is_available() and dist.is_initialized()):
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags)
    return bool(flags > 0)
