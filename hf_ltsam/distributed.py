"""What several processes must agree on after the passes of a method."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

try:
    from torch.distributed import set_timeout
except ImportError:        # its name before it became public
    from torch.distributed.distributed_c10d import _set_pg_timeout as set_timeout


def limit_waiting(seconds: float) -> None:
    """`ddp_timeout` also between processes on CPUs, to whom transformers does not pass it on; with one process nothing."""
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
        set_timeout(timedelta(seconds=seconds))


@torch.no_grad()
def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every `.grad` by its mean over the processes, in one reduction per floating-point type.

    A parameter that no process reached keeps no gradient; one that some reached counts as zero on the others.
    """
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        by_dtype.setdefault(parameter.dtype, []).append(parameter)
    for group in by_dtype.values():
        _average(group)


def _average(parameters: list[Tensor]) -> None:
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    reached = torch.tensor([p.grad is not None for p in parameters]).to(gradients[0])
    flat = torch.cat([*(g.reshape(-1) for g in gradients), reached])
    dist.all_reduce(flat)
    *averaged, reached = (flat / dist.get_world_size()).split([*(g.numel() for g in gradients), len(parameters)])
    for parameter, value, share in zip(parameters, averaged, reached.tolist()):
        parameter.grad = value.view(parameter.shape).clone() if share > 0 else None


@torch.no_grad()
def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the running statistics of the first one, as DDP does before each forward pass."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for buffer in model.buffers():
        by_dtype.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_dtype.values():
        flat = torch.cat([b.reshape(-1) for b in buffers])
        dist.broadcast(flat, src=0)
        for buffer, value in zip(buffers, flat.split([b.numel() for b in buffers])):
            buffer.copy_(value.view(buffer.shape))


@torch.no_grad()
def average_running_statistics(model: nn.Module) -> None:
    """Replace batch norm's running statistics by their mean over the processes; with one process they stay."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            for statistic in (module.running_mean, module.running_var):
                dist.all_reduce(statistic)
                statistic /= dist.get_world_size()
