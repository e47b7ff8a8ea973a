"""G(a, eps), the one quantity from which every method is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .classifier import classifier_of
from .replay import RandomState, random_numbers_of, random_state, running_statistics_at_rest
from .vector import WeightVector
from .weights import TrainableWeights


@dataclass(frozen=True)
class MicroBatch:
    """What the model sees at once.

    Args:
        inputs: the keyword arguments of the model, without the labels.
        labels: class indices (b,).
    """

    inputs: dict[str, Any]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: slice) -> MicroBatch:
        """Some of its samples.

        Raises:
            ValueError: an input does not hold one entry per sample.
        """
        return MicroBatch({name: self._cut(name, value, rows) for name, value in self.inputs.items()}, self.labels[rows])

    def _cut(self, name: str, value: Any, rows: slice) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value        # a setting, the same for every sample
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(self):
            return value[rows]
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"The model's input {name!r} is {found} and cannot be dealt out to parts of a batch of {len(self)} samples: "
            "tensors with one row per sample can. Leave it out, or use a method that does not cut the batch."
        )


class PassObserver(Protocol):
    """Told of every perturbed pass; see `telemetry.py`."""

    def perturbed_pass(self, offset: WeightVector, gradient: WeightVector, gap: Tensor | None) -> None: ...


class LossLandscape:
    """The loss of one mini-batch as a function of the weights: G(a, eps) = grad_w (1/n) sum_i a_i l_i(w + eps).

    The mini-batch is a list of micro-batches, together n samples. The first pass over a micro-batch draws random
    numbers and moves batch norm's running statistics, as one ordinary training step does; every later pass draws the
    same random numbers again (the same dropout mask) and moves nothing.

    Args:
        weights: the trainable weights w.
        batches: the micro-batches; the weightings below run over their samples in this order.
        sample_losses: micro-batch -> losses l_i (b,), differentiable in the weights.
        loss_divisor: the loss is divided by this before every backward pass (gradient accumulation), and the result
            is G all the same: the divisor stays in the vector's lazy scalar.
        observer: told of perturbed passes.
        size: what G divides by where these samples are only a part of the mini-batch; None is their number n.
    """

    def __init__(
        self,
        weights: TrainableWeights,
        batches: Sequence[MicroBatch],
        sample_losses: Callable[[MicroBatch], Tensor],
        loss_divisor: float = 1,
        observer: PassObserver | None = None,
        size: int | None = None,
    ) -> None:
        self._weights = weights
        self._batches = list(batches)
        self.size = sum(len(batch) for batch in self._batches) if size is None else size        # n
        self._sample_losses = sample_losses
        self._divisor = loss_divisor
        self._observer = observer
        self._shards: list[LossLandscape] = []
        self._device = weights.parameters[0].device
        self._random: dict[int, RandomState] = {}        # micro-batch -> state before its first pass
        self._first_losses: dict[int, Tensor] = {}       # micro-batch -> l_i of its first pass (b,)
        self._plain_losses: dict[int, Tensor] = {}       # micro-batch -> l_i(w) (b,), where a pass at w was made
        self.reached = [False] * len(weights.parameters)        # whether any pass gave the parameter a gradient

    @property
    def weights(self) -> WeightVector:
        """w itself, for methods whose perturbation depends on the weights."""
        return self._weights.vector

    @property
    def mean_loss(self) -> Tensor:
        """(1/n) sum_i l_i of the first pass over each micro-batch: a 0-dimensional tensor.

        Raises:
            RuntimeError: no pass has been made.
        """
        return torch.cat(self._first_losses_in_order()).mean()

    def classifier(self, num_classes: int) -> list[bool]:
        """For each trainable parameter, whether it belongs to the classifier (see `classifier.py`)."""
        return self._weights.of_module(classifier_of(self._weights.model, num_classes))

    def shards(self, count: int) -> list[LossLandscape]:
        """The mini-batch dealt out in order to at most `count` landscapes, whose G(1, 0) add up to G(1, 0) of the whole.

        Each shard passes through the model on its own: batch norm normalises by the shard, and its running statistics
        move once per shard.
        """
        self._shards = [self._shard(rows) for rows in torch.arange(self.size).tensor_split(count) if len(rows)]
        return self._shards

    def _shard(self, samples: Tensor) -> LossLandscape:
        first, last = int(samples[0]), int(samples[-1])
        overlaps = [(i, max(first - r.start, 0), min(last + 1, r.stop) - r.start) for i, r in self._rows()]
        pieces = [self._batches[i].rows(slice(start, stop)) for i, start, stop in overlaps if start < stop]
        shard = LossLandscape(self._weights, pieces, self._sample_losses, self._divisor, self._observer, self.size)
        shard.reached = self.reached
        return shard

    def _first_losses_in_order(self) -> list[Tensor]:
        """l_i of every micro-batch's first pass, or of every shard's where the mini-batch was dealt out."""
        if self._shards and not self._first_losses:
            return [losses for shard in self._shards for losses in shard._first_losses_in_order()]
        if len(self._first_losses) < len(self._batches):
            raise RuntimeError("There is no loss yet: no pass over the whole mini-batch has been made.")
        return [self._first_losses[i] for i in range(len(self._batches))]

    def gradient(self, weighting: Tensor | None = None, at: WeightVector | None = None) -> WeightVector:
        """G(weighting, at).

        Args:
            weighting: a (n,); None is all ones.
            at: eps; None is zero.
        """
        return self.gradients([weighting], at)[0]

    def gradients(self, weightings: Sequence[Tensor | None], at: WeightVector | None = None) -> list[WeightVector]:
        """G(a, at) for several weightings a (n,) of the same losses, from one forward pass."""
        sums: list[list[Tensor]] = []
        gap: list[Tensor] = []
        with self._weights.moved(at):
            for index, rows in self._rows():
                with self._repeating(index):        # the backward pass too: activation checkpointing repeats forwards in it
                    losses = self._losses(index, perturbed=at is not None)
                    weighted = [losses if a is None else a[rows].to(losses.dtype) * losses for a in weightings]
                    gradients = self._collect([w.sum() / self.size / self._divisor for w in weighted])
                gap += self._gap(index, losses.detach(), weightings[0], rows) if at is not None else []
                sums = [list(torch._foreach_add(s, g)) for s, g in zip(sums, gradients)] if sums else gradients
        vectors = [WeightVector(s, self._divisor) for s in sums]
        if at is not None and self._observer is not None:
            total_gap = torch.stack(gap).sum() if len(gap) == len(self._batches) else None
            self._observer.perturbed_pass(at, vectors[0], total_gap)
        return vectors

    def _rows(self) -> Iterator[tuple[int, slice]]:
        """Each micro-batch's index and its rows among the n samples."""
        start = 0
        for index, batch in enumerate(self._batches):
            yield index, slice(start, start + len(batch))
            start += len(batch)

    def _losses(self, index: int, perturbed: bool) -> Tensor:
        losses = self._sample_losses(self._batches[index])
        self._first_losses.setdefault(index, losses.detach())
        if not perturbed:
            self._plain_losses[index] = losses.detach()
        return losses

    @contextmanager
    def _repeating(self, index: int) -> Iterator[None]:
        if index not in self._random:
            self._random[index] = random_state(self._device)
            yield
            return
        with random_numbers_of(self._random[index], self._device), running_statistics_at_rest(self._weights.model):
            yield

    def _collect(self, objectives: Sequence[Tensor]) -> list[list[Tensor]]:
        """The gradient of each objective with respect to every trainable weight; zeros where it does not depend on it.

        The one place where gradients are taken. `torch.autograd.grad` leaves `.grad` alone and fires no hooks of
        distributed wrappers: several passes are no danger to gradients that are already accumulated there.
        """
        parameters = self._weights.parameters
        collected = []
        for j, objective in enumerate(objectives):
            keep = j + 1 < len(objectives)
            gradients = torch.autograd.grad(objective, parameters, retain_graph=keep, allow_unused=True)
            self.reached[:] = [r or g is not None for r, g in zip(self.reached, gradients)]        # shards share the list
            collected.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients)])
        return collected

    def _gap(self, index: int, losses: Tensor, weighting: Tensor | None, rows: slice) -> list[Tensor]:
        """This micro-batch's part of (1/n) sum_i a_i (l_i(w + eps) - l_i(w)); nothing where l_i(w) is not known."""
        if index not in self._plain_losses:
            return []
        difference = losses - self._plain_losses[index]
        return [(difference if weighting is None else weighting[rows].to(losses.dtype) * difference).sum() / self.size]
