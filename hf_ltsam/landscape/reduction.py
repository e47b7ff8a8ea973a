"""What several processes must agree on after the passes of a method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_ltsam.landscape.batches import JointBatch, interleaved


def joint_batch(labels: Sequence[Tensor]) -> tuple[JointBatch, Tensor]:
    """The micro-batches of all processes as one mini-batch, and its labels, (n,) or soft ones (n, C), on the host.

    Args:
        labels: of this process's micro-batches; every process has as many.
    """
    device = labels[0].device
    sizes = _gathered(torch.tensor([len(y) for y in labels], device=device)).cpu()  # (processes, micro-batches)
    largest = int(sizes.max())
    padded = torch.stack([torch.cat([y, y.new_zeros(largest - len(y), *y.shape[1:])]) for y in labels])
    everything = _gathered(padded).cpu()  # (processes, micro-batches, largest size, ...)
    pairs = ((everything[r, k], int(sizes[r, k])) for k in range(sizes.shape[1]) for r in range(len(sizes)))
    return interleaved(sizes, dist.get_rank()), torch.cat([y[:size] for y, size in pairs])


def _gathered(values: Tensor) -> Tensor:
    """(...) of each process -> (processes, ...)."""
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values.contiguous())
    return torch.stack(gathered)


@torch.no_grad()
def sum_gradients(gradient: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """The sum over the processes; None where no process reached the parameter."""
    totals: list[Tensor | None] = [None] * len(parameters)
    for dtype in dict.fromkeys(p.dtype for p in parameters):
        chosen = [i for i, p in enumerate(parameters) if p.dtype == dtype]
        sums = _summed([gradient[i] for i in chosen], [parameters[i] for i in chosen])
        for i, total in zip(chosen, sums):
            totals[i] = total
    return totals


def _summed(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """In one reduction."""
    dense = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters)]
    reached = torch.tensor([g is not None for g in gradients]).to(dense[0])
    flat = torch.cat([*(g.reshape(-1) for g in dense), reached])
    dist.all_reduce(flat)
    *sums, reached = flat.split([*(g.numel() for g in dense), len(dense)])  # type: ignore[no-untyped-call]
    # clones, since each must be a tensor of its own: its memory may be lent to a perturbed pass
    return [s.view(p.shape).clone() if count > 0 else None for s, p, count in zip(sums, parameters, reached.tolist())]


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a 0-dimensional tensor of each process."""
    return _gathered(value).sum()


@torch.no_grad()
def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every `.grad` by its mean over the processes, in one reduction per floating-point type.

    A parameter that no process reached keeps no gradient; one that some reached counts as zero on the others.
    """
    for parameter, total in zip(parameters, sum_gradients([p.grad for p in parameters], parameters)):
        parameter.grad = None if total is None else total.div_(dist.get_world_size())


@torch.no_grad()
def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the running statistics of the first one, as DDP does before each forward pass."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for buffer in model.buffers():
        by_dtype.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_dtype.values():
        flat = torch.cat([b.reshape(-1) for b in buffers])
        dist.broadcast(flat, src=0)
        for buffer, value in zip(buffers, flat.split([b.numel() for b in buffers])):  # type: ignore[no-untyped-call]
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
