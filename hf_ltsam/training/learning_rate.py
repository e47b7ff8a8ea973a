"""Learning-rate schedules of the sources that transformers does not have: milestones, and a constant at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from hf_ltsam.training.config import LTSamConfig


def configured_schedule(args: LTSamConfig, optimizer: torch.optim.Optimizer, total_steps: int) -> LambdaLR | None:
    """The schedule that `lr_milestones` asks for; None: the stock one of `lr_scheduler_type`."""
    if not args.lr_milestones:
        return None
    warmup_steps = args.get_warmup_steps(total_steps)
    return milestone_schedule(optimizer, total_steps, warmup_steps, args.lr_milestones, args.lr_gamma)


def milestone_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_steps: int, milestones: Sequence[float], gamma: float
) -> LambdaLR:
    """Linear warm-up from 0, then the base learning rate times gamma for every milestone that has been passed.

    Args:
        milestones: shares of the training, in (0, 1).
        gamma: the factor at each of them (Rangwani et al. 2022: x 0.01 after epochs 160 and 180 of 200,
            with 5 epochs of warm-up).
    """
    boundaries = [round(share * total_steps) for share in milestones]
    return LambdaLR(optimizer, partial(_factor, warmup_steps=warmup_steps, boundaries=boundaries, gamma=gamma))


def hold_constant(schedule: Any, args: LTSamConfig, total_steps: int) -> None:
    """From `swa_start` on, replace what a schedule gives by `swa_learning_rate`, in place; nothing where that is None.

    Args:
        schedule: as transformers makes them, a `LambdaLR`.

    Raises:
        ValueError: the schedule is of another kind.
    """
    start, learning_rate = args.swa_start, args.swa_learning_rate
    if start is None or learning_rate is None:
        return
    if not isinstance(schedule, LambdaLR):
        raise ValueError(
            f"swa_learning_rate={learning_rate} does not go with lr_scheduler_type that makes a {type(schedule).__name__}: "
            "choose cosine, linear, constant or lr_milestones."
        )
    schedule.lr_lambdas = [
        partial(_held, factor=factor, start=start, total_steps=total_steps, constant=learning_rate / float(base))
        for factor, base in zip(schedule.lr_lambdas, schedule.base_lrs)
    ]


def _held(step: int, factor: Callable[[int], float], start: float, total_steps: int, constant: float) -> float:
    return constant if step / total_steps >= start else factor(step)


def _factor(step: int, warmup_steps: int, boundaries: Sequence[int], gamma: float) -> float:
    warmup = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    return warmup * gamma ** sum(step >= boundary for boundary in boundaries)
