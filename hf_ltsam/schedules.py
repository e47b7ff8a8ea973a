"""Hyper-parameters that change during training: a number, or a function of progress.

progress = completed steps / total steps, in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Real
from typing import Any, TypeAlias

from hf_ltsam.hyperparameters import FINITE, INNER_SHARE, SHARE, build, require

Schedule: TypeAlias = Callable[[float], float]


@dataclass(frozen=True)
class Constant:
    """The same value throughout."""

    value: float

    def __post_init__(self) -> None:
        require(FINITE, self, value=self.value)

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Piecewise:
    """values[k] from boundaries[k - 1] on, so a boundary belongs to what follows it.

    Args:
        values: one more than boundaries.
        boundaries: increasing shares of training, in (0, 1): epoch 160 of 200 is 0.8.
    """

    values: tuple[float, ...]
    boundaries: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        for value in self.values:
            require(FINITE, self, values=value)
        for boundary in self.boundaries:
            require(INNER_SHARE, self, boundaries=boundary)
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                "Piecewise(values=...) must hold one more number than boundaries, "
                f"got {len(self.values)} values and {len(self.boundaries)} boundaries."
            )
        if any(b <= a for a, b in zip(self.boundaries, self.boundaries[1:])):
            raise ValueError(f"Piecewise(boundaries=...) must be increasing, got {self.boundaries}.")

    def __call__(self, progress: float) -> float:
        return self.values[sum(progress >= boundary for boundary in self.boundaries)]


@dataclass(frozen=True)
class _Transition:
    """From start to end between the two boundaries, and constant before and after them.

    Args:
        boundaries: two increasing shares of training, in [0, 1]: epochs 10 and 160 of 200 are 0.05 and 0.8.
    """

    start: float
    end: float
    boundaries: tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        require(FINITE, self, start=self.start, end=self.end)
        for boundary in self.boundaries:
            require(SHARE, self, boundaries=boundary)
        if len(self.boundaries) != 2 or self.boundaries[0] >= self.boundaries[1]:
            name = type(self).__name__
            raise ValueError(f"{name}(boundaries=...) must be two increasing shares, got {self.boundaries}.")

    def _share(self, progress: float) -> float:
        """The part of the way that has been made, in [0, 1]."""
        first, last = self.boundaries
        return min(max((progress - first) / (last - first), 0.0), 1.0)


@dataclass(frozen=True)
class Linear(_Transition):
    """From start to end along a line, between two boundaries."""

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * self._share(progress)


@dataclass(frozen=True)
class Cosine(_Transition):
    """From start to end along half a period of the cosine, flat at both ends, between two boundaries."""

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * self._share(progress))) / 2


SCHEDULES: dict[str, type] = {"constant": Constant, "piecewise": Piecewise, "linear": Linear, "cosine": Cosine}


def as_schedule(x: float | Schedule) -> Schedule:
    """A number as the schedule that never changes; a schedule as it is.

    Raises:
        TypeError: neither of the two.
    """
    if isinstance(x, Real):
        return Constant(float(x))
    if callable(x):
        return x
    raise TypeError(f"Expected a number or a function progress -> value, got {x!r}.")


def value_at(x: float | Schedule, progress: float) -> float:
    """The value of a number or schedule at this progress."""
    return as_schedule(x)(progress)


def lowest_value(x: float | Schedule) -> float:
    """The smallest value ever taken, so that a bound can be checked before training.

    Exact for the schedules of this file; of any other function, the smallest of 101 values.
    """
    schedule = as_schedule(x)
    if isinstance(schedule, Piecewise):
        return min(schedule.values)
    return min(schedule(percent / 100) for percent in range(101))  # the others are lowest at an end


def schedule_from_config(value: Any) -> float | Schedule:
    """A number or schedule as a recipe or command line writes it.

    Args:
        value: a number, also as text, since YAML reads 1e-3 as text; or one schedule by name with its arguments,
            as in `{"piecewise": {"values": [0.1, 0.2], "boundaries": [0.8]}}`. `epochs_to_shares` turns boundaries in
            epochs into these shares of training.

    Raises:
        ValueError: anything else; an unknown schedule or argument is answered with the nearest valid ones.
    """
    if isinstance(value, Mapping):
        return _named_schedule(value)
    if callable(value):
        schedule: Schedule = value
        return schedule
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"Expected a number, or a schedule such as {{linear: {{start: 0.1, end: 0.2}}}}, got {value!r}."
        )
    return number


def schedule_to_config(x: float | Schedule) -> float | dict[str, dict[str, Any]]:
    """The inverse of `schedule_from_config`, ready for JSON.

    Raises:
        ValueError: a function that is none of `SCHEDULES` cannot be written down.
    """
    if isinstance(x, Real):
        return float(x)
    names = {cls: name for name, cls in SCHEDULES.items()}
    if isinstance(x, Constant | Piecewise | Linear | Cosine):
        return {names[type(x)]: {f.name: getattr(x, f.name) for f in fields(x) if getattr(x, f.name) != f.default}}
    raise ValueError(f"{x!r} cannot be written as configuration: use one of {', '.join(SCHEDULES)}.")


def _named_schedule(config: Mapping[str, Any]) -> Schedule:
    if len(config) != 1:
        raise ValueError(f"A schedule has one name with its arguments, got {dict(config)!r}.")
    ((name, arguments),) = config.items()
    if not isinstance(arguments, Mapping):
        raise ValueError(f"The schedule {name!r} needs its arguments by name, got {arguments!r}.")
    if name in SCHEDULES and "epochs" in arguments:
        raise ValueError(
            f"The schedule {name!r} counts in epochs={arguments['epochs']!r}, but here nobody knows of how many: state "
            "`boundaries`, in shares of training, or give it to LTSamConfig(method_args=..., num_train_epochs=...)."
        )
    required = [f.name for f in fields(SCHEDULES[name]) if f.default is MISSING] if name in SCHEDULES else []
    missing = [argument for argument in required if argument not in arguments]
    if missing and set(arguments) <= set(required):
        raise ValueError(f"The schedule {name!r} lacks {' and '.join(missing)}.")
    schedule: Schedule = build("schedule", SCHEDULES, name, arguments)
    return schedule


# ---- schedules whose boundaries are written in epochs, as the sources write them, turned into shares of t ----


def epochs_to_shares(hyperparameters: Mapping[str, Any], num_epochs: float, max_steps: int) -> dict[str, Any]:
    """The hyper-parameters of a recipe, with every schedule's `epochs` replaced by the `boundaries` they stand for.

    Epoch e of E is the share e / E. The first step of epoch e (counted from 0) has made e S of E S steps, and since both
    quotients round the same rational number, it is the first one behind the boundary, whatever the S steps of an epoch.

    Args:
        hyperparameters: name -> value; a schedule as in `{"piecewise": {"values": [0.1, 0.2], "epochs": [160]}}`.
        num_epochs: E, of the training.
        max_steps: of the training; positive where it takes the place of E.

    Raises:
        ValueError: the number of epochs is not known or not whole, an epoch lies outside the training, or `boundaries`
            are given as well.
    """
    return {name: _schedule(name, value, num_epochs, max_steps) for name, value in hyperparameters.items()}


def _schedule(name: str, value: Any, num_epochs: float, max_steps: int) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {
        kind: _in_shares(name, kind, arguments, num_epochs, max_steps)
        if kind in SCHEDULES and isinstance(arguments, Mapping) and "epochs" in arguments
        else arguments
        for kind, arguments in value.items()
    }


def _in_shares(name: str, kind: str, arguments: Mapping[str, Any], num_epochs: float, max_steps: int) -> dict[str, Any]:
    epochs = arguments["epochs"]
    if max_steps > 0:
        raise ValueError(
            f"The schedule of {name!r} counts in epochs={epochs!r}, but the training is measured in max_steps={max_steps}: "
            "set num_train_epochs instead, or state `boundaries` in shares of training."
        )
    if num_epochs != int(num_epochs):
        raise ValueError(
            f"The schedule of {name!r} counts in epochs={epochs!r}, which needs a whole number of epochs, got "
            f"num_train_epochs={num_epochs}: state `boundaries` in shares of training."
        )
    if "boundaries" in arguments:
        raise ValueError(
            f"The schedule of {name!r} has both epochs={epochs!r} and boundaries={arguments['boundaries']!r}: state one."
        )
    if kind == "piecewise" and 0 in _listed(name, epochs):
        raise ValueError(
            f"The schedule of {name!r} names epoch 0 in epochs={epochs!r}: the first value holds from there on anyway. List "
            "the epochs of the other values, one fewer than values."
        )
    others = {key: argument for key, argument in arguments.items() if key != "epochs"}
    return {**others, "boundaries": [_share(name, epoch, num_epochs) for epoch in _listed(name, epochs)]}


def _listed(name: str, epochs: Any) -> list[Any]:
    if isinstance(epochs, list | tuple):
        return list(epochs)
    raise ValueError(f"The schedule of {name!r} needs its epochs as a list such as [160], got {epochs!r}.")


def _share(name: str, epoch: Any, num_epochs: float) -> float:
    if isinstance(epoch, bool) or not isinstance(epoch, Real) or not 0 <= float(epoch) <= num_epochs:
        raise ValueError(
            f"The schedule of {name!r} names epoch {epoch!r}, which is no epoch of a training of {num_epochs:g} "
            "(they count from 0)."
        )
    return float(epoch) / num_epochs
