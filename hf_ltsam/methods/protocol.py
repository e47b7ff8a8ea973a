"""What a method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ..context import StepContext
from ..domains import NON_NEGATIVE, require
from ..landscape import LossLandscape
from ..schedules import Schedule, lowest_value
from ..vector import WeightVector


class Method(ABC):
    """Frozen hyper-parameters and one function: the update gradient, as an expression in G(a, eps).

    A method writes nothing: not the weights, not `.grad`, not itself. What it must remember from step to step lives
    in `step.memory`.
    """

    needs_split: ClassVar[bool] = False        # whether it asks for head and tail, and so for `tail_threshold`

    @abstractmethod
    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        """The vector that the optimizer is given in place of the gradient."""


def require_non_negative(method: Method, **values: float | Schedule) -> None:
    """Refuse a negative or non-finite hyper-parameter, by name; of a schedule, its lowest value is judged.

    Raises:
        ValueError: naming class, argument, bound and value.
    """
    for name, value in values.items():
        require(NON_NEGATIVE, method, **{name: lowest_value(value) if callable(value) else value})
