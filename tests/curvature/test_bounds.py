"""Bounds and geometry of the sources: their formulas written out again, their limits, and what the proofs rest on."""

import itertools
import math
import statistics

import pytest
import torch

from hf_ltsam.curvature.bounds import (
    angles_to_sum,
    escape_threshold,
    focal_weight,
    li_2025_bound,
    lyu_2025_bound,
    squared_gradient_norm,
    weingarten,
    zhou_2023_bound,
    zhou_2023_radius,
    zhou_2023_root,
)

log, sqrt, pi = math.log, math.sqrt, math.pi
COUNTS = (50, 30, 20)


def test_zhou_2023_equation_15_written_out():
    expected = (1 - 1 / sqrt(100)) * 0.3 + 1 / sqrt(100)
    expected += sqrt((3.0**2 / (4 * 0.5**2) * (1 + sqrt(log(100) / 7)) ** 2 + log(100 / 0.05) / 2) / 99)
    assert zhou_2023_bound(0.3, 3.0, 7, 100, 0.5).value == pytest.approx(expected, rel=1e-12)


def test_zhou_2023_for_many_weights_is_theorem_1():
    """Eq. 16 without its O(1): the factor of ||w||^2 goes to 1, and log n / delta stands once and not half."""
    root = zhou_2023_root(norm=40.0, k=10**12, n=5000, rho=0.5)
    assert root == pytest.approx(sqrt((40.0**2 / (4 * 0.5**2) + log(5000 / 0.05) / 2) / 4999), rel=1e-4)


def test_zhou_2023_radius_has_the_smallest_bound():
    norm, gradient, k, n = 20.0, 0.3, 466_906, 5000
    terms = lambda rho: sqrt(k) * rho * gradient + norm / (2 * rho * sqrt(n - 1))  # noqa: E731
    radii = [10 ** (-6 + 9 * step / 9000) for step in range(9001)]
    assert zhou_2023_radius(norm, gradient, k, n) == pytest.approx(min(radii, key=terms), rel=2e-3)


def test_zhou_2023_says_something_for_the_head_class_of_cifar_10():
    """Fig. 3: 5,000 images; a ResNet-32 (466,906 weights, ||w|| about 20) and a radius like 1 keep the root below 1."""
    assert zhou_2023_root(norm=20.0, k=466_906, n=5000, rho=1.0) < 1
    assert zhou_2023_root(norm=20.0, k=466_906, n=5, rho=1.0) > 1, "nothing is known of the rarest class"


def test_lyu_2025_equation_11_written_out():
    d, n, rho, w, delta = 7, 100, 0.5, 3.0, 0.1
    expected = 0.3 + rho**2 * sqrt(d / (4 * pi)) * 2.5 + 4.0 / sqrt(n)
    expected += (
        (d * log(1 + w**2 * (sqrt(d) + sqrt(log(n))) ** 2 / (d * rho**2)) / 4 + 0.25 + log(n / delta) + 2 * log(6 * n + 3 * d))
        / (n - 1)
    ) ** 0.5  # fmt: skip
    bound = lyu_2025_bound(0.3, 2.5, w, d, n, rho, highest_loss=4.0, delta=delta)
    assert bound.value == pytest.approx(expected, rel=1e-12)


def test_li_2025_equation_50_written_out():
    k, rho, w, gamma, lam, B, delta = 7, 0.5, 3.0, 2.0, 0.8, 4.0, 0.1
    n, C, pi_C = 100, 3, 0.2
    B1 = (0.5**2 * 0.5 + 0.7**2 * 0.3 + 0.8**2 * 0.2) * B
    inner = 2 + 2 * B1 + 2 * k * log(1 + w**2 / (k * rho**2)) + 4 * k * log(sqrt(k) + sqrt(2 * log(n)))
    inner += 4 * log(2 * pi**2 * sqrt(n) * (n * B1 + 1) ** 2 / (3 * delta))
    expected = 2 * 0.3 / (C * pi_C) + 40 * (B + lam * B1) * log(4 / delta) / (3 * n * C * pi_C)
    expected += -lam * rho**2 / (2 * (sqrt(k) + sqrt(2 * log(n))) ** 2 * C * pi_C) * 2.5 + lam * inner / (n * C * pi_C)
    assert li_2025_bound(0.3, 2.5, w, k, rho, COUNTS, gamma, lam, B, delta).value == pytest.approx(expected, rel=1e-12)


def test_li_2025_insights():
    """Below Theorem 4.1: a larger gamma makes Psi smaller, a larger lambda makes (II) and (III) larger."""
    assert focal_weight(COUNTS, 0.0) == pytest.approx(1)
    assert focal_weight(COUNTS, 2.0) < focal_weight(COUNTS, 1.0) < 1
    small, large = (li_2025_bound(0.3, 2.5, 3.0, 7, 0.5, COUNTS, 2.0, lam, 4.0) for lam in (0.1, 1.0))
    assert large.curvature < small.curvature < 0
    assert large.complexity > small.complexity


