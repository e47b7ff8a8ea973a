import pytest
import torch

from hf_ltsam.landscape.vector import WeightVector


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
        (u + v, x + y),
        (u - v, x - y),
        (-u, -x),
        (3 * u, 3 * x),
        (u * 3, 3 * x),
        (u / 4, x / 4),
        (u * v, x * y),
        (abs(u), x.abs()),
        (u + 0.5, x + 0.5),
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


# ---- vectors that lend their memory ----


def fresh(*tensors):
    return WeightVector(tensors or [torch.ones(2, 3), torch.ones(4)], fresh=True)


POINT = [torch.zeros(2, 3), torch.zeros(4)]


def test_a_vector_that_nobody_else_holds_can_become_a_point():
    u = 2 * fresh().unit()  # outside of the assertion, which would hold what lies in between
    assert u.can_become(POINT)
    v = 3 * fresh()
    point = [p + 1 for p in POINT]
    assert all(torch.equal(t, torch.full_like(t, 4.0)) for t in v.become(point))
    v.become_offset(point)
    assert v.scale == 1 and all(torch.equal(t, torch.full_like(t, 3.0)) for t in v.materialize())
    assert v.norm() == pytest.approx(3 * 10**0.5)


def test_a_vector_that_somebody_holds_cannot():
    g = fresh()
    u = g.unit()
    assert not u.can_become(POINT) and not g.can_become(POINT)
    del u
    assert g.can_become(POINT)
    part = g.only([True, False])
    assert not g.can_become(POINT)
    del part
    assert g.can_become(POINT)
    assert g.tensors and not g.can_become(POINT), "tensors that were looked at may have been kept"
    assert not WeightVector([torch.ones(2, 3), torch.ones(4)]).can_become(POINT)


def test_memory_of_another_kind_cannot_hold_a_point():
    shared = torch.ones(6)
    assert not fresh(shared.view(2, 3), shared[:4]).can_become(POINT), "two of its tensors overlap"
    assert not fresh(torch.ones(3, 2).T, torch.ones(4)).can_become(POINT), "laid out otherwise"
    assert not fresh(torch.ones(2, 3), torch.ones(8)[:4]).can_become(POINT), "a piece of something larger"
    assert not fresh(torch.ones(2, 3), torch.ones(1).expand(4)).can_become(POINT)
    assert not fresh(torch.ones(2, 3, dtype=torch.float64), torch.ones(4)).can_become(POINT)
    twice = torch.ones(4)
    assert not fresh(torch.ones(2, 3), twice, twice).can_become([*POINT, torch.zeros(4)])
    assert not fresh(torch.ones(2, 3), torch.ones(4), torch.ones(4)).can_become([*POINT, POINT[1]]), (
        "two parameters, one memory"
    )
