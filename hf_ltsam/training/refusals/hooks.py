"""What people change in a Trainer, by a subclass or on the object: a training calls it, or refuses it by name."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from hf_ltsam.data.sampling.class_sampling import UNIFORM
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.metrics.long_tail import LongTailMetrics
from hf_ltsam.training.refusals.settings import OPTIMIZERS

logger = logging.get_logger(__name__)

# Method of the stock Trainer that no training of ours calls -> why, and what to do instead.
BYPASSED = {
    "compute_loss": "every method needs the loss of each sample, and of several passes. Pass loss=<function (logits (n, C), "
    "labels (n,), statistics) -> losses (n,)>; to weight classes, set reweighting in LTSamConfig. A loss that is one number "
    "is minimised with loss='model', by methods that ask for no classes. The loss of evaluations alone is that of "
    "prediction_step, which may be overridden.",
    "create_optimizer_and_scheduler": "transformers itself no longer does. Override create_optimizer and create_scheduler.",
}

# Attribute that only the stock `training_step` and `compute_loss` read -> its value where nobody has set it, the way out
_UNREAD = {
    "compute_loss_func": (
        None,
        "every method needs the loss of each sample. Pass loss=<function (logits (n, C), labels (n,), statistics) -> losses "
        "(n,)>; or loss='model' beside it, with a method that asks for no classes.",
    ),
    "label_smoother": (None, "it would replace the training loss. Set label_smoothing_factor in LTSamConfig."),
    "loss_is_scaled_for_ga": (None, "the loss is a mean over samples, which is divided here. Leave it out."),
}


_OF_LOADERS = {"sampling": UNIFORM, "on_bad_image": "raise"}  # settings that our loaders alone read, and their defaults
_LIBRARIES = ("transformers.", "hf_ltsam.")  # whose own overrides are no one's change
_TIMES = ("runtime", "samples_per_second", "steps_per_second")  # what every evaluation adds


def check_hooks(trainer: Trainer, ours: type[Trainer], own_loss: bool = False) -> None:
    """Refuse a hook that a training of ours would pass over in silence.

    Args:
        ours: the class whose methods are in order.
        own_loss: whether the loss is the model's own, or that of `compute_loss`.

    Raises:
        ValueError: naming the hook, the class that has it, and the way out.
    """
    for name, reason in BYPASSED.items():
        if own_loss and name == "compute_loss":
            continue
        if is_overridden(trainer, name, ours):
            raise ValueError(f"{_owner(trainer, name)} overrides {name}, which LTSamTrainer does not call: {reason}")
    for name, (unset, way_out) in ({} if own_loss else _UNREAD).items():
        if getattr(trainer, name, unset) is not unset:
            raise ValueError(f"{name} is refused: {way_out}")


def check_best_metric(trainer: Trainer, ours: type[Trainer]) -> None:
    """Refuse a `metric_for_best_model` that no evaluation gives: transformers would say so after the first one.

    Nothing is known where metrics may come from elsewhere: one's own `compute_metrics`, overrides or callbacks.

    Raises:
        ValueError: with the nearest one.
    """
    args, metrics = trainer.args, trainer.compute_metrics
    if args.metric_for_best_model is None or args.eval_strategy == "no" or not isinstance(metrics, LongTailMetrics):
        return
    if any(is_overridden(trainer, name, ours) for name in ("evaluate", "evaluation_loop", "_evaluate")) or any(
        not type(callback).on_evaluate.__module__.startswith(_LIBRARIES)
        for callback in trainer.callback_handler.callbacks
    ):
        return
    sets = [f"{name}_" for name in trainer.eval_dataset] if isinstance(trainer.eval_dataset, dict) else [""]
    names = ("loss", *(() if args.prediction_loss_only else metrics.names), *_TIMES)
    valid = [name + metric for name in sets for metric in names]
    if args.metric_for_best_model.removeprefix("eval_") not in valid:
        close = nearest(args.metric_for_best_model.removeprefix("eval_"), valid)
        several = (
            f" Evaluations are those of {', '.join(trainer.eval_dataset)}: their names come first." if sets[0] else ""
        )
        raise ValueError(
            f"LTSamConfig(metric_for_best_model={args.metric_for_best_model!r}) is no metric of the evaluation."
            f"{close}{several}"
        )


def is_overridden(trainer: Trainer, name: str, ours: type[Trainer]) -> bool:
    """Whether a subclass or the object itself has another method of this name than our class."""
    method, stock = getattr(trainer, name, None), getattr(ours, name, None)
    return getattr(method, "__func__", method) is not stock


def _owner(trainer: Trainer, name: str) -> str:
    if name in vars(trainer):
        return f"The {type(trainer).__name__} object"
    return next(cls.__name__ for cls in type(trainer).__mro__ if name in vars(cls))


def check_step_state(trainer: Any) -> str | None:
    """A warning of an override of `training_step` whose state of a micro-batch all passes of a step would share, or None."""
    classes = [cls for cls in type(trainer).__mro__ if "training_step" in vars(cls)]
    own = [cls.__name__ for cls in classes if not cls.__module__.startswith(_LIBRARIES)]
    owner = _owner(trainer, "training_step") if "training_step" in vars(trainer) else next(iter(own), None)
    accumulated = trainer.args.gradient_accumulation_steps
    if owner is None or accumulated == 1 or trainer.step_settings.ascent_scope != "step":
        return None
    return (
        f"{owner} overrides training_step, and with ascent_scope='step' all passes over the {accumulated} micro-batches of "
        "a step are made in the call of the last one: if it sets something for a micro-batch (a task's head, an adapter, a "
        "value that compute_loss reads), that acts as of the last. Set it from the inputs, in forward or compute_loss, or "
        "take ascent_scope='micro'."
    )


def check_optimizer(optimizer: Any) -> None:
    """Refuse an optimizer, or a class of optimizers, whose `step()` alone does not make a step.

    Args:
        optimizer: an object or its class; None is in order.

    Raises:
        ValueError: it needs a closure, as LBFGS and the optimizers of other SAM packages; or it steps inside the
            backward pass.
    """
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    if hasattr(kind, "second_step") or _asks_for_closure(kind):  # the former is how SAM packages are told
        inner = getattr(optimizer, "base_optimizer", None)
        base = "an ordinary optimizer" if inner is None else f"the {type(inner).__name__} in it"
        raise ValueError(
            f"{kind.__name__} does not go with LTSamTrainer: its step() asks for a closure, which no Trainer passes. Pass "
            f"{base}; sharpness-aware minimization is method='sam', method_args={{'rho': ...}}, with any optimizer."
        )
    if hasattr(kind, "fused_backward"):  # LOMO's
        reason = OPTIMIZERS["lomo"]
        raise ValueError(f"{kind.__name__} does not go with LTSamTrainer: {reason}. Pass one with an ordinary step().")
    for name in ("optimizer", "base_optimizer"):  # what a wrapper such as Lookahead steps
        if isinstance(getattr(optimizer, name, None), Optimizer):
            check_optimizer(getattr(optimizer, name))


def check_weight_hooks(model: nn.Module) -> None:
    """Refuse optimizers of single weights that step as soon as a backward pass has accumulated their gradient.

    Raises:
        ValueError: naming a weight. No pass of a method accumulates, so it would never be trained.
    """
    for name, parameter in model.named_parameters():
        if getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise ValueError(
                f"A hook waits for the accumulated gradient of {name!r} (register_post_accumulate_grad_hook): the passes "
                "of a method accumulate nothing, so an optimizer in it would never step. Remove it, and pass the optimizer "
                "of all weights in optimizers=."
            )


def _asks_for_closure(kind: type) -> bool:
    """Whether `step` has an argument without a default, or refuses None for its closure in its first lines."""
    step = getattr(kind, "step", None)
    if step is None:
        return False
    arguments = list(inspect.signature(step).parameters.values())[1:]
    if any(a.default is a.empty and a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD) for a in arguments):
        return True
    return _refuses_none(inspect.unwrap(step))


def _refuses_none(step: Callable[..., Any]) -> bool:
    """Whether the source says `assert closure is not None`, or raises `if closure is None`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(step)))
    except (OSError, TypeError, SyntaxError):  # compiled, or typed into a prompt
        return False
    asserted = (ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.Assert))
    raised = (
        ast.unparse(node.test)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and any(isinstance(line, ast.Raise) for line in node.body)
    )
    there, missing = ("closure is not None", "closure"), ("closure is None", "not closure")
    return any(test in there for test in asserted) or any(test in missing for test in raised)


