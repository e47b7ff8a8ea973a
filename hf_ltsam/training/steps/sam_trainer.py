"""A Trainer whose gradient comes from a method, for whatever loss its `compute_loss` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.mixing import MixingSettings
from hf_ltsam.hyperparameters import COUNT, require, require_choice
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.methods import Method
from hf_ltsam.runs.folder import SETTINGS
from hf_ltsam.runs.identity import check_identity, own_optimizer, save_identity, settings_compared
from hf_ltsam.training.config import ASCENT_SCOPES, LTSamConfig
from hf_ltsam.training.durable_trainer import DurableTrainer
from hf_ltsam.training.loaders import replaced
from hf_ltsam.training.objective import Objective, by_name_or_object
from hf_ltsam.training.refusals.hooks import HookWatch, check_optimizer
from hf_ltsam.training.refusals.problem import check_own_loss
from hf_ltsam.training.refusals.settings import check_arguments, check_launcher, check_method
from hf_ltsam.training.steps.model_loss import (
    ComputeLoss,
    ModelObjective,
    batches_in_words,
    loss_is_scaled,
    loss_unit,
)
from hf_ltsam.training.steps.skipped_steps import MethodMemory, SkippedSteps
from hf_ltsam.training.steps.step import Moment, StepSettings, TrainingStep
from hf_ltsam.training.telemetry import PerturbationWarning, Telemetry
from hf_ltsam.training.training_time import TrainingTime


class MethodTrainer(DurableTrainer):
    """A method in the place of the gradient: what `SamTrainerMixin` and `LTSamTrainer` have in common.

    The stock step goes on as it is, down to `compute_loss`. There `TrainingStep` makes the passes that the method asks for,
    each by the `compute_loss` of the trainer, and puts the method's vector into `p.grad`.

    `gradient_step` turns micro-batches into that vector, `method_memory` keeps what the method remembers, `skipped_steps`
    skips a step without a finite gradient, `telemetry` collects what the logs show, and `training_time` counts seconds.
    """

    method: Method
    step_settings: StepSettings
    max_skipped_steps: int
    gradient_step: TrainingStep
    method_memory: MethodMemory
    skipped_steps: SkippedSteps
    telemetry: Telemetry
    training_time: TrainingTime
    _part_callbacks: list[TrainerCallback]
    class_statistics: ClassStatistics | None = None  # none are known

    @property
    def takes_own_loss(self) -> bool:
        """Whether the loss is that of the model or of `compute_loss`."""
        return True

    def _make_parts(self) -> None:
        """The parts of the trainer, each given what it needs."""
        self._find_passes()
        self.method_memory = MethodMemory(lambda: self.optimizer, self.takes_own_loss)
        self.telemetry = Telemetry(lambda: self.class_statistics)
        self.training_time = TrainingTime()
        self.skipped_steps = SkippedSteps(self.accelerator, self.method_memory.values, self.max_skipped_steps)
        self.gradient_step = TrainingStep(
            model=lambda: self.model,
            args=self.args,
            settings=self.step_settings,
            accelerator=self.accelerator,
            telemetry=self.telemetry,
            skipped=self.skipped_steps,
            memory=self.method_memory.values,
            context=lambda: self.__pass_context(),
            samples_in_words=self._samples_in_words,
            sharded=self.is_fsdp_enabled,
            optimizer=lambda: self.optimizer,
            own_loss=self.takes_own_loss,
            mixing=self.args if isinstance(self.args, MixingSettings) else None,
        )
        watch = HookWatch(self, lambda: self.skipped_steps.in_step)
        warning = PerturbationWarning(self.telemetry, lambda: self.method, lambda: self.step_settings.telemetry)
        self._part_callbacks = []
        self._add_parts(watch, self.method_memory, self.gradient_step, self.skipped_steps, warning, self.training_time)

    def _add_parts(self, *callbacks: TrainerCallback) -> None:
        self._part_callbacks += callbacks
        for callback in callbacks:
            self.add_callback(callback)

    # One step, and its logs.

    @property
    def training_objective(self) -> Objective | ModelObjective:
        """What is minimised, and by which update rule."""
        return ModelObjective(self.method, self.__pass_loss, self.args.label_smoothing_factor)

    def micro_batch(self, inputs: Any, num_items: Tensor | int | None) -> MicroBatch:
        """What the loss is made of."""
        return loss_unit(self, inputs, num_items)

    def after_passes(self, batch: MicroBatch) -> None:
        """For subclasses: a micro-batch has been given to the step."""

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As stock, with the method's vector in `p.grad`."""
        self._find_passes()
        # autocast belongs to each pass: around them all, the second would meet weights that the first has cast
        with replaced(self, compute_loss=self._method_step, compute_loss_context_manager=nullcontext):
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def _find_passes(self) -> None:
        """How a pass is made, asked anew for every step: both may be replaced on the object."""
        self.__pass_loss: ComputeLoss = self.compute_loss
        self.__pass_context: Callable[[], AbstractContextManager[None]] = self.compute_loss_context_manager

    def _method_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """In the place of `compute_loss`: the loss as a leaf, in which the stock backward pass ends."""
        micro_batches = self.current_gradient_accumulation_steps
        moment = Moment(model, self.model, self.state.global_step, self.state.max_steps, micro_batches)
        batch = self.micro_batch(inputs, num_items_in_batch)
        loss = self.gradient_step(batch, self.training_objective, moment)
        self.after_passes(batch)
        if loss_is_scaled(self, num_items_in_batch):  # or the stock step divides it
            loss = loss / micro_batches
        return loss.detach().requires_grad_()

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: Any) -> Any:
        """As stock; the weights of a schedule-free optimizer become those that it was after, its mean.

        First of all: the weights of the best checkpoint, and those of `swa_start`, stay as they are.
        """
        in_mode = getattr(self.optimizer, "eval", None)
        if callable(in_mode):
            in_mode()
        return super()._finalize_training(trial, num_train_samples, start_time)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As stock, with the norm that `SkippedSteps.judge` has computed."""
        return super()._get_grad_norm(model, self.skipped_steps.norm if grad_norm is None else grad_norm)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As stock, with the telemetry of the method and skipped steps beside the training loss."""
        logs.update(self._observations() if "loss" in logs else {})  # itself: stock adds the epoch to what it is given
        super().log(logs, start_time)

    def _observations(self) -> dict[str, float]:
        telemetry = self.telemetry.pop() if self.step_settings.telemetry else {}
        return {**telemetry, **({"skipped_steps": self.skipped_steps.count} if self.skipped_steps.count else {})}

    def _samples_in_words(self, before: int, batches: Any) -> str:
        return batches_in_words(before, batches, self.state, self.callback_handler.train_dataloader)

    # What a checkpoint says of its training.

    def identity(self) -> dict[str, Any]:
        """What a checkpoint of this run is made with, which `check_identity` compares before a run goes on from it."""
        optimizer = self.own_optimizer
        settings = {
            SETTINGS: settings_compared(self.args, optimizer),
            **({"optimizer": optimizer} if optimizer else {}),
        }
        return {**self.training_objective.identity(), **settings}

    @property
    def own_optimizer(self) -> dict[str, Any]:
        """Name and arguments of an optimizer that was passed or made by a subclass; empty for that of the settings."""
        optimizer = self.optimizer.optimizer if isinstance(self.optimizer, AcceleratedOptimizer) else self.optimizer
        if optimizer is None:
            return {}
        stated, stated_args = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        return own_optimizer(optimizer, stated, stated_args, self.args.weight_decay)


