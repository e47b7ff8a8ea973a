"""What a second pass over the same micro-batch must not change: running statistics, power iterations, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from hf_ltsam.models.spectral_norm import power_iterations_at_rest

RandomState: TypeAlias = tuple[Tensor, Tensor | None]  # of the CPU and of the accelerator


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


def random_state(device: torch.device) -> RandomState:
    """The state of torch's generators that a forward pass on `device` may draw from."""
    if device.type == "cpu":
        return torch.get_rng_state(), None
    if device.type == "mps":
        return torch.get_rng_state(), torch.mps.get_rng_state()
    return torch.get_rng_state(), torch.get_device_module(device).get_rng_state(device)


def set_random_state(state: RandomState, device: torch.device) -> None:
    on_cpu, on_device = state
    torch.set_rng_state(on_cpu)
    if on_device is None:
        return
    if device.type == "mps":
        torch.mps.set_rng_state(on_device)
    else:
        torch.get_device_module(device).set_rng_state(on_device, device)


def same_random_state(a: RandomState, b: RandomState) -> bool:
    """Whether no random number was drawn in between. The states lie on the host."""
    return all(x is y or (x is not None and y is not None and torch.equal(x, y)) for x, y in zip(a, b))


@contextmanager
def random_numbers_of(state: RandomState, device: torch.device) -> Iterator[None]:
    """Draw again what was drawn from `state`: the same dropout mask. Afterwards the generators are as before."""
    current = random_state(device)
    try:
        set_random_state(state, device)
        yield
    finally:
        set_random_state(current, device)
