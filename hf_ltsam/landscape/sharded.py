"""Weights that lie in shards on several processes (FSDP2): `DTensor`s, of which each process holds a part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def are_sharded(tensors: Sequence[Tensor]) -> bool:
    return isinstance(tensors[0], DTensor)


def own_shards(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this process holds, in the same memory: enough wherever numbers do not meet those of other places."""
    return [t.to_local() if isinstance(t, DTensor) else t.detach() for t in tensors]


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself; of a sharded one (a norm, say) all its numbers, on every process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that is alike on all processes, in shards if `like` is; nothing is sent."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def whole_memory(memory: dict[str, Any]) -> dict[str, Any]:
    """What a method remembers, to be saved: resumed by any number of processes, it is dealt out anew."""
    return {k: [whole(t) for t in v] if isinstance(v, list) else v for k, v in memory.items()}


def memory_like(memory: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """The reverse: a list holds one tensor for every trainable weight. Of other weights it is left as it is."""

    def dealt_out(value: Any) -> Any:
        fits = isinstance(value, list) and [t.shape for t in value] == [p.shape for p in parameters]
        return [sharded_like(t, p) for t, p in zip(value, parameters)] if fits else value

    return {key: dealt_out(value) for key, value in memory.items()}


def summed_over_processes(objective: Tensor) -> Tensor:
    """What has the sum over the processes for its gradient, where hooks take the mean."""
    return objective * dist.get_world_size()


def harvested(objective: Tensor, parameters: Sequence[Tensor], keep_graph: bool) -> list[Tensor | None]:
    """The gradients by a whole backward pass, which leaves them in `.grad`; what is accumulated there is set aside.

    `torch.autograd.grad` cannot see behind shards, whose gradients are reduced by hooks of the backward pass, nor behind
    losses that run backward passes of their own in it (GradCache, reentrant checkpointing).
    """
    kept = [p.grad for p in parameters]
    try:
        for p in parameters:
            p.grad = None
        torch.autograd.backward(objective, retain_graph=keep_graph)
        return [p.grad for p in parameters]
    finally:
        for p, before in zip(parameters, kept):
            p.grad = before


def ready_for_passes(model: nn.Module) -> None:
    """Before a step: every weight in shards, and every backward pass with a reduction.

    An evaluation leaves the outermost weights whole, for a backward pass that never comes, and offsets would go past them.
    `no_sync` would leave the gradients of all but the last micro-batch unreduced, and an ascent needs all processes'.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            module.set_requires_gradient_sync(True, recurse=False)
