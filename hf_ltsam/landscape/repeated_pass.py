"""What a second pass over a micro-batch must not change: running statistics, and what a model's own code moves in a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm

from hf_ltsam.data.random_states import HostState, random_numbers_of_host, same_state_of_host, state_of_host
from hf_ltsam.models.spectral_norm import power_iterations_at_rest

Buffers: TypeAlias = dict[tuple[nn.Module, str], Tensor]  # (module, name) -> values

FIRST = 3  # passes of a training in which generators are looked at and buffers kept
EVERY = 50  # and one of so many afterwards: numpy takes 0.1 ms to give and take its state
PACKED = 1_000_000  # whole numbers in a buffer: more are the weights of a quantized model

# What `running_statistics_at_rest` holds still: kinds of modules -> their buffers
_HELD_STILL = {
    (_BatchNorm, _InstanceNorm): {"running_mean", "running_var", "num_batches_tracked"},
    (_SpectralNorm,): {"_u", "_v"},
}


@contextmanager
def running_statistics_at_rest(model: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of the batch, as in training, and leave the running ones alone.

    The singular vectors of spectral normalisation rest too: a perturbed pass divides the perturbed weight by
    sigma = u^T (W + eps) v with the u and v of the first pass.
    """
    moving = [m for m in model.modules() if isinstance(m, _BatchNorm | _InstanceNorm) and m.training]
    settings = [(m, m.track_running_stats, m.momentum) for m in moving if m.track_running_stats]
    try:
        for module, _, _ in settings:
            if isinstance(module, _BatchNorm):
                module.track_running_stats = False
            else:
                module.momentum = 0.0  # instance norm moves its running statistics whatever that flag says
        with power_iterations_at_rest(model):
            yield
    finally:
        for module, tracks, momentum in settings:
            module.track_running_stats, module.momentum = tracks, momentum


class OtherMoves:
    """Later passes start where the first one over their micro-batch did, and leave all as that has left it.

    A model shows in its passes what it moves; in the first of a training all buffers of ordinary size are kept. One that
    moves later than that is found then, and later passes of that step start where the first one has left it. Models that
    move nothing, nearly all, pay for looking and those copies alone. Attributes that are no buffers, frozen weights, and
    generators that a model keeps for itself, are not found.

    Args:
        model: the module that is trained.
        in_place: whether buffers must stay in their memory; nothing is moved then but what graphs of passes allow.
    """

    def __init__(self, model: nn.Module, in_place: bool = False) -> None:
        self._model, self._in_place = model, in_place
        self._passes = 0  # that were the first of their micro-batch, and have ended
        self._draws = False  # whether one drew from the generators
        self._watched: list[tuple[nn.Module, str]] = []  # buffers that might move
        self._moved: set[tuple[nn.Module, str]] = set()  # buffers that a pass moved

    @property
    def _looks(self) -> bool:
        return self._draws or self._passes < FIRST or (self._passes + 1) % EVERY == 0

    @contextmanager
    def noticed(self) -> Iterator[Buffers]:
        """Around the first pass over a micro-batch: buffers as they were before it, of those that move or still may."""
        if self._looks and not self._in_place:
            self._watched = free_buffers(self._model)
        there = [(m, name, m._buffers.get(name)) for m, name in self._watched]
        before = [(m, name, t, t._version) for m, name, t in there if t is not None]
        try:
            may_move = self._passes < FIRST
            yield cloned(
                {
                    (m, name): t
                    for m, name, t, _ in before
                    if (m, name) in self._moved or (may_move and not is_packed(t))
                }
            )
        finally:  # of a pass that failed, too
            self._moved |= {
                (m, name) for m, name, t, version in before if m._buffers.get(name) is not t or t._version != version
            }
        self._passes += 1

    def state_of_host(self) -> HostState | None:
        """Of the generators before a pass; None: this pass is not looked at."""
        return state_of_host() if self._looks else None

    def have_drawn(self, before: HostState | None) -> bool:
        """Whether a pass that began in this state has drawn from the generators, which is remembered."""
        drew = before is not None and not same_state_of_host(before, state_of_host())
        self._draws |= drew
        return drew

    @contextmanager
    def repeated(self, buffers: Buffers, host: HostState | None) -> Iterator[None]:
        """Around a later pass.

        Args:
            buffers: as `noticed` gave them.
            host: the generators before the pass that is repeated; None: it was not looked at, or nothing is repeated.
        """
        again = random_numbers_of_host(host) if host is not None and self._draws else nullcontext()
        there = {(m, name): m._buffers.get(name) for m, name in self._moved}
        starts = {place: buffers.get(place, t) for place, t in there.items() if t is not None}
        with again, in_their_place(starts):
            yield


def free_buffers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The buffers of a model that no mode holds still, by module and name."""
    return [
        (m, name)
        for m in model.modules()
        for name, t in m._buffers.items()
        if t is not None and not any(isinstance(m, kinds) and name in names for kinds, names in _HELD_STILL.items())
    ]


def cloned(buffers: Buffers) -> Buffers:
    """Copies; one that several modules share stays one."""
    copies = {id(t): t.clone() for t in buffers.values()}
    return {place: copies[id(t)] for place, t in buffers.items()}


@contextmanager
def in_their_place(buffers: Buffers) -> Iterator[None]:
    """A model works on copies of these values; its own buffers come back untouched."""
    own = {(module, name): module._buffers[name] for module, name in buffers}
    try:
        for (module, name), values in cloned(buffers).items():
            module._buffers[name] = values
        yield
    finally:
        for (module, name), tensor in own.items():
            module._buffers[name] = tensor


def free_buffers_at_rest(model: nn.Module) -> AbstractContextManager[None]:
    """Around passes that are no part of a training step: buffers that no mode holds still stay as they are."""
    there: Buffers = {(m, name): m._buffers[name] for m, name in free_buffers(model)}  # type: ignore[misc]
    return in_their_place({place: t for place, t in there.items() if not is_packed(t)})


def is_packed(buffer: Tensor) -> bool:
    """Whether these may be the weights of a quantized model."""
    return not buffer.is_floating_point() and buffer.numel() > PACKED