class HookWatch(TrainerCallback):
    """Refuses in the first step what shows only there.

    Args:
        trainer: its optimizer may be made by an override of `create_optimizer`, its step by one of `training_step`.
        step_was_made: whether the method has made the gradient of the present step.
    """

    def __init__(self, trainer: Any, step_was_made: Callable[[], bool]) -> None:
        self._trainer, self._step_was_made = trainer, step_was_made

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        check_optimizer(self._trainer.optimizer)
        check_weight_hooks(self._trainer.model)  # a callback may be given another one (SetFit)
        remark = check_step_state(self._trainer)
        if remark:
            logger.warning(remark)
        unread = [
            f"{name}={getattr(args, name)!r}"
            for name, value in _OF_LOADERS.items()
            if getattr(args, name, value) != value
        ]
        if unread and not self._trainer.batch_loaders.serves_training:
            raise ValueError(
                f"{_owner(self._trainer, 'get_train_dataloader')} overrides get_train_dataloader without calling "
                f"super().get_train_dataloader(), so {' and '.join(unread)} would have no effect: leave it out, or call it."
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._step_was_made() and any(p.grad is not None for p in self._trainer.model.parameters()):
            raise ValueError(
                f"{_owner(self._trainer, 'training_step')} overrides training_step without calling super().training_step(): "
                "the gradient is its own, and neither method nor loss has any effect. Call it, or train with "
                "transformers.Trainer."
            )