@dataclass(frozen=True)
class MixinSettings:
    """The settings of a step where `args` has none.

    Args:
        ascent_scope, telemetry: as in `LTSamConfig`.
    """

    ascent_scope: str = "micro"
    telemetry: bool = True
    ascent_size: int | None = None
    exact_rows: bool = True
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        require_choice(self, ASCENT_SCOPES, ascent_scope=self.ascent_scope)


class SamTrainerMixin(MethodTrainer):
    """Sharpness-aware minimization for any class of Trainers, whose loss stays what it is: put it in front of the class.

        class SamSeq2SeqTrainer(SamTrainerMixin, Seq2SeqTrainer):
            pass

        trainer = SamSeq2SeqTrainer(model, args, train_dataset=data, method="sam", method_args={"rho": 0.05})

    The loss is the number that `compute_loss` of that class returns for a micro-batch, called once for every pass; one that
    is divided by `num_items_in_batch` counts in an accumulated step as it does there. Each micro-batch is one unit of
    weight: methods that weight classes or samples are refused. Checkpoints and resuming are those of `DurableTrainer`;
    arguments, settings and all the rest those of the class.

    Args:
        args, kwargs: of the class.
        method: a registry name of `hf_ltsam.methods` or an object.
        method_args: the hyper-parameters of a name.
        ascent_scope: what is perturbed together: "micro", each micro-batch of each process on its own, or "step", all of an
            optimizer step.
        telemetry: whether the logs tell what the perturbation does (sam_*).
        max_skipped_steps: steps in a row without a finite gradient that end the training.

    Raises:
        ValueError: a setting that cannot work, named with the reason and the way out.
        TypeError: `args` of ours, whose method and loss would not be read, or a class in the place of a method; where the
            class or its object is made, one whose own attributes the mixin would hide.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls)

    def __init__(
        self,
        *args: Any,
        method: str | Method = "sam",
        method_args: Mapping[str, Any] | None = None,
        ascent_scope: str = "micro",
        telemetry: bool = True,
        max_skipped_steps: int = 10,
        **kwargs: Any,
    ) -> None:
        if any(isinstance(given, LTSamConfig) for given in (*args, *kwargs.values())):
            raise TypeError(
                f"{type(self).__name__}(args=...) must be the class's own settings, got an LTSamConfig, whose method and "
                "loss nobody would read. Pass method= to the trainer, or take LTSamTrainer(..., loss='model')."
            )
        require(COUNT, type(self).__name__, max_skipped_steps=max_skipped_steps)
        check_method(method, type(self).__name__)
        rule = by_name_or_object(method, "method", method_args)
        check_optimizer((kwargs.get("optimizer_cls_and_kwargs") or kwargs.get("optimizers") or (None,))[0])
        super().__init__(*args, **kwargs)
        self.method, self.max_skipped_steps = rule, max_skipped_steps
        self.step_settings = MixinSettings(ascent_scope, telemetry)
        check_arguments(self.args, own_loss=True)
        check_launcher(self)
        check_own_loss(self.method, self.model)
        self._make_parts()

    def _check_made(self) -> None:
        check_attributes(self)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the class."""
        check_arguments(self.args, own_loss=True)  # they may have changed since the trainer was made
        return super().train(*args, **kwargs)

    def check_checkpoint(self, folder: Path) -> None:
        check_identity(folder, self.identity())

    def save_companions(self, folder: Path) -> None:
        """What the model was trained with."""
        save_identity(folder, self.identity())


