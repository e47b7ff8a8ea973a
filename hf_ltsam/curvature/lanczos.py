"""Lanczos: extreme eigenvalues of a symmetric operator and the nodes of its spectral density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_ltsam.curvature.hessian import SymmetricOperator
from hf_ltsam.hyperparameters import COUNT, require

BREAKDOWN = 1e-6  # of a residual against the largest entry so far, in float32: the Krylov space is exhausted


@dataclass(frozen=True)
class Tridiagonal:
    """T = Q^T H Q of m steps, from a start vector of length 1.

    Args:
        diagonal: alpha (m,), float64.
        coupling: beta (m,), float64; the last one is the norm of the residual, coupled to a step that was not taken.
        precision: relative precision of the products.
    """

    diagonal: Tensor
    coupling: Tensor
    precision: float = 0.0

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values (m,) ascending, the weights of Gauss quadrature (m,), and error bounds (m,).

        An eigenvalue of H lies within the bound of each Ritz value, up to rounding, for which the precision times the
        largest Ritz value is added. The weights add up to 1.

        Source: Golub and Welsch 1969; the bound is Parlett 1980, Theorem 13.2.1.
        """
        inner = self.coupling[:-1]
        matrix = self.diagonal.diag() + inner.diag(1) + inner.diag(-1)
        values, vectors = torch.linalg.eigh(matrix)
        bounds = (self.coupling[-1] * vectors[-1]).abs() + self.precision * values.abs().max()
        return values, vectors[0].square(), bounds


def lanczos(
    operator: SymmetricOperator,
    start: Tensor,
    steps: int,
    on_product: Callable[[], None] = lambda: None,
) -> Tridiagonal:
    """m steps with full reorthogonalisation, so that no eigenvalue appears twice.

    The whole basis is kept: m P numbers. Fewer steps are taken where the Krylov space is exhausted before.

    Args:
        start: (P,), not zero.
        steps: m, at least 1.
        on_product: called after every product with the operator.

    Cost: m products.
    Source: Lanczos 1950; Paige 1970 for the need to reorthogonalise; twice is enough (Giraud et al. 2005).

    Raises:
        ValueError: `steps` below 1, or a product that is not finite.
    """
    require(COUNT, "lanczos", steps=steps)
    basis = torch.empty(min(steps, operator.size), operator.size, dtype=operator.dtype, device=operator.device)
    basis[0] = start / start.norm()
    alphas: list[float] = []
    betas: list[float] = []
    for k in range(len(basis)):
        residual = operator(basis[k])
        on_product()
        alphas.append(float(residual.double() @ basis[k].double()))
        for _ in range(2):
            residual = residual - basis[: k + 1].T @ (basis[: k + 1] @ residual)
        betas.append(float(residual.double().norm()))
        _require_finite(alphas[-1] + betas[-1], k)
        if k + 1 == len(basis) or betas[-1] <= _tolerance(operator.dtype) * max(map(abs, alphas + betas)):
            break
        basis[k + 1] = residual / betas[-1]
    diagonal, coupling = (torch.tensor(values, dtype=torch.float64) for values in (alphas, betas))
    return Tridiagonal(diagonal, coupling, torch.finfo(operator.dtype).eps)


def unit_start(operator: SymmetricOperator, seed: int) -> Tensor:
    """A vector (P,) drawn uniformly from the unit sphere, the same on every device."""
    normal = torch.randn(operator.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit: Tensor = normal / normal.norm()
    return unit.to(operator.device, operator.dtype)


def _tolerance(dtype: torch.dtype) -> float:
    return BREAKDOWN if dtype == torch.float32 else 1e-13


def _require_finite(value: float, step: int) -> None:
    if value - value != 0:
        raise ValueError(
            f"The product of Lanczos step {step + 1} is not finite: the loss or its derivatives overflow at these weights. "
            "Look at the loss first; a diverged model has no curvature."
        )
