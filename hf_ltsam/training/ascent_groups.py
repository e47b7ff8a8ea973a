"""Which samples are perturbed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_ltsam.landscape.batches import JointBatch, MicroBatch, in_groups
from hf_ltsam.landscape.reduction import joint_batch
from hf_ltsam.landscape.vector import WeightVector

# ---- the method's vector on its way to the optimizer ----


def accumulate(gradient: WeightVector, parameters: Sequence[Tensor], reached: list[bool]) -> None:
    """Add to `.grad` as a backward pass would: a parameter that no pass reached keeps what it has."""
    given: set[int] = set()  # storages that are some parameter's gradient: autograd may hand out one for two
    for parameter, g, has_gradient in zip(parameters, gradient.materialize(), reached, strict=True):
        if not has_gradient:
            continue
        if parameter.grad is not None:
            parameter.grad.add_(g)
        elif g.data_ptr() in given or g.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(g)
        else:
            parameter.grad = g
            given.add(g.data_ptr())


@dataclass(frozen=True)
class AscentGroup:
    """Samples with a perturbation of their own.

    Args:
        batches: of this process.
        labels: of all its samples (n,), on the host; of all processes where they share the perturbation.
        joint: where this process's samples are among those of all processes; None: it perturbs on its own.
        share: of the samples that the training step is given.
    """

    batches: Sequence[MicroBatch]
    labels: Tensor
    joint: JointBatch | None
    share: float


def ascent_groups(batches: Sequence[MicroBatch], size: int | None, with_others: bool) -> list[AscentGroup]:
    """The samples in order, in groups of `size`; None: all in one.

    Labels are read here, before the first pass, while the device has nothing to do for it yet.

    Args:
        with_others: the other processes' groups and this one's are perturbed together.
    """
    total = sum(map(len, batches))
    groups = [list(batches)] if size is None else in_groups(batches, size)
    shares = [sum(map(len, group)) / total for group in groups]
    if with_others:
        joint = [joint_batch([b.labels for b in group]) for group in groups]
        return [AscentGroup(g, labels, of, share) for g, (of, labels), share in zip(groups, joint, shares)]
    everything, sizes = torch.cat([b.labels for b in batches]).cpu(), [sum(map(len, group)) for group in groups]
    return [AscentGroup(g, own, None, share) for g, own, share in zip(groups, torch.split(everything, sizes), shares)]
