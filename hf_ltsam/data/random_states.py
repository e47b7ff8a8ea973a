"""States of random number generators: of torch on host and accelerator, of numpy and Python, and of those objects hold."""

from __future__ import annotations

import random
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

RandomState: TypeAlias = tuple[Tensor, Tensor | None]  # of torch, on the CPU and on the accelerator
HostState: TypeAlias = tuple[dict[str, Any], Any]  # of numpy's global generator and of Python's

_LOOKED_AT = 2000  # objects that are searched for generators, and entries of one collection
_ENTRIES = 100


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


def state_of_host() -> HostState:
    of_numpy: Any = np.random.get_state(legacy=False)
    return of_numpy, random.getstate()


def set_state_of_host(state: HostState) -> None:
    np.random.set_state(state[0])
    random.setstate(state[1])


@contextmanager
def random_numbers_of_host(state: HostState) -> Iterator[None]:
    """Draw again from numpy and Python what was drawn from `state`. Afterwards the generators are as before."""
    current = state_of_host()
    try:
        set_state_of_host(state)
        yield
    finally:
        set_state_of_host(current)


def same_state_of_host(a: HostState, b: HostState) -> bool:
    numpys = [(s["state"]["pos"], s["has_gauss"], s["gauss"]) for s in (a[0], b[0])]
    same_key = np.array_equal(a[0]["state"]["key"], b[0]["state"]["key"])
    return a[1] == b[1] and numpys[0] == numpys[1] and same_key


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Seed the three global CPU generators, and restore them at the end."""
    of_torch, of_host = torch.default_generator.get_state(), state_of_host()
    torch.default_generator.manual_seed(key)  # torch.manual_seed would seed CUDA's generators too
    np.random.seed(key >> 32)  # numpy takes 32 bits; torch uses the lower ones
    random.seed(key)
    try:
        yield
    finally:
        torch.default_generator.set_state(of_torch)
        set_state_of_host(of_host)


@contextmanager
def undisturbed(*owners: Any, device: torch.device | None = None) -> Iterator[None]:
    """What is drawn in the `with` block changes nothing that is drawn after it.

    Args:
        owners: whose own generators are put back too, as far as they are found: attributes, closures, global names.
        device: whose generator may be drawn from; None: that of CUDA where it is in use, and the host's.
    """
    generators = list(_generators_of(owners))
    states = [_state(generator) for generator in generators]
    if device is None:
        in_use = torch.cuda.is_initialized()
        device = torch.device("cuda", torch.cuda.current_device()) if in_use else torch.device("cpu")
    try:
        with seeded(0), random_numbers_of(random_state(device), device):
            yield
    finally:
        for generator, state in zip(generators, states):
            _restore(generator, state)


def _state(generator: Any) -> Any:
    match generator:
        case torch.Generator() | np.random.RandomState():
            return generator.get_state()
        case np.random.Generator():
            return generator.bit_generator.state
    return generator.getstate()


def _restore(generator: Any, state: Any) -> None:
    match generator:
        case torch.Generator() | np.random.RandomState():
            generator.set_state(state)
        case np.random.Generator():
            generator.bit_generator.state = state
        case _:
            generator.setstate(state)


def _generators_of(owners: Iterable[Any]) -> Iterator[Any]:
    """The generators that objects hold, each once; of large collections the first entries are looked at."""
    waiting, seen = list(owners), set[int]()
    while waiting and len(seen) < _LOOKED_AT:
        candidate = waiting.pop(0)
        if id(candidate) in seen:
            continue
        seen.add(id(candidate))
        if isinstance(candidate, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
            yield candidate
        else:
            waiting += _parts_of(candidate)


def _parts_of(candidate: Any) -> list[Any]:
    match candidate:
        case types.ModuleType() | type() | str() | bytes() | torch.Tensor() | np.ndarray():
            return []
        case types.FunctionType():
            cells = [cell.cell_contents for cell in candidate.__closure__ or () if cell != types.CellType()]
            names = [candidate.__globals__.get(name) for name in candidate.__code__.co_names]
            return [*cells, *names, *(candidate.__defaults__ or ())]
        case types.MethodType():
            return [candidate.__self__, candidate.__func__]
        case partial():
            return [candidate.func, *candidate.args, *candidate.keywords.values()]
        case dict():
            return list(islice(candidate.values(), _ENTRIES))
        case list() | tuple() | set():
            return list(islice(candidate, _ENTRIES))
    methods = (getattr(type(candidate), name, None) for name in ("__getitem__", "__getitems__", "__call__"))
    return [*getattr(candidate, "__dict__", {}).values(), *filter(_is_function, methods)]


def _is_function(value: Any) -> bool:
    return isinstance(value, types.FunctionType)
