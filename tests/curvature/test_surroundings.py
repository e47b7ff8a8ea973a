"""The sharpness curve and loss surfaces: what moves, by how much, and that everything comes back."""

import math

import numpy as np
import pytest
import torch
from curvature.problems import chunks_of, samples, small_net, softmax_regression
from torch import nn

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.curvature import (
    SharpnessCurve,
    class_means,
    filter_normalised,
    fixed_for_curvature,
    loss_surface,
    sample_losses_of,
    sharpness_curve,
    suggest_rho,
    towards,
)
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import CrossEntropy


def naive_losses(x, y, W):
    return np.array([np.log(np.exp(W @ row).sum()) - (W @ row)[label] for row, label in zip(x.numpy(), y)])


def naive_gradient(x, y, W, a):
    total = np.zeros_like(W)
    for row, label, weight in zip(x.numpy(), y, a):
        p = np.exp(W @ row) / np.exp(W @ row).sum()
        total += weight * np.outer(p - np.eye(len(W))[label], row)
    return total


@pytest.mark.parametrize("weighted", [False, True])
def test_the_sharpness_curve_by_hand(weighted):
    """Per batch: eps = rho g / |g| of the batch's own gradient; per class: the mean over its samples."""
    model, (x, y) = softmax_regression(), samples(13)
    W, a = model.inner.weight.detach().numpy(), np.ones(13)
    if weighted:
        a = np.linspace(1, 3, 13)
        a /= a.sum()
    batches, rhos = chunks_of(x, y, 5), [0.5, 0.1, 2.0]
    plain, moved, slopes = np.zeros(13), np.zeros((3, 13)), 0.0
    for rows in (slice(0, 5), slice(5, 10), slice(10, 13)):
        share = a[rows] / a[rows].sum()
        g = naive_gradient(x[rows], y[rows], W, share)
        plain[rows] = naive_losses(x[rows], y[rows], W)
        slopes += np.linalg.norm(g) * a[rows].sum() / a.sum()
        for k, rho in enumerate(sorted(rhos)):
            moved[k, rows] = naive_losses(x[rows], y[rows], W + rho * g / np.linalg.norm(g))
    before = model.inner.weight.detach().clone()
    seen = []
    curve = sharpness_curve(
        TrainableWeights(model),
        batches,
        sample_losses_of(model, CrossEntropy(), ClassStatistics.from_labels(y)),
        3,
        rhos,
        torch.tensor(a) if weighted else None,
        seen.append,
    )
    assert curve.rhos.tolist() == [0.1, 0.5, 2.0] and seen == [5, 5, 3]
    for c in range(3):
        mine = (y == c).numpy()
        np.testing.assert_allclose(curve.losses[c], plain[mine].mean(), atol=1e-12)
        np.testing.assert_allclose(curve.gaps[:, c], (moved - plain)[:, mine].mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(curve.mean_gaps, (moved - plain) @ a / a.sum(), atol=1e-12)
    assert curve.loss == pytest.approx(plain @ a / a.sum()) and curve.slope == pytest.approx(slopes)
    assert torch.equal(model.inner.weight, before)


def curve_of(gap, loss=0.5, slope=2.0):
    rhos = torch.logspace(-3, 1, 200, dtype=torch.float64)
    nothing = torch.zeros(1, dtype=torch.float64)
    return SharpnessCurve(rhos, nothing, nothing, loss, gap(rhos), slope)


def test_the_suggested_range_of_a_known_curve():
    """Gap 2 rho + 5 rho^2: a tenth above its first-order part at 0.04; loss 0.5 + gap = 2.5 at (sqrt 44 - 2) / 10."""
    found = suggest_rho(curve_of(lambda rho: 2 * rho + 5 * rho**2), chance=2.5)
    assert found.low == pytest.approx(0.04, rel=1e-3) and found.high == pytest.approx(
        (math.sqrt(44) - 2) / 10, rel=1e-3
    )


def test_a_range_that_was_not_reached_is_not_made_up():
    flat = suggest_rho(curve_of(lambda rho: 2 * rho), chance=100.0)
    assert flat.low is None and flat.high is None
    assert suggest_rho(curve_of(lambda rho: 2 * rho + 5 * rho**2, loss=3.0), chance=2.5).high is None


def test_radii_are_positive():
    model, (x, y) = softmax_regression(), samples()
    losses = sample_losses_of(model, CrossEntropy(), ClassStatistics.from_labels(y))
    with pytest.raises(ValueError, match=r"positive and finite, got -0\.1"):
        sharpness_curve(TrainableWeights(model), chunks_of(x, y, 5), losses, 3, [-0.1])


# --- surfaces --------------------------------------------------------------------------------------------------------


def test_filters_have_the_norm_of_the_models_filters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    direction = filter_normalised(TrainableWeights(model), seed=3).offset.tensors
    assert torch.equal(direction[0], filter_normalised(TrainableWeights(model), seed=3).offset.tensors[0])
    assert not torch.equal(direction[0], filter_normalised(TrainableWeights(model), seed=4).offset.tensors[0])
    for d, p in zip(direction, model.parameters()):
        if p.ndim == 1:
            assert not d.any()
        else:
            torch.testing.assert_close(d.flatten(1).norm(dim=1), p.detach().flatten(1).norm(dim=1))
            assert (d.flatten(1) * p.flatten(1)).sum(1).abs().max() < 0.9 * p.flatten(1).norm(dim=1).square().max()


def parts(model, x, y):
    losses = sample_losses_of(model, CrossEntropy(), ClassStatistics.from_labels(y))
    return TrainableWeights(model), lambda: class_means(chunks_of(x, y, 5), losses, 3)


def test_a_surface_by_hand():
    model, (x, y) = softmax_regression(), samples()
    weights, measure = parts(model, x, y)
    one, two = (filter_normalised(weights, seed) for seed in (0, 1))
    W, before = model.inner.weight.detach().numpy().copy(), model.inner.weight.detach().clone()
    across, up = [-1.0, 0.0, 0.5], [0.0, 2.0]
    surface = loss_surface(weights, measure, [one, two], [across, up])
    assert surface.shape == (3, 2, 3)
    for i, s in enumerate(across):
        for j, t in enumerate(up):
            at = naive_losses(x, y, W + s * one.offset.tensors[0].numpy() + t * two.offset.tensors[0].numpy())
            np.testing.assert_allclose(surface[i, j], [at[(y == c).numpy()].mean() for c in range(3)], atol=1e-12)
    line = loss_surface(weights, measure, [one], [across])
    assert line.shape == (3, 3)
    torch.testing.assert_close(line, surface[:, 0])
    assert torch.equal(model.inner.weight, before)


def test_the_way_to_another_checkpoint_ends_there():
    model, other, (x, y) = small_net(1), small_net(2), samples()
    here = {name: value.clone() for name, value in model.state_dict().items()}
    with fixed_for_curvature(model), fixed_for_curvature(other):
        weights, measure = parts(model, x, y)
        line = loss_surface(weights, measure, [towards(weights, other.state_dict())], [[0.0, 0.5, 1.0]])
        torch.testing.assert_close(line[0], measure())
        torch.testing.assert_close(line[2], parts(other, x, y)[1]())
    assert all(torch.equal(value, here[name]) for name, value in model.state_dict().items())


def test_beyond_both_ends_no_variance_becomes_negative():
    model, other, (x, y) = small_net(1), small_net(2), samples()
    model.inner[2].running_var.fill_(0.1)
    other.inner[2].running_var.fill_(5.0)
    with fixed_for_curvature(model):
        weights, measure = parts(model, x, y)
        line = loss_surface(weights, measure, [towards(weights, other.state_dict())], [[-0.5, 1.5]])
    assert torch.isfinite(line).all()


def test_everything_comes_back_after_an_exception():
    model, other, (x, y) = small_net(1), small_net(2), samples()
    here = {name: value.clone() for name, value in model.state_dict().items()}
    weights, _ = parts(model, x, y)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loss_surface(weights, interrupted, [towards(weights, other.state_dict())], [[1.0]])
    assert all(torch.equal(value, here[name]) for name, value in model.state_dict().items())


def test_another_architecture_is_refused():
    weights = TrainableWeights(small_net())
    with pytest.raises(ValueError, match=r"inner\.0\.weight.*not there"):
        towards(weights, {})
    with pytest.raises(ValueError, match=r"inner\.weight.*\(3, 5\) here, is of shape \(3, 6\)"):
        towards(TrainableWeights(softmax_regression()), softmax_regression(features=6).state_dict())


def test_class_means_name_what_is_missing():
    model, (x, y) = softmax_regression(), samples()
    kept = y != 1
    losses = sample_losses_of(model, CrossEntropy(), ClassStatistics(counts=(4, 4, 4)))
    means = class_means(chunks_of(x[kept], y[kept], 3), losses, 3)
    assert math.isnan(means[1]) and torch.isfinite(means[[0, 2]]).all()
