"""Lanczos, density and trace against dense spectra, scipy and the Marchenko-Pastur law."""

import math

import numpy as np
import pytest
import torch
from curvature.problems import Dense, full_matrix, mean_loss, samples, small_net
from scipy.sparse.linalg import LinearOperator, eigsh

from hf_ltsam.curvature import (
    Hessian,
    fixed_for_curvature,
    grid_moment,
    hutchinson,
    lanczos,
    ratios,
    spectral_density,
    unit_start,
)


def symmetric(eigenvalues, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues), len(eigenvalues))))
    return Dense(torch.tensor(Q @ np.diag(eigenvalues) @ Q.T, dtype=dtype))


def wishart(P=1000, ratio=0.25, seed=0):
    """X^T X / n with n = P / ratio standard normal rows."""
    X = np.random.default_rng(seed).standard_normal((int(P / ratio), P))
    return Dense(torch.tensor(X.T @ X / len(X)))


# --- Lanczos ---------------------------------------------------------------------------------------------------------


def test_all_steps_give_all_eigenvalues():
    eigenvalues = np.linspace(-2, 5, 12)
    values, weights, bounds = lanczos(symmetric(eigenvalues), torch.ones(12, dtype=torch.float64), 12).ritz()
    np.testing.assert_allclose(values, eigenvalues, atol=1e-10)
    assert abs(float(weights.sum()) - 1) < 1e-12 and float(bounds.max()) < 1e-8


def test_no_eigenvalue_appears_twice():
    """Without reorthogonalisation the outlier comes back as a ghost within some 30 steps."""
    eigenvalues = np.concatenate([np.linspace(0, 1, 299), [100.0]])
    operator = symmetric(eigenvalues, dtype=torch.float32)
    values, _, _ = lanczos(operator, unit_start(operator, 0), 120).ritz()
    assert sum(abs(float(v) - 100) < 1e-2 for v in values) == 1
    assert float(values[:-1].max()) < 1.01


def test_it_stops_where_the_space_is_exhausted():
    operator = symmetric(np.array([3.0, 3.0, 3.0, -1.0, -1.0, 7.0]))
    T = lanczos(operator, torch.arange(1.0, 7, dtype=torch.float64), 6)
    assert operator.products == len(T.diagonal) == 3
    np.testing.assert_allclose(T.ritz()[0], [-1, 3, 7], atol=1e-10)


def test_a_zero_operator():
    density = spectral_density(Dense(torch.zeros(5, 5, dtype=torch.float64)), steps=5)
    assert density.lam_min.value == density.lam_max.value == 0
    grid, phi, _ = density.on_grid()
    assert abs(grid_moment(grid, phi, 0) - 1) < 1e-6
    assert ratios(0.0, 0.0) == {"abs_min_over_max": None, "abs_max_over_min": None}


def test_every_error_bound_holds_and_they_shrink():
    eigenvalues = np.random.default_rng(5).standard_normal(400) ** 3
    operator = symmetric(eigenvalues)
    largest = []
    for steps in (5, 20, 60):
        values, _, bounds = lanczos(operator, unit_start(operator, 1), steps).ritz()
        distance = np.abs(eigenvalues[:, None] - values.numpy()).min(axis=0)
        assert np.all(distance <= bounds.numpy() + 1e-9)
        largest.append(float(bounds[-1]))
    assert largest[0] > largest[1] > largest[2] and largest[2] < 1e-6


def test_extremes_of_a_net_agree_with_scipy():
    model, (x, y) = small_net(), samples()
    with fixed_for_curvature(model):
        H = Hessian(mean_loss(model, x, y))
        density = spectral_density(H, steps=30)
        as_scipy = LinearOperator(
            (H.size, H.size), matvec=lambda v: H(torch.tensor(v.ravel())).numpy(), dtype=np.float64
        )
        low, high = (eigsh(as_scipy, k=1, which=which)[0][0] for which in ("SA", "LA"))
    assert density.lam_max.value == pytest.approx(high, abs=1e-9) and density.lam_min.value == pytest.approx(
        low, abs=1e-9
    )
    assert density.lam_max.error_bound < 1e-6


def test_what_overflows_is_refused():
    with pytest.raises(ValueError, match="step 1 is not finite"):
        spectral_density(Dense(torch.full((3, 3), math.inf)), steps=2)
    with pytest.raises(ValueError, match=r"steps=.*at least 1, got 0"):
        spectral_density(Dense(torch.eye(3)), steps=0)


