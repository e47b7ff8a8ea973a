"""Every method against its naive reference. A new method is a row in `TABLE`."""

import pytest
import torch
from methods import references
from methods.problems import LABELS, MODELS, assert_equal, gradient_at, gradient_of, problem, step_of

from hf_ltsam.methods import METHODS, make_method

TABLE = [
    ("sgd", {}),
    ("sam", {"rho": 0.05}),
    ("sam", {"rho": 1.5}),
    ("asam", {"rho": 0.5, "eta": 0.01}),
    ("asam", {"rho": 0.5, "eta": 0.0}),
    ("imbsam", {"rho": 0.3}),
    ("imbsam", {"rho": 0.3, "tail_weight": 2.0}),
    ("imbsam", {"rho": 0.3, "reduction": "group"}),
    ("sse_sam", {"rho_head": 0.2, "rho_tail": 0.4, "gamma": 0.7}),
    ("sse_sam", {"rho_head": 0.2, "rho_tail": 0.4, "gamma": 0.7, "normalizer": "group"}),
    ("sam_ext", {"rho_head": 0.2, "rho_tail": 0.4}),
    ("sam_ext", {"rho_head": 0.2, "rho_tail": 0.4, "normalizer": "group"}),
    ("focal_sam", {"rho": 0.3, "gamma": 3.2, "lam": 0.8}),
    ("focal_sam", {"rho": 0.3, "gamma": 0.8, "lam": 1.1}),
    ("focal_sam", {"rho": 0.3, "gamma": 0.8, "lam": 1.1, "plain": "reuse"}),
    ("gradient_norm", {"rho": 0.4, "alpha": 0.8}),
    ("wsam", {"rho": 0.4, "gamma": 0.3}),
    ("wsam", {"rho": 0.4, "gamma": 0.9}),
    ("momentum_focal_sam", {"rho": 0.3, "gamma": 0.8, "momentum": 0.9}),
    ("momentum_focal_sam", {"rho": 0.3, "gamma": 3.2, "momentum": 0.6, "plain": "reuse"}),
    ("gsa", {"scale": 0.3, "groups": 2}),
    ("gsa", {"scale": 0.3, "groups": 3}),
    ("gsa", {"scale": 0.3, "groups": 9, "perturbation": "mean"}),
    ("gsam", {"rho": 0.4, "alpha": 0.4}),
    ("looksam", {"rho": 0.4, "every": 3, "alpha": 0.7}),
    ("msam", {"rho": 0.3, "momentum": 0.9}),
    ("msam", {"rho": 0.3, "momentum": 0.0}),
    ("friendly_sam", {"rho": 0.4, "sigma": 1.0, "beta": 0.9}),
    ("friendly_sam", {"rho": 0.4, "sigma": 0.5, "beta": 0.6}),
    ("le_sam", {"sigma": 0.2, "rho_max": 9.0}),
    ("le_sam", {"sigma": 9.0, "rho_max": 0.3}),
    ("xsam", {"rho": 0.4, "rho_max": 0.6, "every": 3}),
    ("xsam", {"rho": 0.4, "rho_max": 0.0, "every": 1}),
    ("cc_sam", {}),
    ("cc_sam", {"scale": 0.3, "mix": 0.6}),
    ("cc_sam", {"scale": 0.3, "norm": "per_tensor"}),
    ("cc_sam", {"scale": 0.3, "class_weighting": "inverse_prior"}),
    ("cc_sam", {"scale": 0.3, "parameters": "all"}),
    (
        "cc_sam",
        {"scale": 0.3, "norm": "per_tensor", "class_weighting": "inverse_prior", "parameters": "all", "mix": 0.3},
    ),
    ("pgd", {"sigma": 0.1}),
    ("lpf_sgd", {"gamma": 0.2, "shards": 2}),
    ("model_perturbation", {"rho": 0.5}),
    ("gnm", {"sigma": 0.2}),
]
IDS = [f"{name}-{'-'.join(map(str, args.values()))}" for name, args in TABLE]


def test_every_method_has_a_row():
    assert {name for name, _ in TABLE} == set(METHODS)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "args"), TABLE, ids=IDS)
def test_on_every_model(name, args, model):
    given = problem(model)
    assert_equal(gradient_of(make_method(name, **args), given), getattr(references, name)(given, **args))


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize(("name", "args"), TABLE, ids=IDS)
def test_on_every_kind_of_batch(name, args, labels):
    given = problem(labels=labels)
    assert_equal(gradient_of(make_method(name, **args), given), getattr(references, name)(given, **args))


@pytest.mark.parametrize("progress", [0.0, 0.69, 0.7, 0.99])
@pytest.mark.parametrize(("name", "args"), TABLE, ids=IDS)
def test_at_every_progress(name, args, progress):
    given = problem(progress=progress)
    assert_equal(gradient_of(make_method(name, **args), given), getattr(references, name)(given, **args))


@pytest.mark.parametrize(("name", "args"), TABLE, ids=IDS)
def test_over_seven_steps(name, args):
    """Each on weights, memory and random numbers of its own step, over two rounds of LookSAM's three."""
    given = problem()
    memory = {}
    for step in range(7):
        given.step, given.x = step, torch.cos((step + 1) * given.x)
        ours = gradient_at(make_method(name, **args), given, step_of(given, seed=5, memory=memory))
        assert_equal(ours, getattr(references, name)(given, **args), 1e-11)
        length = references.norm(ours)
        with torch.no_grad():
            for p, g in zip(given.model.parameters(), ours):
                p.sub_(0.2 / length * g)
    assert all(key.startswith(f"{name}.") for key in memory), "keys are named after their method"


@pytest.mark.parametrize(("name", "args"), TABLE, ids=IDS)
def test_does_not_depend_on_the_loss_divisor(name, args):
    given = problem()
    assert_equal(gradient_of(make_method(name, **args), given, divisor=3), getattr(references, name)(given, **args))


@pytest.mark.parametrize(("name", "args"), TABLE, ids=IDS)
def test_micro_batches_are_one_batch(name, args):
    given = problem()
    assert_equal(
        gradient_of(make_method(name, **args), given, micro_batches=3), getattr(references, name)(given, **args)
    )
