"""The peak of memory in one training step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence

import torch
from steps import CLASSES, Row, class_counts, step_of, trainer
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer


class Wide(nn.Module):
    """Weights of 64 MB and hardly any activations, so that copies of the weights are all that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4096, 4096, bias=False)
        self.classifier = nn.Linear(4096, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x).tanh())


def extra_copies(rows: Sequence[Row]) -> dict[str, float]:
    """Peak bytes of a step beyond those of our SGD, over the bytes of the trainable weights.

    The highest of three, since the profiler loses events now and then.
    """
    with tempfile.TemporaryDirectory() as folder:
        peaks = {
            row.name: max(peak_bytes(lambda row=row: trainer(row, Wide(), folder)) for _ in range(3)) for row in rows
        }
    weights = sum(p.numel() * p.element_size() for p in Wide().parameters())
    return {name: (peak - peaks["sgd"]) / weights for name, peak in peaks.items()}


def peak_bytes(make: Callable[[], Trainer]) -> int:
    """Most bytes held at once beyond those before the first step; buffers kept from step to step count as well."""
    labels = torch.tensor([0, len(class_counts()) - 1])
    step = step_of(make(), {"x": torch.randn(2, 4096), "labels": labels})
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(3):
            step()
    held = highest = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest
