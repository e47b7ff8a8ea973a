import pytest
import torch

from hf_ltsam.vector import WeightVector


def vector(*scales, dtype=torch.float64):
    torch.manual_seed(0)
    made = [WeightVector([torch.randn(3, 4, dtype=dtype), torch.randn(5, dtype=dtype)], s) for s in scales]
    return made if len(made) > 1 else made[0]


def flat(v):
    return torch.cat([t.flatten() for t in v.materialize()])


SCALES = [1.0, 2.5, -3, 0.0, torch.tensor(0.7, dtype=torch.float64)]


@pytest.mark.parametrize("a", SCALES)
@pytest.mark.parametrize("b", SCALES)
def test_algebra(a, b):
    u, v = vector(a, b)
    x, y = flat(u), flat(v)
    for ours, theirs in [
        (u + v, x + y), (u - v, x - y), (-u, -x), (3 * u, 3 * x), (u * 3, 3 * x), (u / 4, x / 4), (u * v, x * y),
        (abs(u), x.abs()), (u + 0.5, x + 0.5),
    ]:
        torch.testing.assert_close(flat(ours), theirs)
    torch.testing.assert_close(u.dot(v), x @ y)
    torch.testing.assert_close(u.norm(), x.norm())
    torch.testing.assert_close(flat(u.unit()), x / (x.norm() + 1e-12))


def test_scalar_multiples_share_their_tensors():
    g = vector(1.0)
    assert all(a is b for a, b in zip((0.1 * g.unit()).tensors, g.tensors))
    assert g.materialize() is g.tensors


@pytest.mark.parametrize("k", range(1, 200))
def test_a_divisor_comes_out_to_the_last_bit(k):
    g = vector(k)
    assert all(a is b for a, b in zip((g / k).materialize(), g.tensors))


def test_sums_keep_a_common_scalar():
    u, v = vector(3, 3)
    assert (u + v).scale == 3


def test_zero_vector_stays_zero():
    zero = 0.0 * vector(1.0)
    assert zero.unit().norm() == 0
    assert flat(zero).eq(0).all()


def test_zero_times_infinity_adds_nothing():
    finite, infinite = vector(1.0), WeightVector([torch.full((3, 4), torch.inf), torch.full((5,), torch.nan)])
    assert (finite + 0.0 * infinite).materialize() is finite.tensors


def test_norms_of_half_precision_are_summed_in_single():
    ones = WeightVector([torch.ones(1_000_000, dtype=torch.bfloat16)])
    assert ones.norm().dtype == torch.float32
    assert ones.norm().item() == pytest.approx(1000, rel=1e-4)
    assert ones.dot(ones).item() == pytest.approx(1e6, rel=1e-4)


def test_nothing_is_written():
    u, v = vector(2.0, 1.0)
    before = [t.clone() for t in u.tensors + v.tensors]
    _ = (u + v, u - v, u * v, 3 * u, abs(u), u.unit(), u.dot(v))
    assert all(torch.equal(a, b) for a, b in zip(before, u.tensors + v.tensors))
