"""The stock Trainer, whose gradient comes from a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.losses import LOSSES, FeatureLoss, Loss, make_loss
from hf_ltsam.losses.features import check_features
from hf_ltsam.losses.reweighting import Reweighting
from hf_ltsam.methods import METHODS, Method, make_method
from hf_ltsam.metrics.long_tail import LongTailMetrics
from hf_ltsam.models.spectral_norm import check_checkpointing, normalised_layers
from hf_ltsam.runs.files import check_output_folder
from hf_ltsam.runs.identity import describe
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.evaluation import EvaluatesLogits
from hf_ltsam.training.learning_rate import hold_constant, milestone_schedule
from hf_ltsam.training.loaders import MakesBatchesOnDevice, TrainsChannelsLast
from hf_ltsam.training.publishing import Publishes
from hf_ltsam.training.refusals import (
    check_arguments,
    check_classifier,
    check_eval_labels,
    check_head,
    check_launcher,
    check_optimizer,
    check_split,
    check_types,
)
from hf_ltsam.training.resume import Resumes
from hf_ltsam.training.step import StepsByMethod
from hf_ltsam.training.telemetry import Telemetry
from hf_ltsam.training.training_set import readable_labels, statistics_of

logger = logging.get_logger(__name__)

_STANDS_STILL = (
    "learning_rate=5e-05 is transformers' default for AdamW; SGD usually needs 0.01 to 0.1: set learning_rate."
)


class LTSamTrainer(Resumes, Publishes, EvaluatesLogits, MakesBatchesOnDevice, TrainsChannelsLast, StepsByMethod):
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
        self.label_names = args.label_names or ["labels"]  # also for modules whose forward takes no labels
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
        self.prepare_stepping()

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
                raise ValueError(
                    "swa_learning_rate does not go with a schedule of your own in `optimizers`: leave one out."
                )
            if made_here:
                hold_constant(schedule, self.args.swa_start, num_training_steps, self.args.swa_learning_rate)
        return schedule

    # ---- logs and checkpoints ----

    def start_anew(self) -> None:
        super().start_anew()
        self.telemetry = Telemetry(self.class_statistics)
        self._waiting = []

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As stock, with the telemetry of the method beside the training loss."""
        if "loss" in logs:
            skipped = {"skipped_steps": self._untaken.count} if self._untaken.count else {}
            logs = {**logs, **(self.telemetry.pop() if self.args.telemetry else {}), **skipped}
        super().log(logs, start_time)

    @property
    def method_in_words(self) -> str:
        told = describe(METHODS, self.method)
        return f"{told['name']}({', '.join(f'{k}={v}' for k, v in told['args'].items())})"

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


def _by_name_or_object(given: Any, name: str, arguments: Any, kind: str, make: Callable[..., Any]) -> Any:
    """The object itself, or the one that a name stands for; the hyper-parameters in the config belong to a name."""
    if given is None or isinstance(given, str):
        return make(given or name, **(arguments or {}))
    if arguments:
        raise ValueError(
            f"{kind} was passed as an object ({type(given).__name__}) and {kind}_args={arguments} as well: use one."
        )
    return given
