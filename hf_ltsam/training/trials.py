"""Trials of `hyperparameter_search`: each with a model, method, loss and memory of its own.

A value of a search has the name of a setting, or of an argument of the method or the loss: `rho` stands for
`method_args.rho`, which may be written out where both have an argument of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from typing import Any

from transformers import Trainer
from transformers.hyperparameter_search import OptunaBackend
from transformers.trainer_utils import HPSearchBackend, default_compute_objective, default_hp_space_optuna

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.hyperparameters import canonical, did_you_mean
from hf_ltsam.losses import LOSSES
from hf_ltsam.losses.reweighting import without_drw
from hf_ltsam.methods import METHODS
from hf_ltsam.metrics.long_tail import LongTailMetrics
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.refusals.settings import check_arguments

REGISTRIES: dict[str, Mapping[str, Any]] = {"method": METHODS, "loss": LOSSES}
_OF_REGISTRIES = ("method", "method_args", "loss", "loss_args")
_FROM_NAMES = ("reweighting", "reweighting_start")  # which the name of a loss sets as well, as "ldam_drw"


def registered(kind: str, name: str) -> str:
    """The key of a method or a loss, however `LTSamConfig` lets it be written: LDAM-DRW is "ldam"."""
    return canonical(REGISTRIES[kind], (without_drw(name) if kind == "loss" else None) or name)


def arguments_of(kind: str, name: str) -> list[str]:
    """The arguments that a method or a loss takes; none of one that is not registered."""
    registry, name = REGISTRIES[kind], registered(kind, name)
    return [field.name for field in fields(registry[name]) if field.init] if name in registry else []


def place_of(name: str, chosen: Mapping[str, str], settings: Collection[str]) -> tuple[str, str | None]:
    """Where a value of a search goes: a setting, or `method_args` or `loss_args` and the argument in it.

    Args:
        name: `learning_rate`, `rho` or `method_args.rho`.
        chosen: the names of the method and the loss.
        settings: names of settings.

    Raises:
        ValueError: there is no such setting or argument, with the nearest ones, or there are two.
    """
    arguments = {f"{kind}_args": arguments_of(kind, chosen[kind]) for kind in REGISTRIES}
    setting, dot, argument = name.partition(".")
    if dot and argument in arguments.get(setting, ()):
        return setting, argument
    if name in settings:
        return name, None
    places = [setting for setting, names in arguments.items() if name in names]
    if len(places) == 1:
        return places[0], name
    made = " and ".join(f"{kind} {chosen[kind]!r}" for kind in REGISTRIES)
    if places:
        written = " or ".join(f"{place}.{name}" for place in places)
        raise ValueError(f"{name!r} is an argument of both, {made}: write {written}.")
    valid = [*settings, *(argument for names in arguments.values() for argument in names)]
    suggestion = did_you_mean(argument or name, valid)
    named = "; ".join(
        f"{kind} {chosen[kind]!r}: {', '.join(arguments[f'{kind}_args']) or 'none'}" for kind in REGISTRIES
    )
    raise ValueError(f"There is no setting {name!r} to search, and no such argument ({named}).{suggestion}")


def with_values(base: Mapping[str, Any], values: Mapping[str, Any], settings: Collection[str]) -> dict[str, Any]:
    """The settings that change where the values of a trial are laid over others.

    Args:
        base: `method`, `method_args`, `loss` and `loss_args`; arguments of another method or loss are left behind.
        values: by the names of `place_of`.
        settings: names of settings.

    Raises:
        ValueError: as `place_of`.
    """
    chosen = {kind: str(values.get(kind, base[kind])) for kind in REGISTRIES}
    changed: dict[str, Any] = {}
    for kind in REGISTRIES:
        if kind in values:
            same = registered(kind, chosen[kind]) == registered(kind, base[kind])
            changed |= {kind: values[kind], f"{kind}_args": base[f"{kind}_args"] if same else {}}
    for name, value in values.items():
        setting, argument = place_of(name, chosen, settings)
        if argument is None:
            changed[setting] = value
    for name, value in values.items():
        setting, argument = place_of(name, chosen, settings)
        if argument is not None:
            changed[setting] = {**(changed.get(setting, base[setting]) or {}), argument: value}
    return changed


class Trials(Trainer):
    """`hyperparameter_search` of a trainer whose method and loss are made from its settings."""

    args: LTSamConfig
    method: Any
    loss: Any
    reweighting: Any
    class_statistics: ClassStatistics | None
    max_skipped_steps: int
    _statistics_before: ClassStatistics | None  # the search
    _part_callbacks: list[Any]
    _make_parts: Callable[[], None]
    _check_problem: Callable[[Any], None]
    takes_own_loss: Any
    identity: Callable[[], dict[str, Any]]

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: Any = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As stock, by optuna. Afterwards settings, method and loss are again those of before.

        Args:
            hp_space: may set what the method or the loss takes by its name, `{"rho": trial.suggest_float("rho", 0.01,
                0.5, log=True)}`, besides every setting. What it does not set is as it was before the search.
            compute_objective: where it is None and so was `compute_metrics`, the balanced accuracy is maximised, or the
                plain cross-entropy minimised, as `direction` says: the stock objective would add accuracies and
                calibration error.
            n_trials, direction, backend, hp_name, kwargs: as in `transformers.Trainer`.

        Raises:
            ValueError: another backend, several trials at a time in one trainer, nothing to evaluate on, or a name in
                `hp_space` that nothing has.
        """
        _check(self, backend, kwargs)
        self._trial_settings = TrialSettings(self, default_hp_space_optuna if hp_space is None else hp_space)
        objective = compute_objective or _objective(self, direction)
        before = self.method, self.loss
        self._statistics_before = self.class_statistics
        try:
            best = super().hyperparameter_search(
                self._trial_settings.of, objective, n_trials, direction, HPSearchBackend.OPTUNA, hp_name, **kwargs
            )
        finally:
            self.hp_search_backend = None
            self._trial_settings.restore()
            self.method, self.loss = before
        model = self.call_model_init()  # stock leaves none
        self.model = self.model_wrapped = model.to(self.args.device) if self.place_model_on_device else model
        self._make_anew(*before)
        return best

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        if trial is not None and self.hp_search_backend is not None:
            self.args.check()
            self._make_anew(*self._trial_settings.made())
            self._identity = self.identity()

    def _make_anew(self, method: Any, loss: Any) -> None:
        """All that a trainer makes of its settings, after another method and loss and other settings."""
        self.method, self.loss, self.reweighting = method, loss, self.args.class_weighting
        self.max_skipped_steps = self.args.max_skipped_steps
        statistics, threshold = self._statistics_before, self.args.tail_threshold  # not those of the trial before
        if statistics is not None and threshold is not None:
            statistics = replace(statistics, tail_threshold=threshold)
        self.class_statistics = statistics
        for callback in self._part_callbacks:
            self.remove_callback(callback)
        self._make_parts()  # with the accelerator that stock has made for the trial
        check_arguments(self.args, self.takes_own_loss)
        self._check_problem(self.eval_dataset)


