"""The loss that a model's own forward makes of the labels, compared once with the cross-entropy that trains in its place."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from hf_ltsam.data.random_states import undisturbed
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.landscape.repeated_pass import free_buffers_at_rest
from hf_ltsam.landscape.sharded import are_sharded
from hf_ltsam.losses import CrossEntropy
from hf_ltsam.losses.protocol import cross_entropy, wide
from hf_ltsam.models.trained_weights import is_half
from hf_ltsam.training.refusals.settings import hides_modules
from hf_ltsam.training.steps.pass_inputs import copied

logger = logging.get_logger(__name__)

_WAITING = 16  # micro-batches in which one of several classes is waited for
_TOLERANCE, _IN_HALF = 1e-3, 1e-2  # relative, of losses in float32 and in 16 bit
_SMALLEST = 1e-2  # loss down to which they are relative


class ForwardLoss:
    """Warns where the forward of a model makes another loss of the labels than the plain cross-entropy that trains.

    Once in the life of a trainer one pass is made with the labels: without gradient, in evaluation mode, and without a trace
    in buffers, modes and random numbers. Hooks are called, and what a forward does to attributes or frozen weights in that
    mode it does here. It is the first micro-batch of several classes, since class weights divide out in a mean over one; in
    several processes, which must call a model alike, the first.

    Args:
        trainer: whose model, loss and settings are read.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._left = _WAITING if trainer.accelerator.num_processes == 1 else 1

    def compare(self, batch: MicroBatch) -> None:
        """Look at a micro-batch, which the model has been trained with."""
        if not self._left:
            return
        self._left -= 1
        if not self._is_comparable(batch.labels):
            self._left = 0
        elif not self._left or bool((batch.labels != batch.labels[0]).any()):
            self._left = 0
            self._compare(batch)

    def _is_comparable(self, labels: Tensor) -> bool:
        """Whether plain cross-entropy of class indices trains, and the model may be asked for its own loss.

        Under `label_smoothing_factor` the stock Trainer makes the loss of the logits, too.
        """
        trainer = self._trainer
        return (
            type(trainer.loss) is CrossEntropy
            and not trainer.args.label_smoothing_factor
            and labels.ndim == 1
            and not labels.is_floating_point()
            and hides_modules(trainer.args) is None
            and not _is_compiled(trainer.model)
            and not trainer.is_fsdp_enabled
            and not are_sharded(list(trainer.model.parameters()))
            and _takes(trainer.model, trainer.label_names[0])
        )

    def _compare(self, batch: MicroBatch) -> None:
        model, args = self._trainer.model, self._trainer.args
        try:
            losses = _losses(model, batch, self._trainer.label_names[0])
            theirs, ours = (math.nan, math.nan) if losses is None else (loss.item() for loss in losses)
        except Exception:  # of the model's code, which the training never runs
            return
        if losses is None:
            return
        in_half = args.bf16 or args.fp16 or any(map(is_half, (*losses, *model.parameters())))
        tolerance = _IN_HALF if in_half else _TOLERANCE
        if not math.isfinite(theirs) or math.isclose(theirs, ours, rel_tol=tolerance, abs_tol=tolerance * _SMALLEST):
            return
        logger.warning(
            f"{type(model).__name__}.forward makes a loss of its own of the labels, {theirs:.5g} where the plain "
            f"cross-entropy of its logits is {ours:.5g}, and it does not train: loss='cross_entropy' does, of the logits "
            "alone. loss='model' trains with the model's own, by methods that ask for no classes; to weight classes, set "
            "reweighting= in LTSamConfig."
        )


def _losses(model: nn.Module, batch: MicroBatch, label_name: str) -> tuple[Tensor, Tensor] | None:
    """The model's own loss and the mean cross-entropy of the same logits; None where it gives not both, or not for each."""
    with without_trace(model, batch.labels.device):
        outputs = model(**copied(batch.inputs, tensors=True), **{label_name: batch.labels.clone()})
    if isinstance(outputs, Mapping):
        loss, logits = outputs.get("loss"), outputs.get("logits")
    elif isinstance(outputs, tuple):
        loss, logits = outputs[:2]
    else:
        return None
    if loss is None or loss.numel() != 1 or logits is None or logits.ndim != 2 or bool((batch.labels < 0).any()):
        return None
    return loss, cross_entropy(wide(logits), batch.labels).mean()


@contextmanager
def without_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients, after which modes, buffers, random numbers and `problem_type` are as before.

    Modes are set one by one: `eval()` of some layers does more than that, such as merging weights.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    configurations: list[Any] = [m.config for m in modules if hasattr(getattr(m, "config", None), "problem_type")]
    problems = [configuration.problem_type for configuration in configurations]
    try:
        for module in modules:
            module.training = False
        with free_buffers_at_rest(model), undisturbed(model, device=device), torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes):
            module.training = mode
        for configuration, problem in zip(configurations, problems):
            configuration.problem_type = problem


def _is_compiled(model: nn.Module) -> bool:
    return any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in model.modules())


def _takes(model: nn.Module, label_name: str) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return label_name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
