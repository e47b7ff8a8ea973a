"""What a method may know about the step it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .class_statistics import ClassStatistics


@dataclass(frozen=True)
class StepContext:
    """One optimizer step, seen from a method.

    Args:
        labels: class indices (n,) of the mini-batch, in the order of the landscape's samples.
        statistics: of the training set.
        progress: completed steps / total steps, in [0, 1).
        like: any tensor of the device and floating-point type in which weightings are computed.
        memory: state that lives as long as the training; the host saves it with every checkpoint. Tensors and
            lists of tensors under string keys.
    """

    labels: Tensor
    statistics: ClassStatistics
    progress: float
    like: Tensor
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def prior(self) -> Tensor:
        """pi_{y_i} (n,)."""
        return self._of_samples("prior")

    @property
    def head(self) -> Tensor:
        """The 0/1 weighting h (n,) of samples from head classes; h + t = 1."""
        return self._of_samples("head")

    @property
    def tail(self) -> Tensor:
        """The 0/1 weighting t (n,) of samples from tail classes."""
        return self._of_samples("tail")

    def _of_samples(self, name: str) -> Tensor:
        return self.statistics.tensor(name, self.like)[self.labels]
