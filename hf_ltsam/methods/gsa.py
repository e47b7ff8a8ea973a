"""SAM for groups of classes, each along what its gradient has beyond the common one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.soft_labels import of_samples
from hf_ltsam.hyperparameters import COUNT, require, require_choice
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.vector import TINY, WeightVector
from hf_ltsam.methods.context import StepContext
from hf_ltsam.methods.protocol import Method, require_non_negative
from hf_ltsam.schedules import Schedule, value_at

PERTURBATIONS = ("group", "mean")
SMALL = 1e-4  # of ||g_k||: a shorter r_k is rounding, of a group that has the batch to itself


@dataclass(frozen=True)
class GSA(Method):
    """GSA: g = sum over groups k in the batch of G(1_k, eps_k), eps_k = scale sqrt(d) rho_k unit(g_k - (g_k . u) u).

    g_k is the gradient of the group's mean loss in the batch and u = unit(G(1)), the common direction, which head classes
    lead. rho_k = (||w|| / (2 ||r_k||))^(1/2) (d (n_k - 1))^(-1/4) with r_k = g_k - (g_k . u) u, d the number of weights and
    n_k that of the group's training images. A group whose r_k is below 1e-4 of g_k is not perturbed.

    Args:
        scale: factor of every radius, >= 0, or a schedule over training progress; 0 is SGD.
        groups: K, >= 1: the classes in order of their number of images, in K groups of as many classes. 1 is SGD.
        perturbation: "group" perturbs each group's loss by its own eps_k (the paper); "mean" perturbs the whole loss once,
            by the mean of the eps_k weighted by the groups' shares of the batch (the published code).

    Cost: 1 + K_b forwards and 2 K_b backwards; K_b groups are in the batch, and each needs its own rows alone where samples
        do not interact; with `perturbation="mean"` 2 forwards, K_b + 1 backwards.
    Source: Chen et al. 2026 (GKP and GSA), eps_k at second hand, rho_k from the published code; the default scale is that of
        CC-SAM, whose radius it is for a class.
    Differs from the published code: the paper clusters classes by their best weights, which takes a copy of the model for
        each class; the code subtracts a moving average in place of the projection, scales by |w| and cuts rho_k off at 2e-3
        and 3e-3. The other half of the paper, anchors for the weights of each group (GKP), is left out.
    """

    title: ClassVar = "GSA"
    citations: ClassVar = ("chen2026b",)
    needs_classes: ClassVar[bool] = True

    scale: float | Schedule = 1e-2
    groups: int = 4
    perturbation: str = "group"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_non_negative(self, scale=self.scale)
        require(COUNT, self, groups=self.groups)
        require_choice(self, PERTURBATIONS, perturbation=self.perturbation)

    def gradient(self, loss: LossLandscape, step: StepContext) -> WeightVector:
        groups = classes_by_frequency(step.statistics, self.groups)
        of_class = torch.zeros(len(groups), step.statistics.num_classes, dtype=step.like.dtype)
        for k, classes in enumerate(groups):
            of_class[k, classes] = 1
        ones = {k: of_samples(of_group, step.labels) for k, of_group in enumerate(of_class)}  # 1_k (n,)
        ones = {k: of_group for k, of_group in ones.items() if of_group.any()}
        shares = [float(of_group.mean()) for of_group in ones.values()]  # of the batch
        g = loss.gradients([of_group / share for of_group, share in zip(ones.values(), shares)])  # g_k
        u = _sum(share * g_k for share, g_k in zip(shares, g)).unit()
        sizes = [sum(step.statistics.counts[c] for c in groups[k]) for k in ones]
        scale, d = value_at(self.scale, step.progress), sum(w.numel() for w in loss.weights.tensors)
        length = loss.weights.norm()
        eps = [self._perturbation(g_k, u, length, d, n_k, scale) for g_k, n_k in zip(g, sizes)]
        if self.perturbation == "mean":
            return loss.gradient(at=_sum(share * eps_k for share, eps_k in zip(shares, eps)))
        return _sum(loss.gradient(of_group, at=eps_k) for of_group, eps_k in zip(ones.values(), eps))

    def _perturbation(
        self, g_k: WeightVector, u: WeightVector, length: Tensor, d: int, n_k: int, scale: float
    ) -> WeightVector:
        """eps_k of a group with n_k images; `length` is ||w||."""
        r = g_k - g_k.dot(u) * u
        rho = (length / (2 * r.norm() + TINY)).sqrt() * (d * max(n_k - 1, 1)) ** -0.25
        return torch.where(r.norm() > SMALL * g_k.norm(), scale * math.sqrt(d) * rho, torch.zeros_like(rho)) * r.unit()


def classes_by_frequency(statistics: ClassStatistics, groups: int) -> list[list[int]]:
    """The classes from the largest to the smallest, in groups of nearly as many classes; none is empty."""
    order = sorted(range(statistics.num_classes), key=lambda c: -statistics.counts[c])
    return [part.tolist() for part in torch.tensor(order).tensor_split(min(groups, len(order)))]


def _sum(vectors: Iterable[WeightVector]) -> WeightVector:
    total: WeightVector = reduce(add, vectors)
    return total
