"""Schedules whose boundaries are written in epochs, as the sources write them, turned into shares of training."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from .schedules import SCHEDULES


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
        if kind in SCHEDULES and isinstance(arguments, Mapping) and "epochs" in arguments else arguments
        for kind, arguments in value.items()
    }


def _in_shares(
    name: str, kind: str, arguments: Mapping[str, Any], num_epochs: float, max_steps: int
) -> dict[str, Any]:
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
