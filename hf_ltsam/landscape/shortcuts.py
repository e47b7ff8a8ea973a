"""Which ways around the full computation give the same result with this model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from transformers.utils import logging

from hf_ltsam.data.random_states import (
    random_numbers_of,
    random_numbers_of_host,
    random_state,
    same_random_state,
    same_state_of_host,
    state_of_host,
)
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.landscape.repeated_pass import free_buffers_at_rest, running_statistics_at_rest
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.landscape.weights import TrainableWeights

logger = logging.get_logger(__name__)

# Of the spread of the values: what rounding does to a sample when others are left out. In doubt all is computed.
TOLERANCE = 1e-3


class Shortcuts:
    """What is known about a model: whether its samples interact, and whether signals of its modules give its gradients.

    Nothing is taken for granted. Batch norm in training mode lets samples interact; whatever else might is found out by
    a trial against the full computation, once for every set of trainable weights. The trials read from the device.

    Args:
        model: the module that is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._rows: dict[Hashable, bool] = {}  # trainable weights -> whether rows may be left out
        self._signals: dict[Hashable, bool] = {}  # trainable weights -> whether signals give their gradients
        self._heads: dict[nn.Module, bool] = {}  # classifier -> whether the losses are made from what it gives
        self._drawing = False  # whether passes draw random numbers

    def may_leave_out_rows(
        self, weights: TrainableWeights, batch: MicroBatch, losses: Callable[[MicroBatch], Tensor]
    ) -> bool:
        """Whether G may be computed from some of the rows alone, the others having weight zero."""
        if len(batch) < 2 or not batch.has_rows or self._drawing or has_batch_statistics(self.model):
            return False
        key = _key(weights.parameters)
        if key not in self._rows:
            verdict = _same_without_half(weights, batch, losses)
            if verdict is None:
                return False
            self._rows[key] = verdict
            if not verdict:
                logger.info("Samples see each other or draw random numbers: every pass computes all rows.")
        return self._rows[key]

    def random_numbers_were_drawn(self) -> None:
        """A part of a batch cannot draw what the whole batch draws: from now on no row is left out."""
        self._drawing = True

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

    def may_open(self, head: nn.Module) -> bool | None:
        """Whether one pass over the trunk may serve classifiers moved by an offset for each class; None: not known yet."""
        return self._heads.get(head)

    def opening_was_tried(self, head: nn.Module, possible: bool) -> None:
        self._heads[head] = possible


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether a module normalises by the batch, or keeps statistics of whole batches."""
    return any(
        (isinstance(m, _BatchNorm) and (m.training or m.running_mean is None))
        or (isinstance(m, _InstanceNorm) and m.training and m.track_running_stats)
        for m in model.modules()
    )


def tell_of_full_passes(head: nn.Module, not_tried: bool) -> None:
    """Warn once of what the classes of a mini-batch cost where one pass cannot serve them all.

    Args:
        not_tried: whether every pass is made in full whatever the model is.
    """
    reason = (
        "exact_rows=False, torch_compile and sharded weights rule that out."
        if not_tried
        else "that takes logits which are just what a linear or cosine layer gives, called once, without hooks and with all "
        f"of its weights trained, and this {type(head).__name__} is another case."
    )
    logger.warning_once(
        "Each class of a mini-batch takes passes of its own over the whole model (CC-SAM: 2 C_b forwards and backwards for "
        f"its C_b classes), not one for all: {reason}"
    )


def _same_without_half(
    weights: TrainableWeights, batch: MicroBatch, losses: Callable[[MicroBatch], Tensor]
) -> bool | None:
    """Whether every sample keeps its loss when every second one is left out, and no random number is drawn.

    None: losses that are not finite, or are all the same, tell nothing.
    """
    device = weights.parameters[0].device
    before, of_host = random_state(device), state_of_host()
    with trial(weights), torch.no_grad():
        with torch.enable_grad():  # as in training: a loss may draw its random numbers only then
            whole = losses(batch).detach()
        if not same_random_state(before, random_state(device)) or not same_state_of_host(of_host, state_of_host()):
            return False
        spread = whole.max() - whole.min()
        if not bool(whole.isfinite().all()) or not bool(spread > 0):
            return None
        try:
            halves = [(rows, losses(batch.rows(rows))) for rows in (torch.arange(k, len(batch), 2) for k in (0, 1))]
        except (RuntimeError, ValueError):  # a model for batches of one size
            return False
        return all(bool(((whole[rows.to(device)] - part).abs() <= TOLERANCE * spread).all()) for rows, part in halves)


@contextmanager
def trial(weights: TrainableWeights) -> Iterator[None]:
    """Around passes that leave no trace, at weights moved a little at random.

    A branch that starts at zero would hide what it does.
    """
    device = weights.parameters[0].device
    with (
        weights.moved(None if weights.are_moved else _noise(weights)),
        random_numbers_of(random_state(device), device),
        random_numbers_of_host(state_of_host()),
        running_statistics_at_rest(weights.model),
        free_buffers_at_rest(weights.model),
    ):
        yield


def _noise(weights: TrainableWeights) -> WeightVector:
    """Signs drawn at random, of a size that moves what a layer gives by some tenths; the generators stay as they are."""
    generator = torch.Generator(device=weights.parameters[0].device).manual_seed(0)
    xi = weights.vector.normal_like(generator)
    sizes = [0.1 * (w.square().mean().sqrt() + _fan_in(w) ** -0.5) for w in weights.vector.tensors]
    return WeightVector([size * x.sign() for size, x in zip(sizes, xi.tensors)])


def _fan_in(weight: Tensor) -> int:
    """How many products are summed for one number that a layer gives."""
    return max(weight[0].numel(), 1) if weight.ndim > 1 else 1


def _key(parameters: Sequence[Tensor]) -> Hashable:
    return tuple(map(id, parameters))