class TrialSettings:
    """The settings of a trainer, with those of a trial in their place.

    Args:
        trainer: what was passed to it as method or loss comes before the settings, and becomes one for the search.
        space: trial -> values, by the names of `place_of`.
    """

    def __init__(self, trainer: Any, space: Callable[[Any], dict[str, Any]]) -> None:
        self._args: LTSamConfig = trainer.args
        self._space = space
        self._names = [field.name for field in fields(self._args) if field.init]
        self._before: dict[str, Any] = {}  # the search
        self._own: dict[str, Any] = {}  # method or loss of a class that has no name
        for kind, passed in {"method": trainer.method, "loss": trainer.loss}.items():
            if passed is not self._made_of_settings(kind):
                self._state(kind, passed)
        self._start = {name: getattr(self._args, name) for name in _OF_REGISTRIES}

    def of(self, trial: Any) -> dict[str, Any]:
        """What stock sets for a trial; what an earlier one has set is as it was before."""
        self.restore()
        for name, value in self._start.items():
            self._set(name, value)
        for name in _FROM_NAMES:
            self._set(name, getattr(self._args, name))
        changed = with_values(self._start, self._space(trial), self._names)
        for kind in set(self._own) & {name.removesuffix("_args") for name in changed}:
            raise ValueError(
                f"hp_space sets the {kind}, and an object of a class without a name was passed "
                f"({type(self._own[kind]).__name__}): search over settings alone, or over the names of {kind}s."
            )
        for name, value in changed.items():
            self._set(
                name, {} if isinstance(value, dict) else getattr(self._args, name)
            )  # stock casts to the present type
        return changed

    def made(self) -> tuple[Any, Any]:
        """Method and loss by the present settings."""
        method, loss = (self._own.get(kind, self._made_of_settings(kind)) for kind in REGISTRIES)
        return method, loss

    def restore(self) -> None:
        """Settings as they were before the search."""
        for name, value in self._before.items():
            setattr(self._args, name, value)

    def _made_of_settings(self, kind: str) -> Any:
        return self._args.update_rule if kind == "method" else self._args.sample_loss

    def _state(self, kind: str, passed: Any) -> None:
        """Write what was passed as settings."""
        name = next((name for name, made in REGISTRIES[kind].items() if made is type(passed)), None)
        if name is None:
            self._own[kind] = passed
            return
        self._set(kind, name)
        self._set(f"{kind}_args", {argument: getattr(passed, argument) for argument in arguments_of(kind, name)})

    def _set(self, name: str, value: Any) -> None:
        self._before.setdefault(name, getattr(self._args, name))
        setattr(self._args, name, value)


def _check(trainer: Any, backend: Any, arguments: Mapping[str, Any]) -> None:
    if backend is not None and HPSearchBackend(backend) != HPSearchBackend.OPTUNA:
        raise ValueError(
            f"hyperparameter_search(backend={str(backend)!r}): LTSamTrainer searches by optuna. Leave it out."
        )
    if not OptunaBackend.is_available():
        raise ValueError("hyperparameter_search needs optuna: pip install optuna.")
    if arguments.get("n_jobs", 1) != 1:
        raise ValueError(
            f"hyperparameter_search(n_jobs={arguments['n_jobs']}): the trials of one trainer share its model, so they come "
            "one after the other. `ltsam tune ... --jobs N` runs several at a time."
        )
    if trainer.eval_dataset is None:
        raise ValueError(
            "hyperparameter_search has nothing to choose by: pass eval_dataset, a reserved part of the training set."
        )


def _objective(trainer: Any, direction: str | list[str]) -> Callable[[dict[str, float]], float]:
    if not isinstance(trainer.compute_metrics, LongTailMetrics) or isinstance(direction, list):
        return default_compute_objective
    name = "eval_balanced" if str(direction) == "maximize" else "eval_loss"
    return lambda metrics: metrics[name]
