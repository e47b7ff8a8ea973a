"""One training step: from micro-batches to the method's vector in `p.grad`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import has_length

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.sampling.sample_indices import indices_of_batches, named_with_labels
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.reduction import average_gradients, broadcast_buffers
from hf_ltsam.landscape.sharded import are_sharded, ready_for_passes
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import CrossEntropy, FeatureLoss, Loss
from hf_ltsam.losses.reweighting import Reweighting
from hf_ltsam.methods import Method
from hf_ltsam.methods.context import StepContext
from hf_ltsam.training.ascent_groups import AscentGroup, accumulate, ascent_groups
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.finite_steps import UntakenSteps
from hf_ltsam.training.step_loss import BatchLoss
from hf_ltsam.training.telemetry import GRADIENTS_EVERY, ClassGroups, Telemetry, WarnsIfNothingWasPerturbed
from hf_ltsam.training.training_set import readable_labels

_EARLY_LOSS = CrossEntropy()  # before `loss_start`


class StepsByMethod(Trainer):
    """The stock Trainer, whose gradient comes from a method."""

    args: LTSamConfig
    method: Method
    loss: Loss | FeatureLoss
    reweighting: Reweighting
    class_statistics: ClassStatistics | None
    method_memory: dict[str, Any]

    def prepare_stepping(self) -> None:
        """What the steps need, as soon as there is a model."""
        self.telemetry = Telemetry(self.class_statistics)
        if self.args.telemetry and self.method.perturbs:
            self.add_callback(WarnsIfNothingWasPerturbed(self))
        self._weights = TrainableWeights(self.model, reads_norms=self.accelerator.scaler is not None)
        self._shortcuts: Shortcuts | None = None
        self._tried_with: Loss | FeatureLoss | None = None  # the loss that the shortcuts were tried with
        self._loss_scale = 1.0
        self._waiting: list[MicroBatch] = []  # for the last one of a step with one perturbation
        self._untaken = UntakenSteps(self.accelerator, self.method_memory, self.args.max_skipped_steps)
        self.add_callback(self._untaken)

    def micro_batch(self, inputs: dict[str, Any]) -> MicroBatch:
        raise NotImplementedError

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Put the method's vector into `p.grad`: for this micro-batch, or for all of the step once the last one is there.

        `num_items_in_batch` is not used: the loss is a mean over samples, divided once by the number of accumulated
        micro-batches, before any backward pass (transformers#47688).
        """
        model.train()
        batch = self.micro_batch(self._prepare_inputs(inputs))
        if self._untaken.micro_batch_begins(self.model):
            self._loss_scale = self._scale_of_this_step()
        self._waiting.append(batch)
        once_per_step = self.args.ascent_scope == "step"
        if once_per_step and not self.accelerator.sync_gradients:
            return torch.zeros((), device=batch.labels.device)
        batches, self._waiting = self._waiting, []
        micro_batches = 1 if once_per_step else self.current_gradient_accumulation_steps  # that .grad is the mean over
        loss = self._add_gradient(model, batches, micro_batches)
        self._untaken.gave(batches, loss)
        if self.accelerator.sync_gradients:
            self._finish(self._weights, once_per_step)
        return loss / micro_batches

    def _add_gradient(self, model: nn.Module, batches: list[MicroBatch], micro_batches: int) -> Tensor:
        """Add the method's vector for these samples to `.grad`; the mean loss."""
        if self.is_fsdp_enabled:
            ready_for_passes(self.model)
        several, weights = self.accelerator.num_processes > 1, self._trainable_weights()
        sharded = are_sharded(weights.parameters)
        with_others = several and (sharded or self.args.ascent_scope == "step")
        # Several passes would each set off DDP's reduction: they run on the bare module, and the result is reduced once.
        module = self.model if several else model
        size = self.args.ascent_size
        own_size = size and (size // self.accelerator.num_processes if with_others else size)
        losses = []
        for group in ascent_groups(batches, own_size, with_others):
            losses.append(group.share * self._add_gradient_of(group, module, weights, micro_batches / group.share))
            self.telemetry.end_step()
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _add_gradient_of(
        self, group: AscentGroup, module: nn.Module, weights: TrainableWeights, parts: float
    ) -> Tensor:
        """The same for samples that are perturbed together, one of so many parts of the whole gradient."""
        training_loss = self._loss_of_this_moment()
        loss = self._batch_loss(module, training_loss)
        divisor = parts / self._loss_scale
        landscape = LossLandscape(
            weights,
            group.batches,
            loss.logits,
            loss.losses,
            divisor,
            self.telemetry if self.args.telemetry else None,
            shortcuts=None if are_sharded(weights.parameters) else self._known_shortcuts(training_loss),
            joint=group.joint,
        )
        try:
            gradient = self.method.update(landscape, self._step_context(group.labels, weights))
        finally:
            weights.restore()  # nothing to do unless an exception cut even the landscape's own restoring short
        accumulate(gradient / divisor, weights.parameters, landscape.reached)
        if self.args.telemetry:
            self._observe(landscape, group.labels)
        return landscape.mean_loss

    def _observe(self, landscape: LossLandscape, labels: Tensor) -> None:
        """What a step tells besides its perturbed passes."""
        self.telemetry.losses(landscape.first_losses, landscape.labels)
        if (self.state.global_step + 1) % GRADIENTS_EVERY == 0 and not landscape.was_dealt_out:
            tail = ClassGroups(self._statistics()).head_or_tail(labels).double()
            self.telemetry.gradient_norms(landscape.gradient(1 - tail).norm(), landscape.gradient(tail).norm())

    def _finish(self, weights: TrainableWeights, once_per_step: bool) -> None:
        """The last of a step's micro-batches is done: the processes agree, and look whether the step can be taken."""
        if self.accelerator.num_processes > 1:
            if not once_per_step and not are_sharded(weights.parameters):
                average_gradients(weights.parameters)
            broadcast_buffers(self.model)
        self._untaken.judge(weights.parameters, self.state.global_step, self._samples_in_words)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As stock, which would compute for its logs what is known from looking whether the step can be taken."""
        return super()._get_grad_norm(model, self._untaken.norm if grad_norm is None else grad_norm)

    def _samples_in_words(self, before: int, batches: Sequence[MicroBatch]) -> str:
        """Which samples some micro-batches hold; `before`: how many micro-batches of the step came before them."""
        epoch, loader = int(self.state.epoch or 0), self.callback_handler.train_dataloader
        labels = torch.cat([b.labels.cpu() for b in batches])
        indices = None
        if has_length(loader):
            first = round(((self.state.epoch or 0) - epoch) * len(loader)) + before
            indices = indices_of_batches(loader, epoch, first, len(batches))
        named = named_with_labels(indices, readable_labels(self.train_dataset, self.label_names[0]), labels)
        return named or f"a batch of the classes {sorted(set(labels.tolist()))}"

    def _scale_of_this_step(self) -> float:
        """The factor under which fp16's small gradients survive; it cancels in every direction."""
        scaler = self.accelerator.scaler
        return 1.0 if scaler is None else float(scaler.scale(torch.ones((), device=self.args.device)))

    def _loss_of_this_moment(self) -> Loss | FeatureLoss:
        return self.loss if self._progress >= self.args.loss_start else _EARLY_LOSS

    def _batch_loss(self, module: nn.Module, loss: Loss | FeatureLoss) -> BatchLoss:
        class_weights = partial(self.reweighting.weights, self._progress, self._statistics())
        return BatchLoss(module, self.model, loss, self._statistics(), class_weights, self.compute_loss_context_manager)

    def _step_context(self, labels: Tensor, weights: TrainableWeights) -> StepContext:
        like = torch.empty((), dtype=weights.wide_dtype)
        return StepContext(
            labels,
            self._statistics(),
            self._progress,
            like,
            self.method_memory,
            step=self.state.global_step,
            seed=self.args.seed,
            device=weights.parameters[0].device,
        )

    def _known_shortcuts(self, loss: Loss | FeatureLoss) -> Shortcuts | None:
        """What is known of the model that is trained; compiled code would be made anew for every number of rows."""
        if not self.args.exact_rows or self.args.torch_compile:
            return None
        if self._shortcuts is None or self._shortcuts.model is not self.model or self._tried_with is not loss:
            self._shortcuts, self._tried_with = Shortcuts(self.model), loss
        return self._shortcuts

    @property
    def _progress(self) -> float:
        """Completed steps / total steps, in [0, 1)."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def _trainable_weights(self) -> TrainableWeights:
        if self._weights.model is not self.model:  # `model_init` makes a new one for every training
            self._weights = TrainableWeights(self.model, reads_norms=self.accelerator.scaler is not None)
        self._weights.follow_frozen()
        return self._weights

    def _statistics(self) -> ClassStatistics:
        if self.class_statistics is None:
            raise ValueError(
                "There are no class statistics: pass train_dataset, or class_statistics=ClassStatistics(...)."
            )
        return self.class_statistics
