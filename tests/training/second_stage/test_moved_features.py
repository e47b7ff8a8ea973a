"""CC-SAM's second stage against its description, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_ltsam import ClassStatistics
from hf_ltsam.models import CosineClassifier
from hf_ltsam.training.second_stage import Head, make_second_stage

COUNTS = [500, 60, 7, 2]
STATISTICS = ClassStatistics(COUNTS)


def problem(cosine=False):
    torch.manual_seed(1)
    layer = CosineClassifier(5, 4, scale=8.0) if cosine else nn.Linear(5, 4)
    x, y = torch.randn(9, 5, dtype=torch.float64), torch.tensor([0, 0, 2, 1, 0, 2, 0, 1, 2])  # class 3 does not occur
    return Head(layer.double()), x, y


def reference(layer, x, y, epoch, cap, ramp=30, offset=0.01, factor=0.5):
    """Class by class, as the published code is described."""
    x, moved, w = x.detach(), x.detach().clone(), torch.zeros(len(y), dtype=torch.float64)
    for c in set(y.tolist()):
        rows = y == c
        features = x.clone().requires_grad_()
        F.cross_entropy(layer(features[rows]), y[rows]).backward()
        d = features.grad / (features.grad.norm() + 1e-12)
        w[rows] = factor * math.log(max(COUNTS) / COUNTS[c] + offset)
        moved = moved + factor * math.log(max(COUNTS) / COUNTS[c] + offset) * d
    alpha = min((epoch + 1) / ramp, cap)
    plain, other = (F.cross_entropy(layer(features), y, reduction="none") for features in (x, moved))
    return alpha * (w * other).mean() + (1 - alpha) * plain.mean()


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize(
    ("epoch", "args"),
    [
        (0, {"cap": 1.0}),
        (14, {"cap": 1.0}),
        (29, {"cap": 1.0}),
        (40, {"cap": 1.0}),
        (14, {"cap": 0.3}),
        (3, {"cap": 0.9, "ramp_epochs": 5, "offset": 0.5, "factor": 2.0}),
    ],
)
def test_loss_and_gradient(cosine, epoch, args):
    head, x, y = problem(cosine)
    loss = make_second_stage("cc_sam", **args).loss(
        lambda z, t, s: F.cross_entropy(z, t, reduction="none"), head, lambda: epoch
    )
    ours = loss(head(x), y, STATISTICS).mean()
    named = {{"ramp_epochs": "ramp"}.get(k, k): v for k, v in args.items()}
    expected = reference(head.classifier, x, y, epoch, **named)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    parameters = list(head.parameters())
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_without_gradients_the_loss_is_the_same():
    head, x, y = problem()
    loss = make_second_stage("cc_sam").loss(lambda z, t, s: F.cross_entropy(z, t, reduction="none"), head, lambda: 9)
    with torch.no_grad():
        value = loss(head(x), y, STATISTICS)
    assert not value.requires_grad and torch.equal(value, loss(head(x), y, STATISTICS).detach())


def test_features_whose_loss_has_no_gradient_stay():
    head, x, y = problem()
    with torch.no_grad():
        head.classifier.weight.zero_()
    loss = make_second_stage("cc_sam").loss(lambda z, t, s: F.cross_entropy(z, t, reduction="none"), head, lambda: 29)
    assert loss(head(x), y, STATISTICS).isfinite().all()
