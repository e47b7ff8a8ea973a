"""Which rows of a micro-batch a weighting needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .micro_batch import MicroBatch

ALL_ROWS = None


@dataclass(frozen=True)
class Part:
    """One pass over some of the rows.

    Args:
        rows: their indices, on the host; None is all of them.
        weightings: the indices of the weightings that it serves.
    """

    rows: Tensor | None
    weightings: Sequence[int]

    @property
    def key(self) -> tuple[int, ...] | None:
        return None if self.rows is None else tuple(self.rows.tolist())

    def of(self, values: Tensor) -> Tensor:
        """These rows of values (b, ...)."""
        return values if self.rows is None else values[self.rows.to(values.device, non_blocking=True)]

    def of_weighting(self, a: Tensor | None) -> Tensor | None:
        return None if a is None else self.of(a)

    def of_batch(self, batch: MicroBatch) -> MicroBatch:
        return batch if self.rows is None else batch.rows(self.rows)


def parts_of(weightings: Sequence[Tensor | None], count: int, every_row: bool) -> list[Part]:
    """The passes that need the fewest rows: one per weighting where no two share a row, else one for all of them.

    Args:
        weightings: a (b,) each; None is all ones.
        count: b.
        every_row: whether rows that no weighting needs are computed all the same, since nobody knows their losses yet.
    """
    needed = torch.stack([_support(a, count) for a in weightings])        # (weightings, b)
    if (needed.sum(0) <= 1).all():
        wanted = [(rows, [j]) for j, rows in enumerate(needed)]
    else:
        wanted = [(needed.any(0), list(range(len(weightings))))]
    if every_row:
        wanted[-1][0].logical_or_(~needed.any(0))
    return [Part(ALL_ROWS if rows.all() else rows.nonzero().flatten(), which) for rows, which in wanted if rows.any()]


def _support(a: Tensor | None, count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool) if a is None else (a != 0).cpu()
