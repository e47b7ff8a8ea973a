"""Bounds on the test loss, and the geometry of saddle points, as the sources prove them: functions of plain numbers.

A bound is a sum of parts, so that a reader sees which one it owes its size to. Each takes what a run knows: losses, the norm
||w|| of the trained weights, their number k, the number n of training samples, the radius rho. For networks of today most of
these bounds are far above the largest possible loss; how they move over a training is what the papers look at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from hf_ltsam.hyperparameters import COUNT, NON_NEGATIVE, POSITIVE, PROBABILITY, require


@dataclass(frozen=True)
class Bound:
    """A bound on a test loss, part by part."""

    loss: float  # what the method minimises, with the bound's factor
    curvature: float  # what the Hessian adds or takes
    complexity: float  # what depends on ||w|| / rho and the number of samples
    remainder: float  # terms of the failure probability and the range of the loss

    @property
    def value(self) -> float:
        """Their sum."""
        return math.fsum(asdict(self).values())


def zhou_2023_bound(loss_at_radius: float, norm: float, k: int, n: int, rho: float, delta: float = 0.05) -> Bound:
    """Zhou et al. 2023 (CC-SAM) Eq. 15, the form that still states its constants; Theorem 1 drops them.

    Args:
        loss_at_radius: the largest training loss within sqrt(k) rho of the weights, in [0, 1] by the proof's assumption.
        norm: ||w||.
        k: number of weights.
        n: number of training samples, at least 2; of one class for a bound of this class, as in Fig. 3.
        rho: the characteristic radius: the length of a perturbation is sqrt(k) rho.
        delta: the bound holds with probability 1 - delta.

    Raises:
        ValueError: a number is out of its range.
    """
    _check(norm, k, n, rho, delta)
    root = zhou_2023_root(norm, k, n, rho, delta)
    return Bound((1 - 1 / math.sqrt(n)) * loss_at_radius, 0.0, root, 1 / math.sqrt(n))


def zhou_2023_root(norm: float, k: int, n: int, rho: float, delta: float = 0.05) -> float:
    """The square root in Zhou et al. 2023 Eq. 15; the authors see that of Eq. 16 below 1 in most epochs (their Fig. 3)."""
    _check(norm, k, n, rho, delta)
    spread = (1 + math.sqrt(math.log(n) / k)) ** 2
    return math.sqrt((norm**2 / (4 * rho**2) * spread + math.log(n / delta) / 2) / (n - 1))


def zhou_2023_radius(norm: float, gradient: float, k: int, n: int) -> float:
    """rho* = (||w|| / (2 ||g||))^(1/2) (k (n - 1))^(-1/4), which minimises sqrt(k) rho ||g|| + ||w|| / (2 rho sqrt(n - 1)).

    These are the terms of Zhou et al. 2023 Eq. 16 that depend on rho, to first order in it; CC-SAM perturbs at this radius.

    Args:
        norm: ||w||.
        gradient: ||g|| of the training loss, of one class for this class.
        k: number of weights.
        n: number of training samples, at least 2.

    Raises:
        ValueError: a number is out of its range.
    """
    require(COUNT, "zhou_2023_radius", k=k, samples=n - 1)
    require(POSITIVE, "zhou_2023_radius", norm=norm, gradient=gradient)
    return math.sqrt(norm / (2 * gradient)) / math.sqrt(math.sqrt(k * (n - 1)))


def lyu_2025_bound(
    loss: float, lam_max: float, norm: float, d: int, n: int, rho: float, highest_loss: float, delta: float = 0.05
) -> Bound:
    """Lyu et al. 2025 (SSE-SAM) Theorem 6, which ties the escape from saddles (the loss) to flatness (lam_max).

    Args:
        loss: training loss L_S(w).
        lam_max: the largest eigenvalue of its Hessian within rho of w; that at w stands for it in practice.
        norm: ||w||.
        d: number of weights.
        n: number of training samples, at least 2.
        rho: radius of the perturbation.
        highest_loss: M, which no loss exceeds.
        delta: the bound holds with probability 1 - delta.

    Raises:
        ValueError: a number is out of its range.
    """
    _check(norm, d, n, rho, delta)
    require(POSITIVE, "lyu_2025_bound", highest_loss=highest_loss)
    spread = norm**2 * (math.sqrt(d) + math.sqrt(math.log(n))) ** 2 / (d * rho**2)
    inside = d / 4 * math.log1p(spread) + 1 / 4 + math.log(n / delta) + 2 * math.log(6 * n + 3 * d)
    return Bound(
        loss,
        rho**2 * math.sqrt(d / (4 * math.pi)) * lam_max,
        math.sqrt(inside / (n - 1)),
        highest_loss / math.sqrt(n),
    )


def li_2025_bound(
    focal_sam_loss: float,
    trace: float,
    norm: float,
    k: int,
    rho: float,
    counts: Sequence[int],
    gamma: float,
    lam: float,
    highest_loss: float,
    delta: float = 0.05,
) -> Bound:
    """Li et al. 2025 (Focal-SAM) Theorem A.5 without its last term, which the paper gives by order only.

    It bounds the loss on a test set with equally many samples of each class, by which every part is divided: C pi_C.

    Args:
        focal_sam_loss: L_S(w) - lam L_S^gamma(w) + lam max L_S^gamma(w + eps).
        trace: tr H of the focal loss L^gamma at w.
        norm: ||w||.
        k: number of weights.
        rho: radius of the perturbation.
        counts: training samples of each class (C); the rarest gives pi_C.
        gamma: exponent of the focal weights (1 - pi_c)^gamma.
        lam: weight of the sharpness.
        highest_loss: B, which no loss exceeds.
        delta: the bound holds with probability 1 - delta.

    Raises:
        ValueError: a number is out of its range, or a class has no sample.
    """
    n = sum(counts)
    _check(norm, k, n, rho, delta)
    require(POSITIVE, "li_2025_bound", highest_loss=highest_loss, rarest_class=min(counts))
    require(NON_NEGATIVE, "li_2025_bound", gamma=gamma, lam=lam)
    balance = len(counts) * min(counts) / n
    focal = highest_loss * focal_weight(counts, gamma)
    root_k = math.sqrt(k) + math.sqrt(2 * math.log(n))
    complexity = (
        2 + 2 * focal + 2 * k * math.log1p(norm**2 / (k * rho**2)) + 4 * k * math.log(root_k)
        + 4 * math.log(2 * math.pi**2 * math.sqrt(n) * (n * focal + 1) ** 2 / (3 * delta))
    )  # fmt: skip
    return Bound(
        2 * focal_sam_loss / balance,
        -lam * rho**2 * trace / (2 * root_k**2 * balance),
        lam * complexity / (n * balance),
        40 * (highest_loss + lam * focal) * math.log(4 / delta) / (3 * n * balance),
    )


def focal_weight(counts: Sequence[int], gamma: float) -> float:
    """Psi, the mean of (1 - pi_y)^gamma over the training set (Li et al. 2025 Theorem 4.1): smaller for a larger gamma."""
    n = sum(counts)
    return math.fsum((1 - c / n) ** gamma * c / n for c in counts)


def escape_threshold(
    gradient: float, learning_rate: float, rho: float, mu: float = 1.0, tail_share: float = 1.0
) -> float:
    """The eigenvalue below which SAM moves mu times as far along it as SGD, within two steps or more.

    `tail_share` 1 is SAM (Lyu et al. 2025 Theorem 1); the share r of tail samples in the training set is ImbSAM, in the case
    that the Hessian is the same for all samples (the proof of Proposition 5, Eq. 76): the smaller r, the further down.

    Args:
        gradient: L, the largest norm of a gradient on the way.
        learning_rate: eta.
        rho: radius of the perturbation.
        mu: at least 1.
        tail_share: r in (0, 1].

    Raises:
        ValueError: a number is out of its range.
    """
    require(
        POSITIVE, "escape_threshold", gradient=gradient, learning_rate=learning_rate, rho=rho, tail_share=tail_share
    )
    if mu < 1 or tail_share > 1:
        raise ValueError(
            f"escape_threshold: mu is at least 1, tail_share at most 1 (mu={mu}, tail_share={tail_share})."
        )
    half = (1 + mu) / 2 * learning_rate
    root = math.sqrt(half**2 + (2 + mu) * learning_rate * rho * tail_share / gradient)
    return -gradient / (learning_rate * rho * tail_share) * (half + root)


def weingarten(hessian_product: Tensor, gradient: Tensor) -> Tensor:
    """W v for the Weingarten matrix W = (I - g g^T / alpha^2) H / alpha, alpha^2 = 1 + ||g||^2 (Lyu et al. 2025 Eq. 5).

    The eigenvalues of W are the principal curvatures of the loss surface; where the gradient vanishes, W = H.

    Args:
        hessian_product: H v (k,).
        gradient: g (k,).

    Returns:
        W v (k,).
    """
    alpha_squared = 1 + gradient @ gradient
    return (hessian_product - gradient * (gradient @ hessian_product) / alpha_squared) / alpha_squared.sqrt()


def squared_gradient_norm(samples: int, mean_norm: float, variance: float) -> float:
    """E ||sum of the gradients of independent samples||^2 = n^2 ||mu||^2 + n tr Sigma.

    Lyu et al. 2025 Proposition 3 takes n^2 (||mu||^2 + tr Sigma), its upper limit, for head and tail; the two agree in what
    follows from them where the mean dominates: the head's gradient is (m / n)^2 times the tail's.

    Args:
        samples: n.
        mean_norm: ||mu||, of the mean gradient of a sample.
        variance: tr Sigma, summed over the weights.
    """
    return samples**2 * mean_norm**2 + samples * variance


def angles_to_sum(head: float, tail: float, cosine: float) -> tuple[float, float]:
    """Cosines of head and of tail perturbation with their sum (Lyu et al. 2025 Proposition 4, Eq. 61 and 62).

    For head >> tail they approach 1 and `cosine`: the sum is the head's direction.

    Args:
        head: ||eps_head||.
        tail: ||eps_tail||.
        cosine: of the angle between the two.

    Returns:
        (of the head, of the tail); NaN where the two cancel.
    """
    length = math.sqrt(max(0.0, head**2 + tail**2 + 2 * head * tail * cosine))
    if length == 0:
        return math.nan, math.nan
    return (head + tail * cosine) / length, (tail + head * cosine) / length


def _check(norm: float, weights: int, samples: int, rho: float, delta: float) -> None:
    require(COUNT, "bound", weights=weights, samples=samples - 1)
    require(POSITIVE, "bound", rho=rho)
    require(NON_NEGATIVE, "bound", norm=norm)
    require(PROBABILITY, "bound", delta=delta)
