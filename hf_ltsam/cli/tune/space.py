"""What is searched: ranges and choices of settings, by the names of the command line.

    rho: [0.01, 0.5]                    a range; on a log scale, since it begins above 0
    weight_decay: [1.0e-4, 1.0e-2, log]     the scale stated: log or linear
    per_device_train_batch_size: [32, 64, 128]    choices: three or more values
    depth: {choices: [20, 32]}          choices of two numbers
    loss_args.gamma: [0.5, 4]           of the method and the loss, where both have an argument of this name

Integers and shares of the training (`start`, `swa_start`) are on a linear scale unless log is stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from hf_ltsam import LOSSES, METHODS, LTSamConfig
from hf_ltsam.cli.train.arguments import CHOSEN_BY_NAME, decided_settings, make_run
from hf_ltsam.cli.train.settings import AUGMENTATION, DataArguments, ModelArguments
from hf_ltsam.runs.experiment import OF_THE_EXPERIMENT
from hf_ltsam.runs.recipe_files import parse_mapping
from hf_ltsam.training.refusals.settings import check_arguments
from hf_ltsam.training.trials import place_of

_OF_THE_DATA = {field.name for field in fields(DataArguments)} - {*AUGMENTATION, "image_size"}
_SHARES = ("start", "stop", "beta", "beta1", "beta2", "momentum")  # and all that end like them: within [0, 1]
_SCALES = ("log", "linear")


@dataclass(frozen=True)
class Parameter:
    """One name that is searched.

    Args:
        name: as it was written.
        setting: the option that it changes.
        argument: in `method_args` or `loss_args`; None: the option itself.
        low, high: of a range, both included.
        log: whether the range is searched on a log scale.
        whole: whether its values are integers.
        choices: in place of a range.
    """

    name: str
    setting: str
    argument: str | None
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def is_range(self) -> bool:
        return not self.choices

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that have to be valid for all between them to be."""
        if not self.is_range:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def suggest(self, trial: Any) -> Any:
        """The value in a trial of optuna's; always the same one of the same trial."""
        if not self.is_range:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value is among those that are searched."""
        if not self.is_range:
            return value in self.choices
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    def present(self, settings: Mapping[str, Any]) -> Any:
        """The value in settings; None where they state none."""
        value = settings.get(self.setting)
        return value if self.argument is None else (value or {}).get(self.argument)

    def __str__(self) -> str:
        if not self.is_range:
            return f"{self.name}: {', '.join(map(str, self.choices))}"
        return f"{self.name}: {self.low:g} to {self.high:g}, {'log' if self.log else 'linear'} scale"


def read_search(texts: Sequence[str]) -> dict[str, Any]:
    """Name -> range or choices, of the texts that follow `--search`.

    Raises:
        ValueError: one that is no `name: values`, or a name twice.
    """
    search: dict[str, Any] = {}
    for text in texts:
        try:
            entries = parse_mapping(text, f"--search {text!r}")
        except ValueError as error:
            raise ValueError(f"{error} It should look like --search 'rho: [0.01, 0.5]'.") from error
        for name, values in entries.items():
            if name in search:
                raise ValueError(f"--search has {name} twice: state one range.")
            search[str(name)] = values
    return search


def parameters_of(search: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The parameters of a search over a recipe.

    Args:
        search: name -> range or choices.
        settings: of the recipe, whose method and loss have the arguments.

    Raises:
        ValueError: a name that does not exist or is not to be searched, a range without values, or a value that the
            setting does not take.
    """
    if not search:
        raise ValueError("Nothing to search: --search 'rho: [0.01, 0.5]' names a setting and its range.")
    chosen = {  # the method also where rho is searched, and none is decided for it
        "method": str(settings.get("method", LTSamConfig.method)),
        "loss": str({"loss": LTSamConfig.loss, **decided_settings(settings), **settings}["loss"]),
    }
    parameters = tuple(_parameter(name, values, *_place(name, chosen), chosen) for name, values in search.items())
    places = [(parameter.setting, parameter.argument) for parameter in parameters]
    for parameter, place in zip(parameters, places):
        if places.count(place) > 1:
            raise ValueError(f"--search has {parameter.name} under two names: state one range.")
    for parameter in parameters:
        _check_ends(parameter, settings)
    return parameters


def laid_over(settings: Mapping[str, Any], values: Mapping[Parameter, Any]) -> dict[str, Any]:
    """Settings with the values of a trial."""
    laid = dict(settings)
    for parameter, value in values.items():
        if parameter.argument is None:
            laid[parameter.setting] = value
        else:
            laid[parameter.setting] = {**(laid.get(parameter.setting) or {}), parameter.argument: value}
    return laid


