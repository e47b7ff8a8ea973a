"""CC-SAM where the published code divides by zero, and where its options must differ."""

import pytest
import torch
from methods import references
from methods.problems import MODELS, assert_equal, gradient_of, problem
from torch import nn

from hf_ltsam.methods import make_method

OPTIONS = [{"norm": n, "parameters": p} for n in ("global", "per_tensor") for p in ("classifier", "all")]


def saturated(dtype=torch.float64):
    """The samples of class 0 are fitted so well that their loss has no gradient at all."""
    given = problem()
    given.model = nn.Linear(6, 4).to(dtype)
    given.x = given.x.to(dtype)
    with torch.no_grad():
        given.model.bias[0] = 2000.0
        given.x[given.y != 0] *= 0.1
        given.model.weight[0] = 0.0
    given.y = torch.where(given.y == 1, 0, given.y)
    return given


@pytest.mark.parametrize("args", OPTIONS)
def test_a_class_without_a_gradient_is_not_perturbed(args):
    given = saturated()
    of_class_0 = references.G(given, lambda c: float(c == 0))
    assert all(g.abs().max() == 0 for g in of_class_0)
    ours = gradient_of(make_method("cc_sam", scale=0.3, **args), given)
    assert all(g.isfinite().all() for g in ours)
    assert_equal(ours, references.cc_sam(given, scale=0.3, **args), 1e-11)


@pytest.mark.parametrize("args", OPTIONS)
def test_a_class_without_a_gradient_is_finite_in_float32(args):
    assert all(g.isfinite().all() for g in gradient_of(make_method("cc_sam", **args), saturated(torch.float32)))


@pytest.mark.parametrize("args", OPTIONS)
def test_a_class_with_one_image_counts_as_one_with_two(args):
    """n_c - 1 is bounded below by 1."""

    def gradient(images):
        return gradient_of(make_method("cc_sam", scale=0.3, **args), problem(counts=[500, 120, 20, images]))

    one, two, three = map(gradient, (1, 2, 3))
    assert all(g.isfinite().all() for g in one)
    assert_equal(one, two, 0)
    with pytest.raises(AssertionError):
        assert_equal(two, three, 1e-6)


def test_rare_classes_are_perturbed_more():
    """rho_c* falls with n_c^(-1/4)."""
    from hf_ltsam.landscape.weights import TrainableWeights

    lengths = {}
    moved = TrainableWeights.moved
    for images in (10_001, 1_001, 101):
        norms = []

        def spy(self, offset, measured=False, norms=norms):
            norms.append(None if offset is None else offset.norm().item())
            return moved(self, offset)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainableWeights, "moved", spy)
            gradient_of(make_method("cc_sam", scale=0.3), problem(labels="one class", counts=[500, 120, 20, images]))
        lengths[images] = norms[-1]
    assert lengths[1_001] == pytest.approx(lengths[10_001] * 10**0.25, rel=1e-9)
    assert lengths[101] == pytest.approx(lengths[1_001] * 10**0.25, rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_every_option_matters(model):
    base = {"scale": 0.5}
    reference = gradient_of(make_method("cc_sam", **base), problem(model))
    for change in (
        {"scale": 0.2},
        {"mix": 0.5},
        {"norm": "per_tensor"},
        {"class_weighting": "inverse_prior"},
        {"parameters": "all"},
    ):
        with pytest.raises(AssertionError):
            assert_equal(reference, gradient_of(make_method("cc_sam", **{**base, **change}), problem(model)), 1e-5)
