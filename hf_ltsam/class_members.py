"""Which samples of a mini-batch belong to which of its classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Shapes: n samples of the mini-batch, m classes among them.


@dataclass(frozen=True)
class ClassMembers:
    """Which samples of a mini-batch belong to which of its classes.

    Args:
        labels: class indices (n,), on the host.
    """

    labels: Tensor

    @property
    def classes(self) -> list[int]:
        """The m classes of the mini-batch, in increasing order."""
        return sorted(set(self.labels.tolist()))

    def ones(self, dtype: torch.dtype) -> Tensor:
        """1_c of each class (m, n), on the host."""
        return (torch.tensor(self.classes)[:, None] == self.labels).to(dtype)

    def of_samples(self, values: Tensor) -> Tensor:
        """Values of the classes (m, ...) for each sample (n, ...)."""
        return values[torch.searchsorted(torch.tensor(self.classes), self.labels).to(values.device)]
