"""Passes through a model as CUDA graphs: captured once for each kind of batch, then replayed without Python."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from hf_ltsam.landscape.replay import random_state, set_random_state
from hf_ltsam.models.logits import logits_of

MOST_GRAPHS = 16  # each holds the activations of a batch


class GraphedPasses:
    """Called as the model is, with a batch as keywords; gives {"logits": (b, C)}, which hold until its next call.

    A kind of batch is the names, shapes and types of its tensors and the state of the modules: a first pass moves running
    statistics, a repeated one does not. When a kind is first seen, the model is called as usual, which warms libraries up;
    when it comes again, it is captured. Kinds beyond `MOST_GRAPHS` and passes without gradients stay as usual. Weights that
    have moved to other memory, or were frozen or thawed, make all graphs anew.

    Args:
        module: what is called; the running statistics of its model, and random numbers, are left by a capture as they were.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._parameters, self._modules = list(module.parameters()), list(module.modules())
        self._norms = [m for m in self._modules if hasattr(m, "track_running_stats")]
        self._weights: Hashable = None  # where they were, and which were trained, when the graphs were captured
        self._graphs: dict[Hashable, Callable[..., Tensor] | None] = {}  # None: seen once

    def __call__(self, **batch: Any) -> Any:
        if not torch.is_grad_enabled() or not all(isinstance(value, Tensor) for value in batch.values()):
            return self.module(**batch)
        weights = tuple((p.data_ptr(), p.requires_grad) for p in self._parameters)
        if weights != self._weights:
            self._weights, self._graphs = weights, {}
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
            ValueError: a module has a hook, which no replay would call.
        """
        for name, module in self.module.named_modules():
            if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
                raise ValueError(
                    f"cuda_graphs=True does not go with hooks, and {type(module).__name__} ({name or 'the model'}) has one: "
                    "a replayed pass would not call it. Remove the hook, or leave cuda_graphs out."
                )
        device = self._parameters[0].device
        state, buffers = random_state(device), [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        inputs = tuple(t.clone() for t in batch.values())
        graph: Any = torch.cuda.make_graphed_callables(
            _ByPlace(self.module, tuple(batch)), inputs, allow_unused_input=True
        )
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        set_random_state(state, device)
        captured: Callable[..., Tensor] = graph
        return captured


class _ByPlace(nn.Module):
    """A model that is given its inputs by place, as graphs are."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self._names = module, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return logits_of(self.module(**dict(zip(self._names, inputs, strict=True))))
