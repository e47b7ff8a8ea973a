"""Gradients of weighted losses with respect to the trainable weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hf_ltsam.landscape.sharded import are_sharded, harvested, summed_over_processes
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.signals import Signals
from hf_ltsam.landscape.weights import TrainableWeights

TOLERANCE = 1e-2  # of the norm: what rounding does, of half precision too

Gradient: TypeAlias = list[Tensor | None]  # one entry per trainable weight; None where the losses do not depend on it


class GradientTaker:
    """The one place where gradients are taken.

    `torch.autograd.grad` leaves `.grad` alone and fires no hooks of distributed wrappers: several passes are no danger
    to gradients that are already accumulated there. Of sharded weights the gradients are those of all processes.

    Args:
        weights: with respect to which.
        size: n, by which the sum of the weighted losses is divided.
        divisor: by which it is divided once more.
        shortcuts: whether one backward pass may serve several weightings; None: never.
        whole_passes: whether a backward pass must be a whole one, for losses that run others in it.
    """

    def __init__(
        self,
        weights: TrainableWeights,
        size: int,
        divisor: float,
        shortcuts: Shortcuts | None,
        whole_passes: bool = False,
    ) -> None:
        self._weights = weights
        self._size, self._divisor = size, divisor
        self._shortcuts = shortcuts
        self._whole_passes = whole_passes

    def take(self, losses: Callable[[], Tensor], weightings: Sequence[Tensor | None]) -> tuple[Tensor, list[Gradient]]:
        """The losses l_i (b,) of one forward pass, detached, and the gradient of (1/n) sum_i a_i l_i for each a (b,)."""
        if len(weightings) > 1 and self._shortcuts is not None:
            verdict = self._shortcuts.may_use_signals(self._weights.parameters)
            signals = None if verdict is False else self._signals(self._shortcuts, verdict)
            if signals is not None:
                with signals.recorded():
                    values = losses()
                return values.detach(), self._from_signals(signals, self._shortcuts, verdict, values, weightings)
        values = losses()
        return values.detach(), self.backward(values, weightings)

    def backward(self, losses: Tensor, weightings: Sequence[Tensor | None]) -> list[Gradient]:
        """A backward pass for each weighting; it uses up the graph of the losses."""
        weighted = [losses if a is None else a.to(losses, non_blocking=True) * losses for a in weightings]
        gradients: list[Gradient] = []
        for j, of_rows in enumerate(weighted):
            objective, keep = of_rows.sum() / self._size / self._divisor, j + 1 < len(weighted)
            gradients.append(self._differentiate(objective, keep))
        return gradients

    def through(self, features: Tensor, signal: Tensor, losses: Tensor) -> Gradient:
        """Of what has the gradient `signal` with respect to the features, plus (1/n) sum_i l_i; uses up their graph."""
        objective = losses.sum() / self._size / self._divisor
        outputs = [(t, s) for t, s in ((features, signal.to(features)), (objective, None)) if t.requires_grad]
        tensors, signals = [t for t, _ in outputs], [s for _, s in outputs]
        return list(torch.autograd.grad(tensors, self._weights.parameters, signals, allow_unused=True))

    def _differentiate(self, objective: Tensor, keep_graph: bool) -> Gradient:
        parameters = self._weights.parameters
        if are_sharded(parameters):
            return harvested(summed_over_processes(objective), parameters, keep_graph)
        if self._whole_passes:
            return harvested(objective, parameters, keep_graph)
        gradient: Gradient = list(
            torch.autograd.grad(objective, parameters, retain_graph=keep_graph, allow_unused=True)
        )
        return _copied(gradient) if self._weights.in_place else gradient

    def _signals(self, shortcuts: Shortcuts, verdict: bool | None) -> Signals | None:
        """Where the modules that own trainable weights are few, or linear layers."""
        parameters = self._weights.parameters
        signals = Signals(self._weights.model, parameters)
        if verdict or signals.worth_it:
            return signals
        shortcuts.signals_were_tried(parameters, same=False)
        return None

    def _from_signals(
        self,
        signals: Signals,
        shortcuts: Shortcuts,
        verdict: bool | None,
        losses: Tensor,
        weightings: Sequence[Tensor | None],
    ) -> list[Gradient]:
        """One backward pass for all; the first time one for each as well, to see whether they agree."""
        formed = signals.gradients(losses / self._size / self._divisor, weightings, first=verdict is None)
        if formed is not None and verdict:
            return formed
        taken = self.backward(losses, weightings)
        same = formed is not None and nearly_equal(formed, taken)
        if bool(losses.isfinite().all()) and _finite(taken):  # half precision may overflow on the way back only
            shortcuts.signals_were_tried(self._weights.parameters, same)
        # a resumed training tries on another step than an uninterrupted one, and both must go on alike to the last bit
        return formed if formed is not None and same else taken


def _copied(gradient: Gradient) -> Gradient:
    """In memory of its own."""
    copies = [None if g is None else torch.empty_like(g) for g in gradient]
    torch._foreach_copy_([c for c in copies if c is not None], [g for g in gradient if g is not None])
    return copies


def _finite(gradients: Sequence[Gradient]) -> bool:
    norms = [torch.linalg.vector_norm(g) for gradient in gradients for g in gradient if g is not None]
    return bool(torch.stack(norms).isfinite().all()) if norms else True


def nearly_equal(formed: Sequence[Gradient], taken: Sequence[Gradient]) -> bool:
    """Whether two ways of computing gradients agree up to rounding."""
    pairs = [(a, b) for ours, theirs in zip(formed, taken, strict=True) for a, b in zip(ours, theirs, strict=True)]
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    error = torch.stack([torch.linalg.vector_norm(a - b, dtype=torch.float64) for a, b in both]).norm()
    size = torch.stack([torch.linalg.vector_norm(b, dtype=torch.float64) for _, b in both]).norm()
    return bool(error <= TOLERANCE * size)
