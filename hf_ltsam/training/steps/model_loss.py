"""A loss that comes as one number for each micro-batch: the model's own, or that of `compute_loss`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerState

from hf_ltsam.data.sampling.sample_indices import indices_in_words, indices_of_step
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.methods import METHODS, Method
from hf_ltsam.runs.identity import describe

ComputeLoss = Callable[..., Any]  # (model, inputs, num_items_in_batch=...) -> a number, as in `Trainer.compute_loss`


@dataclass(frozen=True)
class LossUnit(MicroBatch):
    """A micro-batch whose loss is one number: one unit of weight, of no class.

    Args:
        inputs: the batch as the loader gives it, labels included.
        labels: zeros (1,), on the device of the weights.
        num_items: of the optimizer step, as in `Trainer.compute_loss`.
        factor: what makes of the number the loss of which a step takes the mean over its micro-batches.
    """

    num_items: Tensor | int | None = None
    factor: int = 1


def loss_unit(trainer: Trainer, inputs: Any, num_items: Tensor | int | None) -> LossUnit:
    """The micro-batch of a trainer; a loss that is divided by the items of the step is a K-th of K micro-batches' mean."""
    factor = trainer.current_gradient_accumulation_steps if loss_is_scaled(trainer, num_items) else 1
    return LossUnit(inputs, torch.zeros(1, dtype=torch.long, device=trainer.args.device), num_items, factor)


def loss_is_scaled(trainer: Trainer, num_items: Tensor | int | None) -> bool:
    """Whether the losses of a step's micro-batches add up to that of the step, by the rule of `Trainer.training_step`."""
    stated = getattr(trainer, "loss_is_scaled_for_ga", None)
    if stated is not None:
        return bool(stated)
    return bool(trainer.model_accepts_loss_kwargs and num_items is not None) or trainer.compute_loss_func is not None


@dataclass(frozen=True)
class ModelObjective:
    """The loss of a `Trainer.compute_loss`, and the method that minimises it.

    Args:
        method: the update rule.
        compute_loss: as in `Trainer`.
        label_smoothing: of the settings, which stock's `compute_loss` follows.
    """

    method: Method
    compute_loss: ComputeLoss
    label_smoothing: float = 0.0
    statistics = None  # no classes are known

    def identity(self) -> dict[str, Any]:
        """What a checkpoint records; a run that differs must not resume it."""
        loss = {"loss": {"name": "model", "args": {}}, "label_smoothing": self.label_smoothing}
        return {"method": describe(METHODS, self.method), **loss}

    def of_batches(
        self,
        module: nn.Module,
        model: nn.Module,
        progress: float,
        context: Callable[[], AbstractContextManager[None]],
    ) -> UnitLoss:
        return UnitLoss(module, self.compute_loss, context)


class UnitLoss:
    """The losses of the micro-batches of one training step.

    Args:
        module: what is called: the model, or what wraps it.
        compute_loss: as in `Trainer`.
        context: in which it is called.
    """

    loss = None  # none of ours: no shortcut could be tried with it

    def __init__(
        self, module: nn.Module, compute_loss: ComputeLoss, context: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._module, self._compute_loss, self._context = module, compute_loss, context

    def logits(self, batch: MicroBatch) -> Tensor:
        """The loss (1,), by one forward pass; `compute_loss` may take parts from the batch, which is a copy.

        Raises:
            TypeError: it is not one number.
        """
        if not isinstance(batch, LossUnit):
            raise TypeError(f"The loss of a model belongs to a LossUnit, got {type(batch).__name__}.")
        with self._context():
            loss = self._compute_loss(self._module, batch.inputs, num_items_in_batch=batch.num_items)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise TypeError(f"compute_loss must return one number for a micro-batch, got {shape}: take its mean.")
        return (loss if batch.factor == 1 else batch.factor * loss).reshape(1)

    def losses(self, loss: Tensor, batch: MicroBatch) -> Tensor:
        return loss


def batches_in_words(before: int, batches: Sequence[MicroBatch], state: TrainerState, loader: Any) -> str:
    """Which samples some micro-batches of a step hold, or the numbers of those where the loader cannot tell.

    Args:
        before: number of micro-batches of the step that came before them.
        state: of the trainer, at the beginning of the step.
        loader: of the training.
    """
    indices = indices_of_step(loader, state.epoch, before, len(batches))
    if indices is not None:
        return indices_in_words(indices)
    last = f" to {before + len(batches)}" if len(batches) > 1 else ""
    return f"micro-batch {before + 1}{last} of the step"