def _place(name: str, chosen: Mapping[str, str]) -> tuple[str, str | None]:
    if name in CHOSEN_BY_NAME or name == "model":
        raise ValueError(
            f"--search {name}: each {name.replace('_', ' ')} has settings of its own. Give a recipe for each, `ltsam tune "
            "RECIPE RECIPE ...`: all get the same number of trials."
        )
    if name in _OF_THE_DATA:
        raise ValueError(
            f"--search {name}: it decides what the data or the test are, and not how well a training does."
        )
    searched = sorted(OF_THE_EXPERIMENT - _OF_THE_DATA)
    everything = {field.name for kind in (LTSamConfig, ModelArguments) for field in fields(kind)}
    if name in everything - set(searched):
        raise ValueError(f"--search {name}: it changes no trained weight, or none that could be called better.")
    try:
        return place_of(name, chosen, searched)
    except ValueError as error:
        raise ValueError(f"--search {name}: {error}") from error


def _parameter(name: str, values: Any, setting: str, argument: str | None, chosen: Mapping[str, str]) -> Parameter:
    statement = f"--search {name}: {values}"
    if isinstance(values, Mapping) and set(values) == {"choices"} and isinstance(values["choices"], list):
        return Parameter(name, setting, argument, choices=_choices(values["choices"], statement))
    if not isinstance(values, list):
        raise ValueError(f"{statement}: it must be a range such as [0.01, 0.5], or a list of choices.")
    scale = values[-1] if len(values) == 3 and values[-1] in _SCALES else None
    ends = values[:2] if scale else values
    if len(ends) != 2 or not all(map(_is_number, ends)):
        return Parameter(name, setting, argument, choices=_choices(values, statement))
    return _range(
        Parameter(name, setting, argument), [float(end) for end in ends], scale, _type(setting, argument, chosen)
    )


def _range(parameter: Parameter, ends: list[float], scale: str | None, kind: Any) -> Parameter:
    name, (low, high) = parameter.name, ends
    statement = f"--search {name}: [{low:g}, {high:g}]"
    for end in ends:
        if not math.isfinite(end):
            raise ValueError(f"{statement}: both ends must be finite numbers, got {end}.")
    if low >= high:
        raise ValueError(f"{statement}: the range is empty. The lower end comes first, and is below the upper one.")
    whole = kind in (int, int | None)
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"{statement}: {name} takes whole numbers.")
    last = parameter.argument or parameter.setting
    log = scale == "log" if scale else low > 0 and not whole and not last.endswith(_SHARES)
    if log and low <= 0:
        raise ValueError(f"{statement}: a log scale begins above 0. State a positive lower end, or linear.")
    return Parameter(name, parameter.setting, parameter.argument, low, high, log, whole)


def _choices(values: list[Any], statement: str) -> tuple[Any, ...]:
    read: list[Any] = []
    for value in values:
        if not isinstance(value, str | int | float | bool | None):
            raise ValueError(
                f"{statement}: {value!r} is no single value. Search the numbers in it by names of their own."
            )
        is_text_of_a_number = isinstance(value, str) and _is_number(value)
        read.append(float(str(value)) if is_text_of_a_number else value)
        if isinstance(read[-1], float) and not math.isfinite(read[-1]):
            raise ValueError(f"{statement}: every choice must be a finite number, got {read[-1]}.")
    if len(set(map(str, read))) < 2:
        raise ValueError(f"{statement}: there is nothing to choose from. State two different values or more.")
    if len(set(map(str, read))) < len(read):
        raise ValueError(f"{statement}: a value is there twice.")
    return tuple(read)


def _is_number(value: Any) -> bool:
    """Text that is one, as nan and 1e-3 are to YAML, too."""
    if isinstance(value, bool):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _type(setting: str, argument: str | None, chosen: Mapping[str, str]) -> Any:
    if argument is not None:
        registry: Mapping[str, type] = METHODS if setting == "method_args" else LOSSES
        return get_type_hints(registry[chosen[setting.removesuffix("_args")]]).get(argument)
    owner = next(kind for kind in (LTSamConfig, ModelArguments, DataArguments) if setting in kind.__dataclass_fields__)
    return get_type_hints(owner).get(setting)


def _check_ends(parameter: Parameter, settings: Mapping[str, Any]) -> None:
    """Make the run of every end, as the trial would.

    Raises:
        ValueError: one that the setting does not take, in its own words.
    """
    for value in parameter.ends:
        try:
            config = make_run(laid_over(settings, {parameter: value}), tell=False).config
            config.make_choices()
            check_arguments(config)
        except ValueError as error:
            raise ValueError(f"--search {parameter}: {value!r} cannot be. {error}") from error
