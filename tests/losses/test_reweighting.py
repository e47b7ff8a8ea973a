"""Deferred re-weighting against the weights written out, and against what a schedule of epochs asks for."""

import math

import numpy as np
import pytest
import torch

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.losses.reweighting import SCHEMES, Reweighting, class_weights

COUNTS = (5000, 600, 45, 2)
STATISTICS = ClassStatistics(counts=COUNTS)
LIKE = torch.zeros((), dtype=torch.float64)


def naive(scheme, n, beta=0.9999):
    raw = {
        "none": [1.0 for m in n],
        "inverse": [1 / m for m in n],  # Rangwani et al. 2022 Eq. 2
        "effective_number": [(1 - beta) / (1 - beta**m) for m in n],  # Cui 2019 Sec. 4
    }[scheme]
    return [w * len(n) / sum(raw) for w in raw]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_class_weights(scheme):
    got = class_weights(scheme, STATISTICS, LIKE)
    np.testing.assert_allclose(got.numpy(), naive(scheme, COUNTS), rtol=1e-11)
    assert got.mean().item() == pytest.approx(1.0, abs=1e-14)
    assert class_weights(scheme, STATISTICS, LIKE) is got  # made once


def test_the_schemes():
    assert set(SCHEMES) == {"none", "inverse", "effective_number"}


@pytest.mark.parametrize("beta, limit", [(0.0, "none"), (1 - 1e-15, "inverse")])
def test_effective_number_lies_between_none_and_inverse(beta, limit):
    """Cui 2019 Sec. 3.2: beta = 0 is no re-weighting, beta -> 1 is the inverse frequency."""
    got = class_weights("effective_number", STATISTICS, LIKE, beta=beta)
    np.testing.assert_allclose(got.numpy(), naive(limit, COUNTS), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_device_of_like(dtype):
    got = class_weights("inverse", STATISTICS, torch.zeros((), dtype=dtype))
    assert got.dtype == dtype and got.isfinite().all()


@pytest.mark.parametrize("scheme", ["inverse", "effective_number"])
def test_weights_of_samples(scheme):
    labels = torch.tensor([3, 0, 0, 2])
    got = Reweighting(scheme).weights(0.0, STATISTICS, labels, LIKE)
    expected = naive(scheme, COUNTS)
    assert got.tolist() == pytest.approx([expected[3], expected[0], expected[0], expected[2]])


@pytest.mark.parametrize("progress, active", [(0.0, False), (math.nextafter(0.8, 0), False), (0.8, True), (0.99, True)])
def test_deferred_until_start(progress, active):
    weights = Reweighting("inverse", start=0.8).weights(progress, STATISTICS, torch.tensor([0]), LIKE)
    assert (weights is not None) == active


def test_epoch_160_of_200_is_the_first_reweighted_one():
    """progress = completed steps / total steps, whatever the number of steps per epoch."""
    for steps in (1, 7, 85, 97, 391):
        drw = Reweighting("effective_number", start=160 / 200)
        first = next(k for k in range(200 * steps) if drw.active(k / (200 * steps)))
        assert first == 160 * steps


def test_start_of_one_never_begins():
    assert Reweighting("inverse", start=1.0).weights(0.9999, STATISTICS, torch.tensor([0]), LIKE) is None


def test_no_scheme_is_no_weight_at_any_time():
    assert Reweighting().weights(0.5, STATISTICS, torch.tensor([0]), LIKE) is None


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Reweighting("inverze"), r"Reweighting\(scheme=.*'inverze'.*'inverse'"),
        (lambda: class_weights("effective", STATISTICS, LIKE), r"'effective'.*'effective_number'"),
        (lambda: class_weights("effective_number", STATISTICS, LIKE, beta=1.0), r"beta.*\[0, 1\).*1\.0"),
        (lambda: Reweighting("inverse", start=-0.1), r"Reweighting\(start=.*\[0, 1\].*-0\.1"),
        (lambda: Reweighting("inverse", start=160), r"Reweighting\(start=.*share of training.*160"),
        (lambda: Reweighting("inverse", start=float("nan")), r"Reweighting\(start=.*nan"),
        (lambda: Reweighting("inverse", start="0.8"), r"Reweighting\(start=.*'0.8'"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
