"""tau-normalisation: class vectors brought nearer to one length. Shapes: N samples, D features, C classes, T values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_ltsam.data.keys import random_key
from hf_ltsam.landscape.vector import TINY


@dataclass(frozen=True)
class TauChoice:
    """The tau that was chosen, and by what.

    Args:
        tau: the first of the best.
        accuracies: tau -> mean of the accuracies per class on the held-out images, in [0, 1].
        samples: number of those images.
    """

    tau: float
    accuracies: dict[float, float]
    samples: int


def tau_normalised(weight: Tensor, tau: float) -> Tensor:
    """w_c / ||w_c||^tau (C, D): Kang et al. 2020 Eq. 3."""
    return weight / (weight.norm(dim=1, keepdim=True) ** tau + TINY)


@torch.no_grad()
def tau_normalise(classifier: nn.Linear, tau: float) -> None:
    """Normalise a classifier in place; its biases become zero."""
    classifier.weight.copy_(tau_normalised(classifier.weight, tau))
    if classifier.bias is not None:
        classifier.bias.zero_()


@torch.no_grad()
def choose_tau(weight: Tensor, features: Tensor, labels: Tensor, taus: Sequence[float]) -> TauChoice:
    """The tau whose classifier has the best mean of accuracies per class on some images.

    Args:
        weight: (C, D).
        features: of those images (N, D).
        labels: (N,); classes without an image do not count.
        taus: T candidates; of equally good ones the smallest is taken.
    """
    counts = torch.bincount(labels, minlength=len(weight)).double()
    present = counts > 0
    accuracies = {}
    for tau in sorted(taus):
        right = (features @ tau_normalised(weight, tau).T).argmax(dim=1) == labels
        per_class = torch.bincount(labels, right.double(), minlength=len(weight))[present] / counts[present]
        accuracies[tau] = float(per_class.mean())
    best = max(accuracies.values())
    return TauChoice(next(tau for tau, value in accuracies.items() if value == best), accuracies, len(labels))


def hold_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """Which images are held out (M,), ascending: the share of every class, rounded.

    At least one and never all of it; of a class of one image none.

    Args:
        labels: (N,).
        share: in (0, 1).
        seed: any integer; another one holds out others.
    """
    held: list[Tensor] = []
    for c in labels.unique().tolist():
        images = (labels == c).nonzero().flatten()
        generator = torch.Generator().manual_seed(random_key(seed, c))
        kept = min(max(round(share * len(images)), 1), len(images) - 1)
        held.append(images[torch.randperm(len(images), generator=generator)[:kept]])
    return torch.cat(held).sort().values
