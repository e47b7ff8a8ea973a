"""`LTSamTrainer`: the stock Trainer, whose gradient comes from a method."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.sampling.class_sampling import UNIFORM
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.losses import FeatureLoss, Loss, ModelLoss
from hf_ltsam.methods import Method
from hf_ltsam.metrics.long_tail import LongTailMetrics
from hf_ltsam.models.spectral_norm import normalised_layers
from hf_ltsam.models.trained_weights import check_optimizer_of, trained_in_words
from hf_ltsam.runs.files import check_output_folder
from hf_ltsam.runs.identity import check_identity, save_identity
from hf_ltsam.runs.model import save_configuration
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.evaluation import Evaluation, beside_groups, decisions_alone, keeps_logits, renewed
from hf_ltsam.training.learning_rate import configured_schedule, hold_constant
from hf_ltsam.training.loaders import ImageLoaders, in_channels_last, replaced
from hf_ltsam.training.objective import LabelledBatches, Objective, by_name_or_object
from hf_ltsam.training.refusals.forward_loss import ForwardLoss
from hf_ltsam.training.refusals.hooks import check_best_metric, check_hooks, check_optimizer, is_overridden
from hf_ltsam.training.refusals.problem import check_outputs, check_own_loss, check_problem
from hf_ltsam.training.refusals.settings import (
    check_arguments,
    check_batches,
    check_launcher,
    check_schedule,
    check_stream,
    check_types,
    doubly_balanced,
    overruled_settings,
    without_settings,
)
from hf_ltsam.training.results.publishing import HubTrainer
from hf_ltsam.training.results.saved_runs import SavedRuns
from hf_ltsam.training.steps.model_loss import ModelObjective
from hf_ltsam.training.steps.sam_trainer import MethodTrainer
from hf_ltsam.training.training_set import (
    LabelReader,
    LabelWatch,
    TrainingSet,
    label_name_of,
    names_in,
    num_logits,
    require_statistics,
    samples_in_words,
    warn,
    without_adapter,
)
from hf_ltsam.training.trials import Trials
from hf_ltsam.training.weight_averaging import WeightAveraging


class LTSamTrainer(Trials, SavedRuns, MethodTrainer, HubTrainer):
    """`transformers.Trainer` with a method in the place of the gradient.

    The method's vector goes into `p.grad`; optimizer, schedule, clipping, logging and evaluation stay what the stock
    Trainer makes of them, and checkpoints what `DurableTrainer` does. `eval_loss` is the plain cross-entropy of the raw
    logits, whatever the training loss.

    Its parts, beside those of `MethodTrainer`: `batch_loaders` make the batches, `labelled_batches` part labels from inputs,
    `logit_evaluation` gives the loss of an evaluation, `forward_loss` warns of the model's; `memory_layout`: channels last.

    With `loss="model"` the loss is what the stock Trainer makes of the model's outputs, one number for each micro-batch, in
    training and evaluation: for methods that ask for no classes. There are no class statistics then, nor metrics of ours.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, processing_class, model_init, compute_metrics,
            callbacks, optimizers, optimizer_cls_and_kwargs, preprocess_logits_for_metrics: as in `transformers.Trainer`.
            The model returns logits (n, C) as a tensor or under the key `logits`; `compute_metrics` is given the
            accuracies by group beside its own metrics.
        compute_loss_func: with `loss="model"`; otherwise it is refused, and `loss` takes its place.
        method: a registry name of `hf_ltsam.methods` or an object; `args.method` where it is None.
        loss: a registry name of `hf_ltsam.losses`, or any function (logits (n, C), labels (n,), statistics) ->
            losses (n,), a `FeatureLoss`, which also reads the classifier's input, or "model"; `args.loss` where it is None.
        class_statistics: of the training set; where it is None the labels that are trained on are counted. They are
            trusted and need not equal the counts of `train_dataset`; a warning tells of clearly other shares.

    Raises:
        ValueError: a setting that cannot work, named with the reason and the way out.
    """

    args: LTSamConfig
    batch_loaders: ImageLoaders
    _created_lr_scheduler: bool

    @without_settings
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
        check_types(args, method)
        self.loss: Any = by_name_or_object(loss, "loss", args.loss_args) or args.sample_loss
        self.compute_loss_func = compute_loss_func
        check_arguments(args, self.takes_own_loss)
        check_hooks(self, LTSamTrainer, self.takes_own_loss)
        check_optimizer((optimizer_cls_and_kwargs or optimizers)[0])
        check_schedule(optimizers[1], args)
        check_stream(train_dataset, args)
        self.method = by_name_or_object(method, "method", args.method_hyperparameters) or args.update_rule
        warn(overruled_settings(args, self.method, self.loss))
        warn(doubly_balanced(args, train_dataset, self.loss))
        self.step_settings, self.max_skipped_steps = args, args.max_skipped_steps
        self.reweighting = args.class_weighting
        if args.should_save:
            check_output_folder(args.output_dir)
        warn(args.doubtful_learning_rate if optimizers[0] is optimizer_cls_and_kwargs is None else None)
        smoothing = args.label_smoothing_factor if self.takes_own_loss else 0.0
        with replaced(args, label_smoothing_factor=smoothing):  # which stock makes part of the loss, in compute_loss
            super().__init__(
                model=model,
                args=args,
                data_collator=data_collator,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                model_init=model_init,
                compute_loss_func=compute_loss_func,
                compute_metrics=compute_metrics,
                callbacks=callbacks,
                optimizers=optimizers,
                optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
                preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            )
        self.model: Any = self.memory_layout(self.model)
        if optimizers[0] is not None:
            check_optimizer_of(self.optimizer, self.model)  # its warnings come when the training begins
        check_launcher(self)
        if not self.takes_own_loss:
            check_outputs(self.loss, self.model, num_logits(self.model))
            self.label_names = args.label_names or [label_name_of(self)]
        self.label_reader = LabelReader.of(self)
        labelled = None if self.takes_own_loss else train_dataset
        self.training_set = TrainingSet.of(labelled, self.label_reader, self.model, class_statistics)
        self.class_statistics = self.training_set.statistics
        self._check_problem(eval_dataset)
        if compute_metrics is None and self.class_statistics is not None:
            self.compute_metrics = renewed(None, self.class_statistics, self.loss)
        self._identity: dict[str, Any] | None = None  # of the training; it hashes all labels, so it is made once
        self._make_parts()

    @property
    def takes_own_loss(self) -> bool:
        """Whether the loss is the model's own, or that of `compute_loss`."""
        return isinstance(self.loss, ModelLoss)

    def _check_problem(self, eval_dataset: Any) -> None:
        """Whether method and loss go with the model, the classes and the labels."""
        if self.takes_own_loss:
            check_own_loss(self.method, self.model, self.class_statistics)
            return
        statistics, of_labels = self.class_statistics, (self.label_names[0], self.training_set.labels)
        for warning in check_problem(self.model, self.args, self.method, self.loss, statistics, *of_labels):
            warn(warning)
        if statistics is not None:
            self.training_set.check_model_names(self.label_reader, self.model)
            self.training_set.check_evaluated(eval_dataset, self.label_reader, self.model)

    def _follow_training_set(self) -> None:
        """Statistics, and all that follows from them, of the training set that the trainer has now."""
        if self.takes_own_loss:
            return
        before, statistics, metrics = self.training_set, self.class_statistics, self.compute_metrics
        self.training_set = before.renewed(self.train_dataset, self.label_reader, self.model, statistics)
        if self.training_set is before:
            return
        self.class_statistics = self.training_set.statistics
        if isinstance(metrics, LongTailMetrics | None) and getattr(metrics, "statistics", None) is statistics:
            self.compute_metrics = renewed(metrics, require_statistics(self.class_statistics), self.loss)
        self._check_problem(self.eval_dataset)

    def make_loaders(self) -> ImageLoaders:
        statistics, labels = lambda: self.class_statistics, lambda: self.training_set.labels
        return ImageLoaders(self.args, lambda: self.label_names[0], statistics, labels)

    def _make_parts(self) -> None:
        """And those of `MethodTrainer`."""
        super()._make_parts()
        self.labelled_batches = LabelledBatches(lambda: self.label_names[0])
        self.logit_evaluation = Evaluation(self.labelled_batches, lambda: self.loss)
        self.label_watch = LabelWatch(lambda: self.class_statistics, lambda: self.train_dataset)
        self._add_parts(self.label_watch)
        self.forward_loss = ForwardLoss(self)
        if self.args.swa_start is not None:
            averaging = WeightAveraging(self.args.swa_start, self.args.swa_interval)
            averaging.put_among(self.callback_handler.callbacks)
            self._part_callbacks.append(averaging)

    # A training: what is minimised, one step, its optimizer and its logs.

    def train(
        self,
        resume_from_checkpoint: str | os.PathLike[str] | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As `DurableTrainer`, with the run saved at its end; refuses to resume one of another method, loss or data set.

        Raises:
            FolderInUseError: another process trains in `output_dir`.
            CheckpointError: the disk is full, say.
            ValueError: there is no such checkpoint, or it is another training's.
        """
        check_arguments(self.args, self.takes_own_loss)  # they and the hooks may have changed
        check_hooks(self, LTSamTrainer, self.takes_own_loss)
        check_best_metric(self, LTSamTrainer)
        self._follow_training_set()
        self._identity = self.identity() if trial is None else None  # a trial has its model and settings later
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    @property
    def training_objective(self) -> Objective | ModelObjective:
        """What is minimised, and by which update rule."""
        if self.takes_own_loss:
            return super().training_objective
        args, statistics = self.args, require_statistics(self.class_statistics)
        of_labels = (args.mixing, args.label_smoothing_factor)
        return Objective(self.method, self.loss, args.loss_start, self.reweighting, statistics, *of_labels)

    @property
    def averaging(self) -> WeightAveraging | None:
        """The callback that averages weights, where there is one."""
        return next((c for c in self.callback_handler.callbacks if isinstance(c, WeightAveraging)), None)

    def micro_batch(self, inputs: Any, num_items: Tensor | int | None) -> MicroBatch:
        """What the loss is made of.

        `num_items` counts for the model's own loss alone. Any other is a mean over samples, divided once by the number of
        accumulated micro-batches, before any backward pass (transformers#47688).
        """
        inputs = self.memory_layout(inputs)  # a subclass may have prepared others
        if self.takes_own_loss:
            return super().micro_batch(inputs, num_items)
        return self.labelled_batches.split(inputs, self.model)

    def after_passes(self, batch: MicroBatch) -> None:
        self.label_watch.add(batch.labels)  # which are in their range: the step has looked
        self.forward_loss.compare(batch)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        every = [name for name, _ in model.named_parameters()]
        return every if self.args.decay_all_parameters else super().get_decay_parameter_names(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """As stock, with `lr_milestones` and `swa_learning_rate`.

        Raises:
            ValueError: `swa_learning_rate` would change a schedule that a subclass has set.
        """
        if self.lr_scheduler is not None and not self._created_lr_scheduler:
            check_schedule(self.lr_scheduler, self.args)
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = configured_schedule(self.args, optimizer or self.optimizer, num_training_steps)
            self._created_lr_scheduler = self.lr_scheduler is not None
            hold_constant(super().create_scheduler(num_training_steps, optimizer), self.args, num_training_steps)
        return self.lr_scheduler

    def _observations(self) -> dict[str, float]:
        """Also images that could not be read."""
        return {**super()._observations(), **self.batch_loaders.bad_images(self.accelerator)}

    def _samples_in_words(self, before: int, batches: Any) -> str:
        if self.takes_own_loss:
            return super()._samples_in_words(before, batches)
        loader, labels = self.callback_handler.train_dataloader, self.training_set.labels
        return samples_in_words(before, batches, self.state, loader, labels, names_in(self.model))

    # Model, batches and evaluation.

    def memory_layout(self, value: Any) -> Any:
        """A model or a batch in the memory order of the training."""
        return in_channels_last(value) if self.args.channels_last else value

    def call_model_init(self, trial: Any = None) -> nn.Module:
        return self.memory_layout(super().call_model_init(trial))

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self.memory_layout(super()._prepare_inputs(inputs))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        """Of a training set with an index."""
        if self.args.sampling != UNIFORM:
            return self.batch_loaders.class_sampler()
        return super()._get_train_sampler(train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """As `DurableTrainer`, with a warning of a last batch that batch norm cannot normalise."""
        self._follow_training_set()
        warn(check_batches(self.train_dataset, self.args, self.model, self._train_batch_size))
        return super().get_train_dataloader()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Mapping[str, Any]]:
        """The plain cross-entropy (a mean) of the raw logits, of evaluations alone; or the model's own loss, as stock."""
        if self.takes_own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return self.logit_evaluation.loss(model, self.model, inputs, return_outputs)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """As stock; the logits of all samples are kept for metrics of the user's alone."""
        ours = type(self).evaluation_loop is LTSamTrainer.evaluation_loop
        with decisions_alone(self, ours and isinstance(self.compute_metrics, LongTailMetrics)):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As stock, with the loss as the mean over the samples, and the accuracies by group beside metrics of the user's."""
        if self.takes_own_loss:
            return super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        for_prediction = self.logit_evaluation.for_prediction = description == "Prediction"  # as `predict` calls it
        self.training_set.check_evaluated(dataloader.dataset, self.label_reader, self.model, for_prediction)
        given = (metric_key_prefix, self.loss, keeps_logits(self))
        metrics = beside_groups(self.compute_metrics, self.class_statistics, *given)
        with replaced(self, compute_metrics=metrics):
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        ours = not is_overridden(self, "prediction_step", LTSamTrainer) and keeps_logits(self)
        return self.logit_evaluation.with_mean_loss(output, metric_key_prefix) if ours else output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """As stock: all outputs of the model, the logits first."""
        if self.takes_own_loss:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self.logit_evaluation.without_missing_labels(inputs)
        called = model if self.label_names[0] in inputs else partial(self.logit_evaluation.outputs, model)
        return super().prediction_step(called, inputs, prediction_loss_only, ignore_keys)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint of this run is made with; a run that differs must not resume it."""
        return {
            **super().identity(),
            "spectral_norm": {name: norm.n_power_iterations for name, norm in normalised_layers(self.model).items()},
            "trained_weights": trained_in_words(self.model),
            "weight_averaging": self.averaging and self.averaging.settings,
            "sampling": self.args.sampling,
            "training_labels_sha256": self.training_set.fingerprint,
        }

    def check_checkpoint(self, folder: Path) -> None:
        check_identity(folder, self._identity or self.identity())

    def save_companions(self, folder: Path) -> None:
        """What the model was trained on and with, and under an adapter its configuration."""
        inner = without_adapter(self.model)
        save_configuration(inner, folder, self.processing_class, inner is not self.model)
        if self.class_statistics is not None:
            self.class_statistics.save(folder)
        if self.class_statistics is not None or self.takes_own_loss:
            start = inner.config.name_or_path if isinstance(inner, PreTrainedModel) else None
            save_identity(folder, self._identity or self.identity(), start)