def test_the_ratios_of_the_sources():
    assert ratios(-2.0, 8.0) == {"abs_min_over_max": 0.25, "abs_max_over_min": 4.0}


# --- density ---------------------------------------------------------------------------------------------------------


def test_marchenko_pastur():
    """Edges (1 -+ sqrt(ratio))^2, moments 1, 1 + r, 1 + 3r + r^2, and the density itself in between."""
    r = 0.25
    density = spectral_density(wishart(ratio=r), steps=60, probes=10)
    assert density.lam_min.value == pytest.approx((1 - math.sqrt(r)) ** 2, abs=0.02)
    assert density.lam_max.value == pytest.approx((1 + math.sqrt(r)) ** 2, abs=0.04)
    for order, exact in ((1, 1), (2, 1 + r), (3, 1 + 3 * r + r**2)):
        assert density.moment(order) == pytest.approx(exact, abs=5 * density.moment_error(order) + 0.01)
    grid, phi, sigma = density.on_grid(smoothing=0.04)
    low, high = (1 - math.sqrt(r)) ** 2, (1 + math.sqrt(r)) ** 2
    law = np.sqrt(np.clip((high - grid) * (grid - low), 0, None)) / (2 * math.pi * r * grid.clamp_min(1e-9))
    kernel = np.exp(-0.5 * ((grid[:, None] - grid) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    smoothed = kernel @ law * (grid[1] - grid[0])
    assert float((phi - smoothed).abs().max()) < 0.05 * float(smoothed.max())


def test_the_density_integrates_to_one_and_knows_its_moments():
    density = spectral_density(symmetric(np.linspace(-1, 3, 200)), steps=40, probes=3)
    assert len(density.nodes) == len(density.weights) == 120
    grid, phi, sigma = density.on_grid()
    assert grid_moment(grid, phi, 0) == pytest.approx(1, abs=1e-6)
    assert grid_moment(grid, phi, 1) == pytest.approx(density.moment(1), abs=1e-6)
    assert grid_moment(grid, phi, 2) == pytest.approx(density.moment(2) + sigma**2, abs=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_error_of_a_moment_is_its_deviation_over_start_vectors(order):
    operator = symmetric(np.linspace(-1, 3, 80))
    exact = float((torch.linalg.eigvalsh(operator.matrix) ** order).mean())
    runs = [spectral_density(operator, steps=20, seed=seed) for seed in range(300)]
    errors = np.array([run.moment(order) - exact for run in runs])
    stated = np.mean([run.moment_error(order) for run in runs])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(stated, rel=0.12)
    twice = spectral_density(operator, steps=20, probes=4)
    assert twice.moment_error(order) == pytest.approx(stated / 2, rel=0.3)


def test_a_seed_gives_the_same_density():
    operator = symmetric(np.linspace(-1, 3, 50))
    one, same, other = (spectral_density(operator, steps=10, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(one.nodes, same.nodes) and not torch.equal(one.nodes, other.nodes)


# --- trace -----------------------------------------------------------------------------------------------------------


def test_hutchinson_is_exact_for_a_diagonal():
    diagonal = torch.tensor([1.0, -3.0, 0.5], dtype=torch.float64)
    traces = hutchinson(Dense(diagonal.diag()), probes=3)
    assert traces.trace.value == -1.5 and traces.trace.standard_error == 0
    assert traces.trace_of_square.value == float(diagonal.square().sum())


def test_hutchinson_and_its_error():
    model, (x, y) = small_net(), samples()
    with fixed_for_curvature(model):
        H = Hessian(mean_loss(model, x, y))
        matrix = full_matrix(H)
    dense, exact = Dense(matrix), float(matrix.trace())
    runs = [hutchinson(dense, probes=20, seed=seed) for seed in range(100)]
    errors = np.array([run.trace.value - exact for run in runs])
    stated = np.mean([run.trace.standard_error for run in runs])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(stated, rel=0.25)
    squares = np.array([run.trace_of_square.value for run in runs])
    assert squares.mean() == pytest.approx(float(matrix.square().sum()), rel=0.05)
    assert dense.products == 2000


def test_one_probe_has_no_error():
    assert math.isnan(hutchinson(Dense(torch.eye(3)), probes=1).trace.standard_error)
