"""Which ways around the full computation give the same result with this model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from transformers.utils import logging

from .micro_batch import MicroBatch
from .replay import random_numbers_of, random_state, running_statistics_at_rest, same_random_state

logger = logging.get_logger(__name__)

# Rounding, of half precision too, stays below this; samples that see each other differ by far more when half are gone.
TOLERANCE = 1e-2


class Shortcuts:
    """What is known about a model: whether its samples interact, and whether signals of its modules give its gradients.

    Nothing is taken for granted. Batch norm in training mode lets samples interact; whatever else might is found out by
    a trial against the full computation, once for every set of trainable weights. The trials read from the device.

    Args:
        model: the module that is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._rows: bool | None = None        # whether rows may be left out; None: not tried yet
        self._signals: dict[Hashable, bool] = {}        # trainable weights -> whether signals give their gradients
        self._closed: set[nn.Linear] = set()        # classifiers whose output is not yet what the losses are made from

    def may_leave_out_rows(
        self, batch: MicroBatch, losses: Callable[[MicroBatch], Tensor], device: torch.device
    ) -> bool:
        """Whether G may be computed from some of the rows alone, the others having weight zero."""
        if not batch.has_rows or has_batch_statistics(self.model):
            return False
        if self._rows is None and len(batch) > 1:
            self._rows = _same_without_half(self.model, batch, losses, device)
            if not self._rows:
                logger.info("Samples see each other or draw random numbers: every pass computes all rows.")
        return bool(self._rows)

    def random_numbers_were_drawn(self) -> None:
        """A part of a batch cannot draw what the whole batch draws: from now on no row is left out."""
        self._rows = False

    def may_use_signals(self, parameters: Sequence[Tensor]) -> bool | None:
        """Whether gradients may be formed from the signals of the modules; None: it must be tried first."""
        if has_batch_statistics(self.model):
            return False
        return self._signals.get(_key(parameters))

    def signals_were_tried(self, parameters: Sequence[Tensor], same: bool) -> None:
        """Remember whether gradients formed from signals are those of a backward pass."""
        self._signals[_key(parameters)] = same
        if not same:
            logger.info("The modules' signals do not give the gradients: every weighting has its own backward pass.")

    def may_open(self, head: nn.Linear) -> bool:
        """Whether one pass over the trunk may serve classifiers moved by an offset for each class."""
        return head not in self._closed

    def cannot_open(self, head: nn.Linear) -> None:
        self._closed.add(head)


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether a module normalises by the batch, or keeps statistics of whole batches."""
    return any(
        isinstance(m, _BatchNorm) or (isinstance(m, _InstanceNorm) and m.track_running_stats)
        for m in model.modules()
        if m.training
    )


@torch.no_grad()
def _same_without_half(
    model: nn.Module, batch: MicroBatch, losses: Callable[[MicroBatch], Tensor], device: torch.device
) -> bool:
    """Whether every second sample keeps its loss when the others are left out, and no random number is drawn."""
    before = random_state(device)
    with random_numbers_of(before, device), running_statistics_at_rest(model):
        whole = losses(batch)
        if not same_random_state(before, random_state(device)):
            return False
        half = torch.arange(0, len(batch), 2)
        part = losses(batch.rows(half))
    return torch.allclose(part, whole[half.to(whole.device)], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def _key(parameters: Sequence[Tensor]) -> Hashable:
    return tuple(map(id, parameters))
