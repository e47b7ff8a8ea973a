"""Proof in the logs that the perturbation is on, and what it does to the rare classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.utils import logging

from hf_ltsam.class_statistics import GROUPS, ClassStatistics
from hf_ltsam.data.soft_labels import are_soft, as_shares, of_samples
from hf_ltsam.landscape.weights import StoredOffset
from hf_ltsam.methods import METHODS, Method
from hf_ltsam.runs.identity import describe

logger = logging.get_logger(__name__)

# Steps between two looks at the gradients of head and tail: at most two more passes, below 1 % of what 250 steps cost.
GRADIENTS_EVERY = 250
# Passes between two looks at what float32 weights make of an offset: four passes over the weights, and no waiting.
MEASURED_EVERY = 250
ROUNDING = 1e-3  # of the norm: what float32 does to an offset of a usual length
SIZEABLE = 0.1  # share of the weights that do not move

HEAD_TAIL = ("head", "tail")
LOSSES = tuple(f"loss_{name}" for name in GROUPS)
STORED = ("wanted", "norm", "unmoved")  # of the offsets that were measured
GAPS = tuple(f"sam_sharpness_gap_{name}" for name in HEAD_TAIL)


class Telemetry:
    """Means over the perturbed steps since the last log, kept on the device until they are read.

    Per step: `sam_eps_norm`, the norm of the perturbation (mean over the step's perturbed passes);
    `sam_sharpness_gap`, the sum over these passes of (1/n) sum_i a_i (l_i(w + eps) - l_i(w));
    `sam_gradient_cosine`, the cosine between the ascent direction eps and the gradient found at w + eps (mean), where
    the pass has one of each: CC-SAM's pass for all classes at once has not.
    Half-precision weights round offsets away, and so does float32 where they are tiny: then `sam_eps_norm` is the norm of
    what was really added, and `sam_unmoved_share` the share of the weights with an offset that did not move, where it is a
    tenth or more. It is measured in every pass of half-precision weights; of float32 ones in one of `MEASURED_EVERY`, and
    in all as long as much is lost.
    A micro-batch counts as a step, and so does a group of `ascent_size`, but with `ascent_scope="step"` the whole step is
    one. Of several processes, the first one logs its own values.

    By class, where statistics are given: `loss_many`, `loss_medium`, `loss_few`, the mean training loss of the samples of
    these groups; `sam_sharpness_gap_head` and `_tail`, the mean over the samples of head and tail of
    a_i (l_i(w + eps) - l_i(w)), summed over the step's passes; `grad_norm_head` and `_tail`, ||G(h)|| and ||G(t)||, once in
    `GRADIENTS_EVERY` steps. A sample with soft or several labels counts in each class by its share. Head and tail are those
    of `tail_threshold`; where there is none, those of the threshold that comes closest to halving the classes.

    Args:
        statistics: gives those of the training set, or None, at every start.
    """

    def __init__(self, statistics: Callable[[], ClassStatistics | None] = lambda: None) -> None:
        self._statistics = statistics
        self.reset()

    def reset(self) -> None:
        """Forget what an earlier training left."""
        statistics = self._statistics()
        self._groups = None if statistics is None else ClassGroups(statistics)
        self.acted = False  # whether any logged perturbation was longer than nothing
        self.lost: str | None = None  # what was lost of the offsets of the last log, in words
        self._passes = 0
        self._norms: list[Tensor] = []
        self._gaps: list[Tensor] = []
        self._cosines: list[Tensor] = []
        self._gaps_of_groups: list[Tensor] = []  # of head and tail, each pass's sums
        self._samples_of_groups: list[Tensor] = []  # and how many samples the step has of each
        self._steps = 0
        self._perturbed_steps = 0
        self._sums: dict[tuple[str, ...], Tensor] = {}  # of several values (k,) under their names
        self._counts: dict[tuple[str, ...], Tensor] = {}  # of what was summed (k,)

    def measures(self, half_precision: bool) -> bool:
        self._passes += 1
        return half_precision or self.lost is not None or self._passes % MEASURED_EVERY == 1

    def stored_offset(self, offset: StoredOffset) -> None:
        self._add(STORED, torch.stack([offset.wanted.float(), offset.norm.float(), offset.unmoved.float()]))

    def perturbed_pass(self, norm: Tensor, cosine: Tensor | None, gap: Tensor | None) -> None:
        self._norms.append(norm)
        if cosine is not None:
            self._cosines.append(cosine)
        if gap is not None:
            self._gaps.append(gap)

    def sample_gaps(self, gaps: Tensor, labels: Tensor) -> None:
        """a_i (l_i(w + eps) - l_i(w)) of the samples (n,) of one perturbed pass."""
        if self._groups is not None:
            self._gaps_of_groups.append(_sums(gaps, self._groups.shares(labels)[:, len(GROUPS) :]))

    def losses(self, losses: Tensor, labels: Tensor) -> None:
        """l_i of the samples (n,) of a step, at the weights of its first pass."""
        if self._groups is not None:
            shares = self._groups.shares(labels)
            members = shares.sum(0)
            self._add(LOSSES, _sums(losses, shares[:, : len(GROUPS)]), members[: len(GROUPS)])
            self._samples_of_groups.append(members[len(GROUPS) :])

    def gradient_norms(self, head: Tensor, tail: Tensor) -> None:
        self._add(("grad_norm_head", "grad_norm_tail"), torch.stack([head, tail]))

    def end_step(self) -> None:
        """Add this step's values to the sums."""
        self._steps += 1
        samples, gaps = self._samples_of_groups, self._gaps_of_groups
        self._samples_of_groups, self._gaps_of_groups = [], []
        if gaps and samples:
            self._add(GAPS, _total(gaps), _total(samples))
        if not self._norms:
            return
        self._perturbed_steps += 1
        means = {
            "sam_eps_norm": _total(self._norms) / len(self._norms),
            "sam_gradient_cosine": _total(self._cosines) / len(self._cosines) if self._cosines else None,
            "sam_sharpness_gap": _total(self._gaps) if self._gaps else None,
        }
        values = {name: value.float() for name, value in means.items() if value is not None}
        self._add(tuple(values), torch.stack(list(values.values())))
        self._norms, self._gaps, self._cosines = [], [], []

    def pop(self) -> dict[str, float]:
        """The means since the last call, in one read from the device, and `sam_step_share`; empty if no step was made."""
        if self._steps == 0:
            return {}
        means = self._as_stored(self._means())
        self.acted = self.acted or means.get("sam_eps_norm", 0.0) > 0
        logs = {"sam_step_share": self._perturbed_steps / self._steps, **means}
        self._sums, self._counts, self._steps, self._perturbed_steps = {}, {}, 0, 0
        return logs

    def _as_stored(self, means: dict[str, float]) -> dict[str, float]:
        """The means, with the norm of what was really added where that is another one."""
        wanted, norm, unmoved = (means.pop(name, None) for name in STORED)
        if wanted is None or norm is None or unmoved is None or "sam_eps_norm" not in means:
            return means
        made = norm / wanted if wanted else 1.0
        self.lost = None
        rounded = abs(made - 1) > ROUNDING  # otherwise the weights that stayed had next to nothing of the offset
        if rounded:
            means["sam_eps_norm"] *= made
        if unmoved >= SIZEABLE:
            means["sam_unmoved_share"] = unmoved
        if rounded and (unmoved >= 0.5 or (unmoved >= SIZEABLE and abs(made - 1) > 0.01)):
            self.lost = (
                f"{unmoved:.1%} of the weights that an offset was added to did not move, and its norm became {norm:.3g} in "
                f"place of {wanted:.3g}"
            )
        return means

    def _means(self) -> dict[str, float]:
        """Of everything that was summed, in one read from the device."""
        if not self._sums:
            return {}
        totals, counts = torch.stack([torch.cat([*part.values()]) for part in (self._sums, self._counts)]).tolist()
        sums: dict[str, list[float]] = {}
        for name, total, count in zip((name for names in self._sums for name in names), totals, counts):
            before = sums.get(name, [0.0, 0.0])
            sums[name] = [before[0] + total, before[1] + count]
        return {name: total / count for name, (total, count) in sums.items() if count}

    def _add(self, names: tuple[str, ...], values: Tensor, counts: Tensor | None = None) -> None:
        """Values (k,) in float32; what is not finite, of a skipped step, is left out without reading it."""
        values = values.detach().float()
        finite = values.isfinite()
        counts = finite.float() if counts is None else torch.where(finite, counts, 0.0)
        values = torch.where(finite, values, 0.0)
        self._sums[names] = self._sums[names].add_(values) if names in self._sums else values
        self._counts[names] = self._counts[names].add_(counts) if names in self._counts else counts


def _total(terms: Sequence[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else torch.stack(list(terms)).sum(0)


def _sums(values: Tensor, shares: Tensor) -> Tensor:
    """Of the values (n,) of each group (k,), to which samples belong by shares (n, k)."""
    parts = shares * values.detach().float().unsqueeze(1)
    return torch.where(shares > 0, parts, 0.0).sum(0)  # a value that is not finite spoils its own groups alone


class ClassGroups:
    """The groups of every class: many, medium, few, head and tail; on the device of the labels, without waiting for it."""

    def __init__(self, statistics: ClassStatistics) -> None:
        threshold = statistics.tail_threshold
        threshold = statistics.proposed_tail_threshold if threshold is None else threshold
        number = {c: k for k, name in enumerate(GROUPS) for c in statistics.groups[name]}
        groups = torch.tensor([number[c] for c in range(statistics.num_classes)])
        tail = torch.tensor([int(n <= threshold) for n in statistics.counts])
        of_groups = torch.nn.functional.one_hot(groups, len(GROUPS))
        of_halves = torch.nn.functional.one_hot(tail, len(HEAD_TAIL))
        self._members = torch.cat([of_groups, of_halves], dim=1).float()  # (C, 5)
        self._has_several = statistics.samples is not None
        self._most_frequent = statistics.most_frequent

    def shares(self, labels: Tensor) -> Tensor:
        """How much of every sample is in many, medium, few, head and tail (n, 5), from 0 to 1."""
        self._members = self._members.to(labels.device)
        if self._has_several and are_soft(labels):
            labels = as_shares(labels, self._most_frequent)
        return of_samples(self._members, labels)

    def tail(self, labels: Tensor) -> Tensor:
        """How much of every sample is in the tail (n,), float64."""
        return self.shares(labels)[:, -1].double()


class PerturbationWarning(TrainerCallback):
    """Warns once if the weights round offsets away, and at the end of a training if a method that perturbs did not.

    Args:
        telemetry: of the training.
        method: gives the method.
        observes: whether passes are observed; otherwise nothing is known.
    """

    def __init__(self, telemetry: Telemetry, method: Callable[[], Method], observes: Callable[[], bool]) -> None:
        self._telemetry, self._method, self._observes = telemetry, method, observes
        self._from_the_start = False
        self._has_warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._from_the_start = state.global_step == 0
        self._has_warned = False

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._warn_of_rounding()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._telemetry.pop()  # what was not logged
        self._warn_of_rounding()
        observed = self._observes() and self._from_the_start and state.global_step > 0
        if observed and self._method().perturbs and not self._telemetry.acted:
            logger.warning(
                f"{_in_words(self._method())} perturbed nothing in all {state.global_step} steps: this was plain training. "
                "Look at its radius and at start, stop and interval."
            )

    def _warn_of_rounding(self) -> None:
        if self._telemetry.lost is None or self._has_warned:
            return
        self._has_warned = True
        logger.warning(
            f"{_in_words(self._method())}: {self._telemetry.lost}, since the weights are stored in too few digits for it. "
            "Train float32 weights (dtype=torch.float32 where the model is loaded); if they are, enlarge the radius."
        )


def _in_words(method: Method) -> str:
    description = describe(METHODS, method)
    return f"{description['name']}({', '.join(f'{k}={v}' for k, v in description['args'].items())})"