def check_names(kind: type) -> None:
    """Refuse a class of Trainers of which the mixin hides an attribute that no `Trainer` has: its own code would call ours.

    Raises:
        TypeError: naming class and attribute.
    """
    names, behind = names_and_classes_behind(kind)
    for other in behind:
        for name in sorted(names & set(vars(other))):
            raise TypeError(
                f"{kind.__name__}: {other.__name__}.{name} would be hidden by SamTrainerMixin, which has another {name}. "
                f"Rename it in {other.__name__}, or override it in {kind.__name__} with what serves both."
            )


def check_attributes(trainer: SamTrainerMixin) -> None:
    """The same for attributes that the class gives to the object where it is made.

    Args:
        trainer: whose class has just made it; the mixin has given it none of its own yet.

    Raises:
        TypeError: naming class and attribute.
    """
    names, behind = names_and_classes_behind(type(trainer))
    for name in sorted(names & set(vars(trainer))):
        others = " or ".join(other.__name__ for other in behind)
        raise TypeError(
            f"{type(trainer).__name__}: {others} sets {name} on the trainer, where SamTrainerMixin has another {name}. "
            f"Rename it in {others}."
        )


def names_and_classes_behind(kind: type) -> tuple[set[str], list[type]]:
    """The mixin's own names that no `Trainer` has, and the classes of Trainers that come after it."""
    of_mixin = [c for c in kind.__mro__ if issubclass(c, DurableTrainer) and c.__module__.startswith("hf_ltsam.")]
    names = {name for c in of_mixin for name in (*vars(c), *get_annotations(c))} - set(dir(Trainer))
    behind = kind.__mro__[max((kind.__mro__.index(c) for c in of_mixin), default=0) + 1 :]
    return names, [c for c in behind if issubclass(c, Trainer) and c is not Trainer]
