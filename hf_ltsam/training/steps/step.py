"""One training step: from micro-batches to the method's vector in `p.grad`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.mixing import MixingSettings, Mixture
from hf_ltsam.data.soft_labels import are_soft, as_shares
from hf_ltsam.landscape.batches import JointBatch, MicroBatch, in_groups
from hf_ltsam.landscape.graphs import GraphedPasses
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.reduction import average_gradients, broadcast_buffers, joint_batch
from hf_ltsam.landscape.sharded import are_sharded, ready_for_passes
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import FeatureLoss, Loss
from hf_ltsam.losses.protocol import takes_several_labels
from hf_ltsam.methods.context import ClasslessContext, StepContext
from hf_ltsam.models.trained_weights import (
    check_optimizer_of,
    check_sparse_gradients,
    check_types_of,
    trained_parameters,
)
from hf_ltsam.training.objective import Objective
from hf_ltsam.training.steps.model_loss import ModelObjective
from hf_ltsam.training.steps.pass_inputs import PassInputs
from hf_ltsam.training.steps.skipped_steps import SkippedSteps
from hf_ltsam.training.telemetry import GRADIENTS_EVERY, ClassGroups, Telemetry

logger = logging.get_logger(__name__)
_NO_FP16 = "fp16=True has no effect on this device: the passes are float32. Leave it out, or state bf16=True."

AnyObjective: TypeAlias = Objective | ModelObjective


@dataclass(frozen=True)
class Moment:
    """Where the training is when a micro-batch comes.

    Args:
        module: what is called: the model, or what wraps it.
        model: the model itself.
        step: completed optimizer steps.
        total_steps: of the training.
        micro_batches: of this optimizer step.
    """

    module: nn.Module
    model: nn.Module
    step: int
    total_steps: int
    micro_batches: int

    @property
    def progress(self) -> float:
        """Completed steps / total steps, in [0, 1)."""
        return self.step / max(self.total_steps, 1)


class StepSettings(Protocol):
    """What a step is told, as `LTSamConfig` has it."""

    @property
    def ascent_scope(self) -> str: ...
    @property
    def ascent_size(self) -> int | None: ...
    @property
    def exact_rows(self) -> bool: ...
    @property
    def telemetry(self) -> bool: ...
    @property
    def cuda_graphs(self) -> bool: ...


class TrainingStep(TrainerCallback):
    """Micro-batches in, the method's vector in `.grad` out: for each micro-batch, or for all of a step with its last.

    As a callback of the trainer it forgets, when a training begins, what an earlier one left.

    Args:
        model: gives the one whose trainable weights are moved.
        args: of the trainer.
        settings: what is perturbed together, by which ways around the full computation, and whether the logs tell of it.
        accelerator: of the trainer.
        telemetry: what the logs tell of perturbed passes.
        skipped: steps without a finite gradient.
        memory: of the method.
        context: gives that in which the model is called.
        samples_in_words: (number of micro-batches before, micro-batches) -> which samples they hold, for messages.
        sharded: whether weights lie in shards (FSDP).
        optimizer: gives the one that trains the weights; None: there is none yet.
        own_loss: whether the loss may have weights outside the model, and backward passes of its own.
        mixing: how images are mixed; None: they are not.

    Raises:
        ValueError: the model has no trainable weights.
    """

    def __init__(
        self,
        *,
        model: Callable[[], nn.Module],
        args: TrainingArguments,
        settings: StepSettings,
        accelerator: Accelerator,
        telemetry: Telemetry,
        skipped: SkippedSteps,
        memory: dict[str, Any],
        context: Callable[[], AbstractContextManager[None]],
        samples_in_words: Callable[[int, Sequence[MicroBatch]], str],
        sharded: bool,
        optimizer: Callable[[], Any] = lambda: None,
        own_loss: bool = False,
        mixing: MixingSettings | None = None,
    ) -> None:
        self._args, self._settings, self._accelerator = args, settings, accelerator
        if args.torch_compile:
            keep_buffers_of_backward_passes()
        self._telemetry, self._skipped, self._memory = telemetry, skipped, memory
        self._context, self._samples_in_words = context, samples_in_words
        self._sharded, self._optimizer, self._own_loss = sharded, optimizer, own_loss
        self._mixing = MixingSettings() if mixing is None else mixing
        self._model = model
        self._weights = self._weights_of(model())
        self._shortcuts: Shortcuts | None = None
        self._tried_with: Loss | FeatureLoss | None = None  # the loss that the shortcuts were tried with
        self._loss_scale = 1.0
        self._position = 0  # of the micro-batch in its step
        self._waiting: list[MicroBatch] = []  # for the last one of a step with one perturbation
        self._compiled: Any = None  # the bare module, where several processes pass through it
        self._graphed: GraphedPasses | None = None
        self._inputs = PassInputs()

    @property
    def _observer(self) -> Telemetry | None:
        return self._telemetry if self._settings.telemetry else None

    @property
    def _once_per_step(self) -> bool:
        """Whether all samples of an optimizer step are perturbed together."""
        return self._settings.ascent_scope == "step"

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._telemetry.reset()
        self._waiting, self._inputs = [], PassInputs()
        model, optimizer = self._model(), self._optimizer()
        trained = trained_parameters(model, optimizer, self._own_loss)
        check_sparse_gradients(model, trained)
        of_types = check_types_of(trained, self._accelerator.scaler is not None)
        of_passes = _NO_FP16 if args.fp16 and not self._accelerator.native_amp else None
        remarks = [*check_optimizer_of(optimizer, model, self._own_loss), of_types, of_passes]
        for remark in filter(None, remarks):
            logger.warning(remark)

    def __call__(self, batch: MicroBatch, objective: AnyObjective, moment: Moment) -> Tensor:
        """Add the vector to `.grad` as soon as its samples are there.

        Returns:
            Their mean loss, of which the logs take the mean over the micro-batches of the step: a 0-dimensional tensor.
        """
        first = self._skipped.begin(moment.model)
        self._position = 0 if first else self._position + 1
        if first:
            self._loss_scale = self._scale_of_this_step()
        self._waiting.append(self._mixed(batch, objective.statistics, moment.step))
        if self._once_per_step and not self._accelerator.sync_gradients:
            return torch.zeros((), device=batch.labels.device)
        batches, self._waiting = self._waiting, []
        parts = 1 if self._once_per_step else moment.micro_batches  # whose mean is in .grad
        weights = self._trainable_weights(moment.model)
        loss = self._add_gradient(batches, objective, moment, weights, parts)
        self._skipped.add(batches, loss)
        if self._accelerator.sync_gradients:
            self._finish(moment, weights)
        return loss if parts == moment.micro_batches else loss * moment.micro_batches

    def _mixed(self, batch: MicroBatch, statistics: ClassStatistics | None, step: int) -> MicroBatch:
        """The micro-batch with its images mixed, where the settings ask for that."""
        if statistics is None or not self._mixing.mixing:
            return batch
        # its number over processes and accumulation: 1 x 4 or 4 x 1 micro-batches of a step are mixed alike
        number = step * self._args.gradient_accumulation_steps + self._position
        number = number * self._accelerator.num_processes + self._accelerator.process_index
        mixture = Mixture.drawn(self._mixing, self._args.seed, number, len(batch))
        return MicroBatch(*mixture.of(batch.inputs, batch.labels, statistics.num_classes))

    def _add_gradient(
        self, batches: list[MicroBatch], objective: AnyObjective, moment: Moment, weights: TrainableWeights, parts: int
    ) -> Tensor:
        """Add the method's vector for these samples, one of `parts` equal parts of the gradient; the mean loss."""
        processes = self._accelerator.num_processes
        together = processes > 1 and (self._once_per_step or are_sharded(weights.parameters))
        size = self._settings.ascent_size
        losses = []
        for group in ascent_groups(batches, size // processes if size and together else size, together):
            divisor = parts / group.share / self._loss_scale
            losses.append(group.share * self._add_group(group, objective, moment, weights, divisor))
            self._telemetry.end_step()
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _add_group(
        self, group: AscentGroup, objective: AnyObjective, moment: Moment, weights: TrainableWeights, divisor: float
    ) -> Tensor:
        """The same for samples that are perturbed together."""
        loss = objective.of_batches(self._module(moment), moment.model, moment.progress, self._context)
        landscape = LossLandscape(
            weights,
            group.batches,
            partial(self._inputs.logits, loss.logits),
            loss.losses,
            divisor,
            self._observer,
            shortcuts=self._shortcuts_for(loss.loss, weights),
            joint=group.joint,
            whole_passes=self._own_loss,
        )
        try:
            labels = group.labels
            if objective.statistics is not None and takes_several_labels(loss.loss) and are_soft(labels):
                labels = as_shares(labels, objective.statistics.most_frequent)
            gradient = objective.method.update(landscape, self._context_of(labels, objective, moment, weights))
        finally:
            weights.restore()  # nothing to do unless an exception cut even the landscape's own restoring short
        accumulate(gradient / divisor, weights.parameters, landscape.reached)
        if self._observer is not None:
            self._observe(landscape, labels, objective, moment.step)
        return landscape.mean_loss

    def _module(self, moment: Moment) -> Any:
        """What is called; of several processes the bare module, compiled where that is asked for.

        Several passes would each set off DDP's reduction; the result is reduced once.
        """
        if self._settings.cuda_graphs:
            if self._graphed is None or self._graphed.module is not moment.module:
                self._graphed = GraphedPasses(moment.module)
            return self._graphed
        if self._accelerator.num_processes == 1:
            return moment.module
        if not self._args.torch_compile:
            return moment.model
        if self._compiled is None or self._compiled._orig_mod is not moment.model:
            self._compiled = torch.compile(moment.model, **self._accelerator.state.dynamo_plugin.to_kwargs())
        compiled: nn.Module = self._compiled
        return compiled

    def _observe(self, landscape: LossLandscape, labels: Tensor, objective: AnyObjective, step: int) -> None:
        """What a step tells besides its perturbed passes."""
        self._telemetry.losses(landscape.first_losses, landscape.labels)
        due = (step + 1) % GRADIENTS_EVERY == 0 and not landscape.was_dealt_out
        if due and objective.statistics is not None:
            tail = ClassGroups(objective.statistics).tail(labels)
            self._telemetry.gradient_norms(landscape.gradient(1 - tail).norm(), landscape.gradient(tail).norm())

    def _finish(self, moment: Moment, weights: TrainableWeights) -> None:
        """After the step's last micro-batch: the processes agree, and see whether the step has a finite gradient."""
        if self._sharded or self._own_loss:  # whole backward passes leave gradients everywhere
            weights.drop_other_gradients()
        if self._accelerator.num_processes > 1:
            if not self._once_per_step and not are_sharded(weights.parameters):
                average_gradients(weights.parameters)
            broadcast_buffers(moment.model)
        self._skipped.judge(weights.parameters, moment.step, self._samples_in_words)

    def _context_of(
        self, labels: Tensor, objective: AnyObjective, moment: Moment, weights: TrainableWeights
    ) -> StepContext:
        statistics: Any = objective.statistics
        kind = ClasslessContext if statistics is None else StepContext
        return kind(
            labels,
            statistics,
            moment.progress,
            torch.empty((), dtype=weights.wide_dtype),
            self._memory,
            step=moment.step,
            seed=self._args.seed,
            device=weights.parameters[0].device,
            places=weights.places,
        )

    def _scale_of_this_step(self) -> float:
        """The factor under which fp16's small gradients survive; it cancels in every direction."""
        scaler = self._accelerator.scaler
        return 1.0 if scaler is None else float(scaler.scale(torch.ones((), device=self._accelerator.device)))

    def _shortcuts_for(self, loss: Loss | FeatureLoss | None, weights: TrainableWeights) -> Shortcuts | None:
        """What this model allows; none with shards, a loss of its own, nor where passes are compiled or captured whole."""
        recorded = self._args.torch_compile or self._settings.cuda_graphs
        if loss is None or are_sharded(weights.parameters) or not self._settings.exact_rows or recorded:
            return None
        if self._shortcuts is None or self._shortcuts.model is not weights.model or self._tried_with is not loss:
            self._shortcuts, self._tried_with = Shortcuts(weights.model), loss
        return self._shortcuts

    def _weights_of(self, model: nn.Module) -> TrainableWeights:
        captured = self._settings.cuda_graphs or compiles_to_graphs(self._args)
        return TrainableWeights(model, self._accelerator.scaler is not None, self._own_loss, captured)

    def _trainable_weights(self, model: nn.Module) -> TrainableWeights:
        if self._weights.model is not model:  # `model_init` makes a new one for every training
            self._weights = self._weights_of(model)
        if self._sharded:
            ready_for_passes(model)
        self._weights.follow(self._optimizer())
        return self._weights


@dataclass(frozen=True)
class AscentGroup:
    """Samples with a perturbation of their own.

    Args:
        batches: of this process.
        labels: of all its samples, (n,) or soft (n, C), on the host; of all processes where they share the perturbation.
        joint: where this process's samples are among those of all processes; None: it perturbs on its own.
        share: of the samples that the training step is given.
    """

    batches: Sequence[MicroBatch]
    labels: Tensor
    joint: JointBatch | None
    share: float


def ascent_groups(batches: Sequence[MicroBatch], size: int | None, together: bool) -> list[AscentGroup]:
    """The samples in order, in groups of `size`; None: all in one.

    Labels are read here, before the first pass, while the device has nothing to do for it yet.

    Args:
        together: the other processes' groups and this one's are perturbed together.
    """
    total = sum(map(len, batches))
    groups = [list(batches)] if size is None else in_groups(batches, size)
    counts = [sum(map(len, group)) for group in groups]
    shares = [count / total for count in counts]
    if together:
        joined = [joint_batch([b.labels for b in group]) for group in groups]
        return [AscentGroup(g, labels, joint, share) for g, (joint, labels), share in zip(groups, joined, shares)]
    labels = torch.cat([b.labels for b in batches]).cpu().split(counts)
    return [AscentGroup(g, y, None, share) for g, y, share in zip(groups, labels, shares)]


def accumulate(gradient: WeightVector, parameters: Sequence[Tensor], reached: list[bool]) -> None:
    """Add to `.grad` as a backward pass would: a parameter that no pass reached keeps what it has."""
    given: set[int] = set()  # storages that are some parameter's gradient: autograd may hand out one for two
    for parameter, g, has_gradient in zip(parameters, gradient.materialize(), reached, strict=True):
        if not has_gradient:
            continue
        if parameter.grad is not None:
            parameter.grad.add_(g)
        elif g.data_ptr() in given or g.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(g)
        else:
            parameter.grad = g
            given.add(g.data_ptr())


def keep_buffers_of_backward_passes() -> None:
    """Compiled backward passes free their buffers after use; a second weighting of the same losses needs them."""
    from torch._functorch import config

    config.donated_buffer = False


def compiles_to_graphs(args: TrainingArguments) -> bool:
    """Whether torch.compile captures CUDA graphs, whose memory the next pass overwrites."""
    by_mode = args.torch_compile_mode in ("reduce-overhead", "max-autotune")
    return bool(args.torch_compile and (by_mode or args.torch_compile_backend == "cudagraphs"))
