"""Proof in the logs that the perturbation is on, and what it does."""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = ("sam_eps_norm", "sam_sharpness_gap", "sam_gradient_cosine")


class Telemetry:
    """Means over the perturbed steps since the last log, kept on the device until they are read.

    Per step: `sam_eps_norm`, the norm of the perturbation (mean over the step's perturbed passes);
    `sam_sharpness_gap`, the sum over these passes of (1/n) sum_i a_i (l_i(w + eps) - l_i(w));
    `sam_gradient_cosine`, the cosine between the ascent direction eps and the gradient found at w + eps (mean), where
    the pass has one of each: CC-SAM's pass for all classes at once has not.
    With gradient accumulation a micro-batch counts as a step.
    """

    def __init__(self) -> None:
        self._norms: list[Tensor] = []
        self._gaps: list[Tensor] = []
        self._cosines: list[Tensor] = []
        self._steps = 0
        self._perturbed_steps = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}        # of the steps that told a value

    def perturbed_pass(self, norm: Tensor, cosine: Tensor | None, gap: Tensor | None) -> None:
        self._norms.append(norm)
        if cosine is not None:
            self._cosines.append(cosine)
        if gap is not None:
            self._gaps.append(gap)

    def end_step(self) -> None:
        """Add this step's values to the sums."""
        self._steps += 1
        if not self._norms:
            return
        self._perturbed_steps += 1
        self._add("sam_eps_norm", torch.stack(self._norms).mean())
        if self._cosines:
            self._add("sam_gradient_cosine", torch.stack(self._cosines).mean())
        if self._gaps:
            self._add("sam_sharpness_gap", torch.stack(self._gaps).sum())
        self._norms, self._gaps, self._cosines = [], [], []

    def pop(self) -> dict[str, float]:
        """The means since the last call, in one read from the device, and `sam_step_share`; empty if no step was made."""
        if self._steps == 0:
            return {}
        read = torch.stack([s.float() for s in self._sums.values()]).tolist() if self._sums else []
        means = {name: value / self._counts[name] for name, value in zip(self._sums, read)}
        logs = {"sam_step_share": self._perturbed_steps / self._steps, **means}
        self._sums, self._counts, self._steps, self._perturbed_steps = {}, {}, 0, 0
        return logs

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1
