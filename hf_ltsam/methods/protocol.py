"""What a method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.hyperparameters import COUNT, NON_NEGATIVE, SHARE, Documented, require
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.schedules import Schedule, lowest_value


@dataclass(frozen=True, kw_only=True)
class Method(Documented, ABC):
    """Frozen hyper-parameters and one function: the update gradient, as an expression in G(a, eps).

    A method writes nothing: not the weights, not `.grad`, not itself. What it must remember from step to step lives
    in `step.memory`; a step on which the method is not applied leaves it as it is.

    Args:
        interval: apply the method on steps 0, interval, 2 interval, ... only, >= 1; the others are plain SGD.
        start, stop: apply it while start <= progress < stop only, in [0, 1].
    """

    perturbs: ClassVar[bool] = True  # whether gradients are taken elsewhere than at the weights
    needs_classes: ClassVar[bool] = (
        False  # whether it weights or perturbs classes, which the model's own loss does not know
    )
    needs_split: ClassVar[bool] = False  # whether it asks for head and tail, and so for `tail_threshold`

    interval: int = 1
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        require(COUNT, self, interval=self.interval)
        require(SHARE, self, start=self.start, stop=self.stop)
        if self.start >= self.stop:
            name = type(self).__name__
            raise ValueError(f"{name}(start=...) must be below stop, got start={self.start!r} and stop={self.stop!r}.")

    @property
    def needs_classifier(self) -> bool:
        """Whether it perturbs the classifier alone, and so must be able to tell it from the rest."""
        return False

    def update(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        """What the host asks for: `gradient` on the steps on which the method is applied, else plain G(1)."""
        return self.gradient(loss, step) if self.applies(step) else loss.gradient()

    def applies(self, step: StepContext) -> bool:
        return step.step % self.interval == 0 and self.start <= step.progress < self.stop

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
