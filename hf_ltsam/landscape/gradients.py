"""Gradients of weighted losses with respect to the trainable weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hf_ltsam.landscape.sharded import are_sharded, harvested, summed_over_processes
from hf_ltsam.landscape.shortcuts import Shortcuts, trial
from hf_ltsam.landscape.signals import Signals
from hf_ltsam.landscape.weights import TrainableWeights

TOLERANCE, IN_HALF = 1e-3, 1e-2  # of the norm: what rounding does, TF32's too, and that of half precision

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
        if len(weightings) < 2 or not self._signals_serve(losses):
            values = losses()
            return values.detach(), self.backward(values, weightings)
        signals = Signals(self._weights.model, self._weights.parameters)
        with signals.recorded():
            values = losses()
        formed = signals.gradients(values / self._size / self._divisor, weightings)
        return values.detach(), self.backward(values, weightings) if formed is None else formed

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

    def _signals_serve(self, losses: Callable[[], Tensor]) -> bool:
        """Whether one backward pass serves several weightings, which is tried once for every set of trained weights."""
        if self._shortcuts is None:
            return False
        verdict = self._shortcuts.may_use_signals(self._weights.parameters)
        if verdict is None:
            verdict = self._try_signals(losses)
            if verdict is not None:
                self._shortcuts.signals_were_tried(self._weights.parameters, verdict)
        return bool(verdict)

    def _try_signals(self, losses: Callable[[], Tensor]) -> bool | None:
        """Whether they give the gradient of a backward pass, each sample with a weight of its own.

        Tried where the modules that own trained weights are few, or linear layers. None: one sample tells nothing, nor do
        gradients that are not finite.
        """
        signals = Signals(self._weights.model, self._weights.parameters)
        if not signals.worth_it:
            return False
        with trial(self._weights):
            with signals.recorded():
                values = losses()
            if len(values) < 2:
                return None
            ramp = torch.arange(1, len(values) + 1, device=values.device) / len(values)
            formed = signals.gradients(values / self._size / self._divisor, [ramp], first=True)
            if formed is None:
                return False
            taken = self.backward(values, [ramp])
        if not bool(values.isfinite().all()) or not _finite(taken):
            return None
        return nearly_equal(formed, taken, IN_HALF if signals.in_half else TOLERANCE)


def _copied(gradient: Gradient) -> Gradient:
    """In memory of its own."""
    copies = [None if g is None else torch.empty_like(g) for g in gradient]
    torch._foreach_copy_([c for c in copies if c is not None], [g for g in gradient if g is not None])
    return copies


def _finite(gradients: Sequence[Gradient]) -> bool:
    norms = [torch.linalg.vector_norm(g) for gradient in gradients for g in gradient if g is not None]
    return bool(torch.stack(norms).isfinite().all()) if norms else True


def nearly_equal(formed: Sequence[Gradient], taken: Sequence[Gradient], tolerance: float) -> bool:
    """Whether two ways of computing gradients agree up to rounding."""
    pairs = [(a, b) for ours, theirs in zip(formed, taken, strict=True) for a, b in zip(ours, theirs, strict=True)]
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    error = torch.stack([torch.linalg.vector_norm(a - b, dtype=torch.float64) for a, b in both]).norm()
    size = torch.stack([torch.linalg.vector_norm(b, dtype=torch.float64) for _, b in both]).norm()
    return bool(error <= tolerance * size)