def test_the_orders_in_n():
    """Li et al. 2025: 1/n for theirs, 1/sqrt(n) for the others."""

    def complexity(bound, n):
        return bound(n).complexity

    def li(n):
        return li_2025_bound(0.3, 2.5, 3.0, 7, 0.5, (n // 2, n // 2), 2.0, 0.8, 4.0)

    def lyu(n):
        return lyu_2025_bound(0.3, 2.5, 3.0, 7, n, 0.5, 4.0)

    def zhou(n):
        return zhou_2023_bound(0.3, 3.0, 7, n, 0.5)

    for bound, order in ((li, 1), (lyu, 0.5), (zhou, 0.5)):
        ratio = complexity(bound, 10**8) / complexity(bound, 10**12)
        assert 0.5 * 10 ** (4 * order) < ratio < 1.5 * 10 ** (4 * order), bound.__name__


@pytest.mark.parametrize("tail_share", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("mu", [1.0, 3.0])
def test_escape_threshold_solves_the_system_of_the_proof(mu, tail_share):
    """Lyu et al. 2025 Eq. 56, with L / r in place of L for ImbSAM (above Eq. 74)."""
    L, eta, rho = 0.7, 0.01, 0.05
    lam = escape_threshold(L, eta, rho, mu, tail_share)
    assert lam < 0
    assert eta * rho * tail_share * lam**2 / L + (1 + mu) * eta * lam - (1 + mu) == pytest.approx(1, rel=1e-9)


def test_imbsam_escapes_later():
    thresholds = [escape_threshold(0.7, 0.01, 0.05, tail_share=r) for r in (1.0, 0.5, 0.1, 0.01)]
    assert thresholds == sorted(thresholds, reverse=True)


def test_squared_gradient_norm_of_independent_samples():
    """All outcomes of three samples with gradients of one dimension, 1 or 4."""
    outcomes = [sum(o) ** 2 for o in itertools.product((1.0, 4.0), repeat=3)]
    assert squared_gradient_norm(3, 2.5, 1.5**2) == pytest.approx(statistics.mean(outcomes))


def test_angles_to_sum():
    head, tail = torch.tensor([3.0, 4.0]), torch.tensor([-1.0, 1.0])
    cosine = torch.nn.functional.cosine_similarity
    expected = [cosine(part, head + tail, dim=0).item() for part in (head, tail)]
    angles = angles_to_sum(5.0, sqrt(2), cosine(head, tail, dim=0).item())
    assert angles == pytest.approx(expected, rel=1e-6)
    assert angles_to_sum(1e6, 1.0, 0.3) == pytest.approx((1.0, 0.3), abs=1e-5)  # Proposition 4
    assert all(math.isnan(c) for c in angles_to_sum(1.0, 1.0, -1.0))


def test_weingarten_has_the_principal_curvatures_of_a_sphere():
    point, radius = torch.tensor([0.3, -0.5], dtype=torch.float64), 2.0

    def surface(w):
        return -(radius**2 - w @ w).sqrt()

    gradient = torch.func.grad(surface)(point)
    hessian = torch.func.hessian(surface)(point)
    W = torch.stack([weingarten(column, gradient) for column in hessian.T]).T
    assert torch.linalg.eigvals(W).real.tolist() == pytest.approx([1 / radius] * 2, rel=1e-9)
    assert torch.equal(weingarten(hessian[0], torch.zeros_like(gradient)), hessian[0])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"rho": 0.0}, "rho"), ({"rho": math.nan}, "rho"), ({"norm": -1.0}, "norm"), ({"n": 1}, "samples"),
        ({"k": 0}, "weights"), ({"delta": 0.0}, "delta"), ({"delta": 1.0}, "delta"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(change, name):
    with pytest.raises(ValueError, match=name):
        zhou_2023_bound(**{"loss_at_radius": 0.3, "norm": 3.0, "k": 7, "n": 100, "rho": 0.5, **change})


@pytest.mark.parametrize("change", [{"mu": 0.5}, {"tail_share": 1.5}, {"tail_share": 0.0}, {"gradient": 0.0}])
def test_the_threshold_refuses_numbers_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        escape_threshold(**{"gradient": 0.7, "learning_rate": 0.01, "rho": 0.05, **change})


def test_a_class_without_a_sample_has_no_bound():
    with pytest.raises(ValueError, match="rarest_class"):
        li_2025_bound(0.3, 2.5, 3.0, 7, 0.5, (5, 0), 2.0, 0.8, 4.0)
