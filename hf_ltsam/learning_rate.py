"""The step schedule of the sources, which transformers does not have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch.optim.lr_scheduler import LambdaLR


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


def _factor(step: int, warmup_steps: int, boundaries: Sequence[int], gamma: float) -> float:
    warmup = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    return warmup * gamma ** sum(step >= boundary for boundary in boundaries)
