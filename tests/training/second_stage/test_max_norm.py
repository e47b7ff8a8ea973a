"""MaxNorm keeps every class vector inside a ball: against loops over numbers, in training and across a resume."""

import math

import pytest
import torch
from torch import nn
from training.second_stage.problem import network, second_stage

from hf_ltsam.training.second_stage import make_second_stage


def naive_radius(rows, share):
    """Alshammari et al. 2022, code: a share of the way from the shortest class vector to the longest."""
    lengths = [math.sqrt(sum(x * x for x in row)) for row in rows]
    return min(lengths) + share * (max(lengths) - min(lengths))


def naive_projection(rows, radius):
    """Alshammari et al. 2022 Eq. 5: theta_k <- min(1, delta / ||theta_k||) theta_k."""
    projected = []
    for row in rows:
        length = math.sqrt(sum(x * x for x in row))
        factor = 1.0 if length <= radius else radius / length
        projected.append([factor * x for x in row])
    return projected


def projected(classifier, **arguments):
    stage = make_second_stage("maxnorm", **arguments)
    (ball,) = stage.callbacks(stage.head(classifier, seed=0))
    ball.on_step_end(None, None, None)
    return classifier, ball


ROWS = [[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-1.2, 0.5]]


@pytest.mark.parametrize(
    "arguments", [{}, {"share": 0.5}, {"share": 1.0}, {"radius": 1.0}, {"radius": 1.0, "share": 0.5}]
)
def test_the_projection_of_the_paper(arguments):
    classifier = nn.Linear(2, 4, dtype=torch.float64)
    classifier.weight.data = torch.tensor(ROWS, dtype=torch.float64)
    bias = classifier.bias.detach().clone()
    radius = arguments.get("radius", naive_radius(ROWS, arguments.get("share", 0.1)))
    _, ball = projected(classifier, **arguments)
    assert ball.radius == pytest.approx(radius)
    torch.testing.assert_close(
        classifier.weight.detach(), torch.tensor(naive_projection(ROWS, radius), dtype=torch.float64)
    )
    assert torch.equal(classifier.bias, bias)  # only class vectors have a length that the paper bounds


def test_the_radius_is_that_of_the_first_stage_whatever_the_training_makes_of_the_weights():
    classifier, ball = projected(nn.Linear(2, 4), share=0.3)
    radius = ball.radius
    with torch.no_grad():
        classifier.weight.mul_(10)
    ball.on_step_end(None, None, None)
    assert ball.radius == radius and classifier.weight.norm(dim=1).max() <= radius * (1 + 1e-6)


@pytest.mark.parametrize("settings", [{}, {"swa_start": 0.5}], ids=["plain", "averaged"])
def test_every_step_of_a_training_ends_inside_the_ball(settings, tmp_path):
    trainer = second_stage(network(), tmp_path, "maxnorm", save_strategy="no", **settings)
    first = network().classifier.weight.detach().norm(dim=1)
    radius = float(first.min() + 0.1 * (first.max() - first.min()))
    trainer.train()
    lengths = trainer.put_into_model().classifier.weight.norm(dim=1)
    assert lengths.max() <= radius * (1 + 1e-6) and lengths.max() >= 0.5 * radius
    free = second_stage(network(), tmp_path / "free", "maxnorm", stage_args={"radius": 1e6}, save_strategy="no")
    free.train()  # the test can fail: without the ball vectors are longer
    assert free.put_into_model().classifier.weight.norm(dim=1).max() > radius


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": 0}, "radius.*positive"),
        ({"radius": math.nan}, "radius.*positive"),
        ({"share": 1.5}, r"share.*\[0, 1\]"),
        ({"share": math.nan}, r"share.*\[0, 1\]"),
        ({"tau": 1}, "has no argument 'tau'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_second_stage("maxnorm", **arguments)


def test_a_cosine_classifier_has_no_lengths(tmp_path):
    with pytest.raises(ValueError, match="only directions count"):
        second_stage(network("cosine"), tmp_path, "maxnorm")
