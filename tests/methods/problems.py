"""Small problems in float64 on which methods are compared with their references."""

from __future__ import annotations

from typing import Any

import torch
from methods.references import Problem
from torch import Tensor, nn
from torch.nn import functional as F

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.landscape.landscape import LossLandscape, MicroBatch
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.methods import Method
from hf_ltsam.methods.context import StepContext

COUNTS = [500, 120, 20, 5]
TAIL_THRESHOLD = 20
LABELS = {
    "mixed": [0, 0, 0, 0, 1, 1, 2, 3],
    "no tail": [0, 1, 0, 1, 1, 0, 0, 1],
    "no head": [2, 3, 3, 2, 2, 3, 2, 3],
    "one class": [3, 3, 3, 3],
    "one sample": [2],
    "soft": [[0.7, 0.3, 0, 0], [0, 0.25, 0.75, 0], [0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0], [0, 0, 0, 1], [0.5, 0, 0, 0.5]],
}


class Tied(nn.Module):
    """A weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.tanh(self.second(torch.tanh(self.first(x)))))


class WithUnused(nn.Module):
    """A weight that no pass reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def frozen() -> nn.Module:
    model = plain()
    model[0].weight.requires_grad_(False)
    return model


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4))


def batch_norm() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 4))


MODELS = {"plain": plain, "batch norm": batch_norm, "frozen": frozen, "tied": Tied, "unused": WithUnused}


def problem(model: str = "plain", labels: str = "mixed", progress: float = 0.0, counts: list[int] = COUNTS) -> Problem:
    torch.manual_seed(0)
    net = MODELS[model]().double()
    soft = isinstance(LABELS[labels][0], list)
    y = torch.tensor(LABELS[labels], dtype=torch.float64 if soft else None)  # from float32 a row would not add up to 1
    return Problem(net, torch.randn(len(y), 6, dtype=torch.float64), y, list(counts), TAIL_THRESHOLD, progress)


def statistics_of(given: Problem) -> ClassStatistics:
    return ClassStatistics(given.counts, tail_threshold=given.tail_threshold)


def landscape_of(
    given: Problem,
    micro_batches: int = 1,
    divisor: float = 1,
    shortcuts: Shortcuts | None = None,
    weights: TrainableWeights | None = None,
) -> LossLandscape:
    """Plain cross-entropy of the problem, its samples dealt out in micro-batches."""
    model = given.model

    def logits(batch: MicroBatch) -> Tensor:
        return model(batch.inputs["x"])

    def losses(logits: Tensor, batch: MicroBatch) -> Tensor:
        return F.cross_entropy(logits, batch.labels, reduction="none")

    batches = [
        MicroBatch({"x": x}, y)
        for x, y in zip(given.x.tensor_split(micro_batches), given.y.tensor_split(micro_batches))
    ]
    weights = TrainableWeights(model) if weights is None else weights
    return LossLandscape(weights, batches, logits, losses, divisor, shortcuts=shortcuts)


def gradient_of(method: Method, given: Problem, **landscape: Any) -> list[Tensor | None]:
    """The method's vector, one entry per parameter of the model; None where it is frozen."""
    return gradient_at(method, given, step_of(given), **landscape)


def gradient_at(method: Method, given: Problem, step: StepContext, **landscape: Any) -> list[Tensor | None]:
    tensors = iter(method.update(landscape_of(given, **landscape), step).materialize())
    return [next(tensors) if p.requires_grad else None for p in given.model.parameters()]


def step_of(given: Problem, seed: int = 0, memory: dict | None = None) -> StepContext:
    """The step as the host would describe it. The reference draws from the same numbers."""
    like = torch.empty((), dtype=torch.float64)
    memory = {} if memory is None else memory
    step = StepContext(given.y, statistics_of(given), given.progress, like, memory, step=given.step, seed=seed)
    given.generator = step.generator
    return step


def assert_equal(ours: list[Tensor | None], theirs: list[Tensor | None], tolerance: float = 1e-12) -> None:
    assert [t is None for t in ours] == [t is None for t in theirs]
    for a, b in zip(ours, theirs):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
