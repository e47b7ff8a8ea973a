"""The spectral density by stochastic Lanczos quadrature, with the errors of its moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hf_ltsam.curvature.hessian import SymmetricOperator
from hf_ltsam.curvature.lanczos import Tridiagonal, lanczos, unit_start
from hf_ltsam.hyperparameters import COUNT, require

SMOOTHING = 0.01  # standard deviation of the kernel, as a share of lam_max - lam_min


@dataclass(frozen=True)
class Extreme:
    """An extreme eigenvalue: some eigenvalue lies within `error_bound` of `value`."""

    value: float
    error_bound: float


@dataclass(frozen=True)
class SpectralDensity:
    """phi(t) = (1/P) sum_j delta(t - lam_j), estimated by Gauss quadrature from random start vectors.

    Args:
        tridiagonals: one per start vector.
        size: P.

    Source: Ghorbani et al. 2019 Sec. 2; Golub and Meurant 2010.
    """

    tridiagonals: tuple[Tridiagonal, ...]
    size: int

    @cached_property
    def _ritz(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [t.ritz() for t in self.tridiagonals]

    @property
    def nodes(self) -> Tensor:
        """Ritz values (K,) of all start vectors, one start after the other."""
        return torch.cat([values for values, _, _ in self._ritz])

    @property
    def weights(self) -> Tensor:
        """Their weights (K,); they add up to 1."""
        return torch.cat([weights for _, weights, _ in self._ritz]) / len(self._ritz)

    @property
    def lam_max(self) -> Extreme:
        """The largest eigenvalue, approached from below."""
        return max((Extreme(float(v[-1]), float(e[-1])) for v, _, e in self._ritz), key=lambda extreme: extreme.value)

    @property
    def lam_min(self) -> Extreme:
        """The smallest eigenvalue, approached from above."""
        return min((Extreme(float(v[0]), float(e[0])) for v, _, e in self._ritz), key=lambda extreme: extreme.value)

    def moment(self, order: int) -> float:
        """(1/P) tr H^order; exact for the start vectors up to the order 2m - 1."""
        return float(self.weights @ self.nodes**order)

    def moment_error(self, order: int) -> float:
        """Standard error of that moment from the choice of the start vectors.

        For v uniform on the unit sphere, v^T A v has the mean tr A / P and the variance
        2/(P + 2) (tr A^2 / P - (tr A / P)^2); here A = H^order.
        """
        variance = max(self.moment(2 * order) - self.moment(order) ** 2, 0.0)
        return math.sqrt(2 * variance / (self.size + 2) / len(self.tridiagonals))

    def on_grid(self, points: int = 1024, smoothing: float = SMOOTHING) -> tuple[Tensor, Tensor, float]:
        """The density smoothed by a Gaussian kernel.

        Args:
            points: of the grid, which reaches 6 deviations beyond the extreme eigenvalues.
            smoothing: deviation of the kernel as a share of lam_max - lam_min.

        Returns:
            The grid (points,), the density there (points,), which integrates to 1, and the kernel's deviation.
        """
        low, high = self.lam_min.value, self.lam_max.value
        sigma = smoothing * ((high - low) or abs(high) or 1.0)
        grid = torch.linspace(low - 6 * sigma, high + 6 * sigma, points, dtype=torch.float64)
        kernels = torch.exp(-0.5 * ((grid[:, None] - self.nodes) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
        return grid, kernels @ self.weights, sigma


def spectral_density(
    operator: SymmetricOperator,
    steps: int = 100,
    probes: int = 1,
    seed: int = 0,
    on_product: Callable[[], None] = lambda: None,
) -> SpectralDensity:
    """Stochastic Lanczos quadrature.

    Args:
        steps: m of each Lanczos run.
        probes: random start vectors, drawn with the seeds seed, seed + 1, ...

    Cost: steps * probes products; memory for steps * P numbers.
    """
    require(COUNT, "spectral_density", steps=steps, probes=probes)
    runs = [lanczos(operator, unit_start(operator, seed + k), steps, on_product) for k in range(probes)]
    return SpectralDensity(tuple(runs), operator.size)


def grid_moment(grid: Tensor, density: Tensor, order: int) -> float:
    """The moment of a density on a grid, by the trapezoidal rule."""
    return float(torch.trapezoid(density * grid**order, grid))


def ratios(lam_min: float, lam_max: float) -> dict[str, float | None]:
    """Both ratios of the sources; None where the divisor is zero.

    `abs_min_over_max` is |lam_min / lam_max| of Rangwani et al. 2022 (small: convex), `abs_max_over_min` its inverse
    |lam_max / lam_min|, the lambda_ratio of Lyu et al. 2025 (large: convex).
    """
    return {
        "abs_min_over_max": abs(lam_min / lam_max) if lam_max else None,
        "abs_max_over_min": abs(lam_max / lam_min) if lam_min else None,
    }
