"""Forward and backward passes over one micro-batch, first and repeated: over all of its rows, or those that are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_ltsam.data.random_states import HostState, RandomState, random_numbers_of, random_state, same_random_state
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.landscape.gradients import Gradient, GradientTaker
from hf_ltsam.landscape.repeated_pass import Buffers, running_statistics_at_rest
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights

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
    needed = torch.stack([_support(a, count) for a in weightings])  # (weightings, b)
    if (needed.sum(0) <= 1).all():
        wanted = [(rows, [j]) for j, rows in enumerate(needed)]
    else:
        wanted = [(needed.any(0), list(range(len(weightings))))]
    if every_row:
        wanted[-1][0].logical_or_(~needed.any(0))
    return [Part(ALL_ROWS if rows.all() else rows.nonzero().flatten(), which) for rows, which in wanted if rows.any()]


def _support(a: Tensor | None, count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool) if a is None else (a != 0).cpu()


class Passes:
    """All passes that one step makes over a micro-batch.

    The first one draws random numbers and moves running statistics as an ordinary training step does; the others draw
    the same random numbers again and move nothing. The first one leaves out no row.

    Args:
        weights: of the model, whose running statistics are kept at rest.
        batch: b samples.
        losses: batch or a part of it -> l_i, differentiable.
        taker: of gradients.
        shortcuts: whether rows of weight zero may be left out; None: never.
    """

    def __init__(
        self,
        weights: TrainableWeights,
        batch: MicroBatch,
        losses: Callable[[MicroBatch], Tensor],
        taker: GradientTaker,
        shortcuts: Shortcuts | None,
    ) -> None:
        self.batch = batch
        self.first_losses: Tensor | None = None  # of the first pass (b,)
        self.plain_losses: Tensor | None = None  # the same, if it was at w
        self._weights = weights
        self._losses = losses
        self._taker = taker
        self._device = weights.parameters[0].device
        self._shortcuts = shortcuts
        self._random: dict[object, tuple[RandomState, HostState | None]] = {}  # part -> states before its first pass
        self._buffers: Buffers = {}  # before the first pass, as far as it may move them
        self._drew = False  # whether that pass drew random numbers

    def gradients(
        self, weightings: Sequence[Tensor | None], perturbed: bool
    ) -> tuple[list[list[Gradient]], Tensor | None]:
        """For each weighting a (b,) the gradients that add up to that of (1/n) sum_i a_i l_i, and the sharpness gaps.

        The gaps (b,) are a_i (l_i(w + eps) - l_i(w)) for the first weighting; None at w, and where l_i(w) is not known.
        """
        parts = self._parts(weightings)
        gradients: list[list[Gradient]] = [[] for _ in weightings]
        losses: list[Tensor] = []
        for part in parts:
            losses_of_part, gradients_of_part = self._pass(part, weightings)
            losses.append(losses_of_part)
            for j, gradient in zip(part.weightings, gradients_of_part):
                gradients[j].append(gradient)
        if self.first_losses is None:
            self.first_pass_gave(_in_order(parts, losses), perturbed)
        plain = self.plain_losses
        gaps = _gaps(parts, losses, plain, weightings[0]) if perturbed and plain is not None else None
        return gradients, gaps

    @torch.no_grad()
    def losses(self) -> Tensor:
        """l_i (b,) of one more forward pass over all rows, at the weights as they are."""
        with self.repeating(Part(ALL_ROWS, [])):
            return self._losses(self.batch)

    def _pass(self, part: Part, weightings: Sequence[Tensor | None]) -> tuple[Tensor, list[Gradient]]:
        """Losses of some rows, and their gradient for each weighting that the part serves."""
        batch, of_rows = part.of_batch(self.batch), [part.of_weighting(weightings[j]) for j in part.weightings]
        with self.repeating(part):  # the backward pass too: activation checkpointing repeats forwards in it
            return self._taker.take(lambda: self._losses(batch), of_rows)

    def first_pass_gave(self, losses: Tensor, perturbed: bool) -> None:
        self.first_losses = losses
        self.plain_losses = None if perturbed else losses

    @contextmanager
    def repeating(self, part: Part) -> Iterator[None]:
        """A part's first pass draws random numbers, later ones draw them again; the first part alone moves statistics."""
        first_of_all, first = not self._random, part.key not in self._random
        moves = self._weights.other_moves
        with ExitStack() as repeating:
            if first_of_all:
                self._buffers = repeating.enter_context(moves.noticed())
            states = (random_state(self._device), moves.state_of_host()) if first else self._random[part.key]
            self._random[part.key] = states
            if not first_of_all:
                repeating.enter_context(running_statistics_at_rest(self._weights.model))
                repeating.enter_context(moves.repeated(self._buffers, None if first else states[1]))
            if not first:
                repeating.enter_context(random_numbers_of(states[0], self._device))
            yield
        if first:
            self._note_drawing(*states)

    def _note_drawing(self, state: RandomState, of_host: HostState | None) -> None:
        drew = self._weights.other_moves.have_drawn(of_host)  # also without shortcuts
        if self._shortcuts is not None and (drew or not same_random_state(state, random_state(self._device))):
            self._drew = True
            self._shortcuts.random_numbers_were_drawn()

    def _parts(self, weightings: Sequence[Tensor | None]) -> list[Part]:
        """Which rows the passes are made over, and for which weightings."""
        if self._weights.in_place:  # a replayed backward pass writes over what it has read: one for each forward pass
            return [Part(ALL_ROWS, [j]) for j in range(len(weightings))]
        whole = [Part(ALL_ROWS, range(len(weightings)))]
        if self._shortcuts is None or all(a is None for a in weightings):
            return whole
        if not self._drew and not self._shortcuts.may_leave_out_rows(self._weights, self.batch, self._losses):
            return whole
        parts = parts_of(weightings, len(self.batch), every_row=self.first_losses is None)
        # where random numbers were drawn, only what was passed before can draw the same again
        return whole if self._drew and any(part.key not in self._random for part in parts) else parts


def _gaps(parts: Sequence[Part], losses: Sequence[Tensor], plain: Tensor, weighting: Tensor | None) -> Tensor:
    """a_i (l_i(w + eps) - l_i(w)) (b,), zero for the rows that were not passed: their weight is."""
    gaps = torch.zeros_like(plain)
    for part, perturbed in zip(parts, losses):
        difference, a = perturbed - part.of(plain), part.of_weighting(weighting)
        difference = difference if a is None else a.to(plain) * difference
        if part.rows is None:
            return difference
        gaps[part.rows.to(plain.device, non_blocking=True)] = difference
    return gaps


def _in_order(parts: Sequence[Part], losses: Sequence[Tensor]) -> Tensor:
    """The losses of all rows, from those of the parts that they were computed in."""
    if parts[0].rows is None:
        return losses[0]
    order = torch.cat([part.rows for part in parts if part.rows is not None]).argsort()
    return torch.cat(list(losses))[order.to(losses[0].device)]
