"""Sharpness as the methods see it: L(w + eps) - L(w) class by class, for a range of radii."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_ltsam.curvature.objective import SampleLosses
from hf_ltsam.hyperparameters import POSITIVE, require
from hf_ltsam.landscape.landscape import LossLandscape, MicroBatch
from hf_ltsam.landscape.weights import TrainableWeights

CURVED = 1.1  # of the gap over its first-order part, from where on curvature is felt
DEFAULT_RHOS = tuple(float(f"{10 ** (k / 6 - 3):.3g}") for k in range(25))  # 0.001 to 10, six for each factor of 10


@dataclass(frozen=True)
class SharpnessCurve:
    """Mean over mini-batches b of L_b(w + rho unit(g_b)) - L_b(w), with g_b = grad L_b(w): what SAM adds to the loss.

    Args:
        rhos: radii (R,), ascending.
        losses: L_c(w), the mean loss of each class (C,); NaN for a class without samples.
        gaps: of each class, (R, C).
        loss, mean_gaps: the same averaged over the samples: a number and (R,).
        slope: mean |g_b|, of which rho times is the first-order part of the mean gap.
    """

    rhos: Tensor
    losses: Tensor
    gaps: Tensor
    loss: float
    mean_gaps: Tensor
    slope: float


@dataclass(frozen=True)
class RhoRange:
    """A range of radii to try.

    Args:
        low: where the gap exceeds its first-order part by a tenth: below it the gradient at w + eps is hardly another one.
        high: where the loss at w + eps reaches that of logits without information: beyond it the gradient there says
            nothing about the model. Each None where the radii that were measured do not reach it.
    """

    low: float | None
    high: float | None


def sharpness_curve(
    weights: TrainableWeights,
    batches: Iterable[MicroBatch],
    sample_losses: SampleLosses,
    num_classes: int,
    rhos: Sequence[float] = DEFAULT_RHOS,
    sample_weights: Tensor | None = None,
    on_batch: Callable[[int], None] = lambda size: None,
) -> SharpnessCurve:
    """One gradient for each mini-batch, and one forward pass over it for every radius.

    Args:
        batches: mini-batches of the size that the training uses: SAM's perturbation is that of a mini-batch.
        sample_losses: micro-batch -> l_i (b,).
        rhos: radii, positive.
        sample_weights: a (n,), in the order of the batches; None: all equal.
        on_batch: called with the size of every mini-batch that is finished.

    Source: Foret et al. 2021 Eq. 2; Rangwani et al. 2022 Eq. 3.
    """
    for rho in rhos:
        require(POSITIVE, "sharpness_curve", rho=rho)
    radii = torch.tensor(sorted(rhos), dtype=torch.float64)
    sums = torch.zeros(len(radii) + 1, num_classes, dtype=torch.float64)  # of the losses at w, then at each radius
    means = torch.zeros(len(radii) + 1, dtype=torch.float64)
    counts = torch.zeros(num_classes, dtype=torch.float64)
    slope, total, start = 0.0, 0.0, 0
    for batch in batches:
        a = torch.ones(len(batch)) if sample_weights is None else sample_weights[start : start + len(batch)]
        losses, norm = _losses_along_gradient(weights, batch, sample_losses, radii.tolist(), a.double())
        labels = batch.labels.cpu()
        sums.index_add_(1, labels, losses)
        counts += torch.bincount(labels, minlength=num_classes)
        means += losses @ a.double()
        slope += norm * float(a.sum())
        total += float(a.sum())
        start += len(batch)
        on_batch(len(batch))
    by_class, means = sums / counts, means / total
    return SharpnessCurve(
        radii, by_class[0], by_class[1:] - by_class[0], float(means[0]), means[1:] - means[0], slope / total
    )


def suggest_rho(curve: SharpnessCurve, chance: float) -> RhoRange:
    """A range of radii from the curve, as learning-rate finders propose one: a place to start, not an optimum.

    Args:
        chance: mean loss of logits without information; log C for cross-entropy.
    """
    low = _first_crossing(curve.rhos, curve.mean_gaps / (curve.slope * curve.rhos), CURVED)
    high = _first_crossing(curve.rhos, curve.loss + curve.mean_gaps, chance)
    return RhoRange(low, high)


def _losses_along_gradient(
    weights: TrainableWeights, batch: MicroBatch, sample_losses: SampleLosses, rhos: list[float], a: Tensor
) -> tuple[Tensor, float]:
    """l_i at w and at every radius (R + 1, b), and |g_b|."""
    gradient = LossLandscape(weights, [batch], sample_losses, lambda losses, _: losses).gradient((a / a.mean()).cpu())
    direction = gradient.unit()
    with torch.no_grad():
        rows = [sample_losses(batch).double().cpu()]
        for rho in rhos:
            with weights.moved(rho * direction):
                rows.append(sample_losses(batch).double().cpu())
    return torch.stack(rows), float(gradient.norm())


def _first_crossing(rhos: Tensor, values: Tensor, level: float) -> float | None:
    """Where the values first reach a level, between two radii by a straight line over log rho."""
    reached = (values >= level).nonzero().flatten()
    if not len(reached) or int(reached[0]) == 0:
        return None
    k = int(reached[0])
    share = (level - values[k - 1]) / (values[k] - values[k - 1])
    return float(torch.exp(torch.lerp(rhos[k - 1].log(), rhos[k].log(), share)))
