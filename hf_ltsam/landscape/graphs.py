"""Passes through a model as CUDA graphs: captured once for each kind of batch, then replayed without Python."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from hf_ltsam.data.random_states import random_state, set_random_state, state_of_host
from hf_ltsam.landscape.repeated_pass import free_buffers
from hf_ltsam.models.logits import logits_of

MOST_GRAPHS = 16  # each holds the activations of a batch
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class GraphedPasses:
    """Called as the model is, with a batch as keywords; gives {"logits": (b, C)}, which hold until its next call.

    A kind of batch is the names, shapes and types of its tensors and the state of the modules: a first pass moves running
    statistics, a repeated one does not. When a kind is first seen, the model is called as usual, which warms libraries up;
    when it comes again, it is captured. Kinds beyond `MOST_GRAPHS` and passes without gradients stay as usual. Weights and
    buffers that have moved to other memory, or were frozen or thawed, make all graphs anew.

    A backward pass writes over what its forward pass has left to it: there is one for each forward pass, never a second.

    Args:
        module: what is called; the running statistics of its model, and random numbers, are left by a capture as they were.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._modules = list(module.modules())
        self._norms = [m for m in self._modules if hasattr(m, "track_running_stats")]
        self._hooks = [getattr(m, kind) for m in self._modules for kind in _HOOKS]
        holders = [tensors for m in self._modules for tensors in (m._parameters, m._buffers)]
        self._places = [(tensors, name) for tensors in holders for name, t in tensors.items() if t is not None]
        self._memory: Hashable = None  # of the graphs: where weights and buffers were, and which were trained
        self._graphs: dict[Hashable, Callable[..., Tensor] | None] = {}  # None: seen once

    def __call__(self, **batch: Any) -> Any:
        """
        Raises:
            ValueError: a module has a hook, or something else that no replay would do.
        """
        if not torch.is_grad_enabled() or not all(isinstance(value, Tensor) for value in batch.values()):
            return self.module(**batch)
        if any(self._hooks):
            self._refuse_hooks()
        held: list[Any] = [tensors[name] for tensors, name in self._places]
        memory = tuple((t.data_ptr(), t.requires_grad) for t in held)
        if memory != self._memory:
            self._memory, self._graphs = memory, {}
        kind = self._kind(batch)
        if kind not in self._graphs:
            if len(self._graphs) < MOST_GRAPHS:
                self._graphs[kind] = None
            return self.module(**batch)
        graph = self._graphs[kind]
        if graph is None:
            graph = self._graphs[kind] = self._captured(batch)
        return {"logits": graph(*batch.values())}

    def _kind(self, batch: dict[str, Tensor]) -> Hashable:
        of_batch = tuple((name, t.shape, t.stride(), t.dtype) for name, t in batch.items())
        of_modules = tuple(m.training for m in self._modules)
        of_norms = tuple((m.track_running_stats, m.momentum) for m in self._norms)
        return of_batch, of_modules, of_norms

    def _captured(self, batch: dict[str, Tensor]) -> Callable[..., Tensor]:
        """
        Raises:
            ValueError: a pass does more than to start kernels: a replay would not do it.
        """
        self._refuse_hooks()
        device = next(self.module.parameters()).device
        state, buffers = random_state(device), [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        free = {id(m._buffers[name]): f"{type(m).__name__}.{name}" for m, name in free_buffers(self.module)}
        inputs = tuple(t.clone() for t in batch.values())
        drawn, attributes = _random_state_of_host(device), self._attributes()
        graph: Any = torch.cuda.make_graphed_callables(
            _ByPlace(self.module, tuple(batch)), inputs, allow_unused_input=True
        )
        if _random_state_of_host(device) != drawn:
            raise refusal(f"{type(self.module).__name__} draws random numbers on the CPU, which a replay would not do")
        for owner, value in self._attributes().items():
            before = attributes.get(owner)
            if value is not before and not (isinstance(value, int | float | str | tuple) and value == before):
                raise refusal(f"{owner} is set in every pass, which a replay would not do")
        for buffer, saved in buffers:
            if id(buffer) in free and not torch.equal(buffer, saved):
                raise refusal(f"{free[id(buffer)]} is a buffer that every pass moves, which each replay would do, too")
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        set_random_state(state, device)
        captured: Callable[..., Tensor] = graph
        return captured

    def _refuse_hooks(self) -> None:
        for name, module in self.module.named_modules():
            if any(getattr(module, kind) for kind in _HOOKS):
                raise refusal(
                    f"{type(module).__name__} ({name or 'the model'}) has a hook, which a replay would not call"
                )
        for name, parameter in self.module.named_parameters():
            if parameter._backward_hooks:
                raise refusal(
                    f"{name} has a hook, which would change its gradient both in the capture and after a replay"
                )

    def _attributes(self) -> dict[str, Any]:
        """What modules and their dictionary of buffers hold, by names."""
        return {
            f"{key} of {type(m).__name__} ({name or 'the model'})": value
            for name, m in self.module.named_modules()
            for key, value in {**vars(m), **m._buffers}.items()
        }


def refusal(reason: str, way_out: str = "Leave it out.") -> ValueError:
    """What is raised where passes cannot be captured."""
    return ValueError(f"cuda_graphs=True does not work here: {reason}. {way_out}")


def _random_state_of_host(device: torch.device) -> bytes:
    """Of all generators that are not the device's."""
    of_torch = b"" if device.type == "cpu" else torch.get_rng_state().numpy().tobytes()
    return pickle.dumps((state_of_host(), of_torch))


class _ByPlace(nn.Module):
    """A model that is given its inputs by place, as graphs are."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self._names = module, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return logits_of(self.module(**dict(zip(self._names, inputs, strict=True))))
