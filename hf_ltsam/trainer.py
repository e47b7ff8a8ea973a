"""The stock Trainer, whose gradient comes from a method."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging

from .accumulation import accumulate
from .batch_loss import BatchLoss
from .class_statistics import ClassStatistics
from .config import LTSamConfig
from .context import StepContext
from .data.labels import label_fingerprint
from .distributed import average_gradients, broadcast_buffers
from .evaluation import EvaluatesLogits
from .features import check_features
from .landscape import LossLandscape, MicroBatch
from .learning_rate import hold_constant, milestone_schedule
from .losses import LOSSES, CrossEntropy, FeatureLoss, Loss, make_loss
from .methods import METHODS, Method, make_method
from .metrics.long_tail import LongTailMetrics
from .refusals import (
    check_arguments,
    check_classifier,
    check_eval_labels,
    check_head,
    check_launcher,
    check_optimizer,
    check_output_folder,
    check_split,
    check_types,
)
from .resuming import Resumes
from .reweighting import Reweighting
from .run_identity import describe
from .shortcuts import Shortcuts
from .spectral_norm import check_checkpointing, normalised_layers
from .telemetry import Telemetry
from .training_set import readable_labels, statistics_of
from .weights import TrainableWeights

logger = logging.get_logger(__name__)

_STANDS_STILL = "learning_rate=5e-05 is transformers' default for AdamW; SGD usually needs 0.01 to 0.1: set learning_rate."

_EARLY_LOSS = CrossEntropy()        # before `loss_start`


class LTSamTrainer(Resumes, EvaluatesLogits):
    """`transformers.Trainer` with a method in the place of the gradient.

    The method's vector goes into `p.grad`; optimizer, schedule, clipping, logging, checkpoints and evaluation stay what
    the stock Trainer makes of them. `eval_loss` is the plain cross-entropy of the raw logits, whatever the training
    loss.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, processing_class, model_init, compute_metrics,
            callbacks, optimizers, optimizer_cls_and_kwargs, preprocess_logits_for_metrics: as in `transformers.Trainer`.
            The model returns logits (n, C) as a tensor or under the key `logits`; `compute_metrics` defaults to the
            accuracies by group.
        compute_loss_func: refused; `loss` takes its place.
        method: a registry name of `hf_ltsam.methods` or an object; `args.method` where it is None.
        loss: a registry name of `hf_ltsam.losses`, or any function (logits (n, C), labels (n,), statistics) ->
            losses (n,), or a `FeatureLoss`, which also reads the classifier's input; `args.loss` where it is None.
        class_statistics: of the training set; counted from the label column of `train_dataset` where it is None. They
            are trusted and need not equal the counts of `train_dataset`.

    Raises:
        ValueError: a setting that cannot work, named with the reason and the way out.
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: LTSamConfig | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        method: str | Method | None = None,
        loss: str | Loss | FeatureLoss | None = None,
        class_statistics: ClassStatistics | None = None,
    ) -> None:
        args = LTSamConfig() if args is None else args
        check_types(args, method, compute_loss_func)
        check_arguments(args)
        self.method = _by_name_or_object(method, args.method, args.method_hyperparameters, "method", make_method)
        self.loss = _by_name_or_object(loss, args.loss, args.loss_args, "loss", make_loss)
        self.reweighting = Reweighting(args.reweighting, args.reweighting_start)
        if args.should_save:
            check_output_folder(args.output_dir)
        made_by_us = optimizers[0] is None and optimizer_cls_and_kwargs is None
        self._warn(_STANDS_STILL if made_by_us and args.learning_rate_stands_still else None)
        check_optimizer(optimizers[0])
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        check_launcher(self)
        if args.torch_compile:
            # Compiled backward passes free their buffers after use; a second weighting of the same losses needs them.
            from torch._functorch import config as compilation

            compilation.donated_buffer = False
        self.label_names = args.label_names or ["labels"]        # also for modules whose forward takes no labels
        self.class_statistics = statistics_of(
            train_dataset, self.label_names[0], self.model, class_statistics, args.tail_threshold
        )
        check_head(self.loss, self.model)
        check_checkpointing(self.model, bool(args.gradient_checkpointing))
        if self.class_statistics is not None:
            self._warn(check_split(self.method, self.class_statistics))
            check_classifier(self.method, self.model, self.class_statistics)
            check_features(self.loss, self.model, self.class_statistics.num_classes, args.torch_compile)
            self._check_eval_labels(eval_dataset, self.class_statistics.num_classes)
            if compute_metrics is None and not args.batch_eval_metrics:
                self.compute_metrics = LongTailMetrics(self.class_statistics)
        self._telemetry = Telemetry()
        self._weights = TrainableWeights(self.model)
        self._shortcuts: Shortcuts | None = None
        self._tried_with: Loss | FeatureLoss | None = None        # the loss that the shortcuts were tried with

    # ---- the training step ----

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Put the method's vector for this micro-batch into `p.grad`.

        `num_items_in_batch` is not used: the loss is a mean over samples, divided once by the number of accumulated
        micro-batches, before any backward pass (transformers#47688).
        """
        model.train()
        batch = self.micro_batch(self._prepare_inputs(inputs))
        several = self.accelerator.num_processes > 1
        # Several passes would each set off DDP's reduction: they run on the bare module, and the result is reduced once.
        module = self.model if several else model
        weights = self._trainable_weights()
        divisor, training_loss = self.current_gradient_accumulation_steps, self._loss_of_this_moment()
        loss = self._batch_loss(module, training_loss)
        landscape = LossLandscape(
            weights, [batch], loss.logits, loss.losses, divisor, self._telemetry,
            shortcuts=self._known_shortcuts(training_loss),
        )
        try:
            gradient = self.method.update(landscape, self._step_context(batch, weights))
        finally:
            weights.restore()        # nothing to do unless an exception cut even the landscape's own restoring short
        accumulate(gradient / divisor, weights.parameters, landscape.reached)
        if several and self.accelerator.sync_gradients:
            average_gradients(weights.parameters)
            broadcast_buffers(self.model)
        self._telemetry.end_step()
        return landscape.mean_loss / divisor

    def _loss_of_this_moment(self) -> Loss | FeatureLoss:
        return self.loss if self._progress >= self.args.loss_start else _EARLY_LOSS

    def _batch_loss(self, module: nn.Module, loss: Loss | FeatureLoss) -> BatchLoss:
        class_weights = partial(self.reweighting.weights, self._progress, self._statistics())
        return BatchLoss(module, self.model, loss, self._statistics(), class_weights, self.compute_loss_context_manager)

    def _step_context(self, batch: MicroBatch, weights: TrainableWeights) -> StepContext:
        """Labels are read before the step's first pass, while the device has nothing to do for it yet."""
        like = torch.empty((), dtype=weights.wide_dtype)
        return StepContext(
            batch.labels.cpu(), self._statistics(), self._progress, like, self.method_memory,
            step=self.state.global_step, seed=self.args.seed, device=weights.parameters[0].device,
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
        if self._weights.model is not self.model:        # `model_init` makes a new one for every training
            self._weights = TrainableWeights(self.model)
        self._weights.follow_frozen()
        return self._weights

    def hyperparameter_search(self, *_: Any, **__: Any) -> Any:
        """Refused: trials would change method and data behind checkpoints that state them."""
        raise NotImplementedError(
            "hyperparameter_search does not go with LTSamTrainer. Start one run per setting, for example "
            "`ltsam train --config RECIPE --method_args '{\"rho\": 0.1}' --output_dir RUN`, and compare their metrics.json."
        )

    # ---- optimizer and schedule ----

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        if self.args.decay_all_parameters:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        made_here = self.lr_scheduler is None
        if self.args.lr_milestones and self.lr_scheduler is None:
            self.lr_scheduler: Any = milestone_schedule(
                optimizer or self.optimizer,
                num_training_steps,
                self.args.get_warmup_steps(num_training_steps),
                self.args.lr_milestones,
                self.args.lr_gamma,
            )
            self._created_lr_scheduler = True
        schedule = super().create_scheduler(num_training_steps, optimizer)
        if self.args.swa_start is not None and self.args.swa_learning_rate is not None:
            if not self._created_lr_scheduler:
                raise ValueError("swa_learning_rate does not go with a schedule of your own in `optimizers`: leave one out.")
            if made_here:
                hold_constant(schedule, self.args.swa_start, num_training_steps, self.args.swa_learning_rate)
        return schedule

    # ---- logs and checkpoints ----

    def start_anew(self) -> None:
        super().start_anew()
        self._telemetry = Telemetry()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As stock, with the telemetry of the method beside the training loss."""
        if "loss" in logs:
            logs = {**logs, **self._telemetry.pop()}
        super().log(logs, start_time)

    def identity(self) -> dict[str, Any]:
        labels = readable_labels(self.train_dataset, self.label_names[0])
        return {
            "method": describe(METHODS, self.method),
            "loss": describe(LOSSES, self.loss),
            "loss_start": self.args.loss_start,
            "reweighting": {"scheme": self.reweighting.scheme, "start": self.reweighting.start},
            "class_counts": list(self._statistics().counts),
            "tail_threshold": self._statistics().tail_threshold if self.method.needs_split else None,
            "spectral_norm": {name: norm.n_power_iterations for name, norm in normalised_layers(self.model).items()},
            "weight_averaging": self.averaging and self.averaging.settings,
            "sampling": self.args.sampling,
            "training_labels_sha256": None if labels is None else label_fingerprint(labels),
        }

    def _check_eval_labels(self, eval_dataset: Any, num_classes: int) -> None:
        for dataset in eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]:
            check_eval_labels(readable_labels(dataset, self.label_names[0]), num_classes)

    def _warn(self, message: str | None) -> None:
        if message:
            logger.warning(message)

    def _statistics(self) -> ClassStatistics:
        if self.class_statistics is None:
            raise ValueError("There are no class statistics: pass train_dataset, or class_statistics=ClassStatistics(...).")
        return self.class_statistics


def _by_name_or_object(given: Any, name: str, arguments: Any, kind: str, make: Callable[..., Any]) -> Any:
    """The object itself, or the one that a name stands for; the hyper-parameters in the config belong to a name."""
    if given is None or isinstance(given, str):
        return make(given or name, **(arguments or {}))
    if arguments:
        raise ValueError(
            f"{kind} was passed as an object ({type(given).__name__}) and {kind}_args={arguments} as well: use one."
        )
    return given
