"""What the methods have in common, in float64, with and without batch norm (methods.md, "Identities")."""

import pytest
import torch
from methods.problems import COUNTS, assert_equal, gradient_at, gradient_of, problem, step_of

from hf_ltsam.methods import make_method

ALL_TAIL, NO_TAIL = [5, 5, 4, 3], [500, 120, 100, 50]  # against a tail threshold of 20

# left method, right method, what makes them equal, tolerance
TABLE = [
    (("sam", {"rho": 0.0}), ("sgd", {}), {}, 0),
    (("asam", {"rho": 0.0}), ("sgd", {}), {}, 0),
    (("asam", {"rho": 0.3 / 1e8, "eta": 1e8}), ("sam", {"rho": 0.3}), {}, 1e-7),
    (("imbsam", {"rho": 0.3}), ("sam", {"rho": 0.3}), {"counts": ALL_TAIL}, 1e-14),
    (("imbsam", {"rho": 0.3}), ("sgd", {}), {"counts": NO_TAIL}, 1e-14),
    (("imbsam", {"rho": 0.0}), ("sgd", {}), {}, 1e-14),
    (
        ("sse_sam", {"rho_head": 9.0, "rho_tail": 0.3, "gamma": 0.5, "normalizer": "group"}),
        ("imbsam", {"rho": 0.3}),
        {"progress": 0.5},
        1e-14,
    ),
    (
        ("sse_sam", {"rho_head": 0.2, "rho_tail": 0.3, "gamma": 1.0}),
        ("sam_ext", {"rho_head": 0.2, "rho_tail": 0.3}),
        {"progress": 0.999},
        0,
    ),
    (("sam_ext", {"rho_head": 9.0, "rho_tail": 0.3}), ("sam", {"rho": 0.3}), {"counts": ALL_TAIL}, 1e-14),
    (
        ("sam_ext", {"rho_head": 9.0, "rho_tail": 0.3, "normalizer": "group"}),
        ("sam", {"rho": 0.3}),
        {"counts": ALL_TAIL},
        1e-14,
    ),
    (("sam_ext", {"rho_head": 0.2, "rho_tail": 9.0}), ("sam", {"rho": 0.2}), {"counts": NO_TAIL}, 1e-14),
    (
        ("sam_ext", {"rho_head": 0.2, "rho_tail": 9.0, "normalizer": "group"}),
        ("sam", {"rho": 0.2}),
        {"counts": NO_TAIL},
        1e-14,
    ),
    (("focal_sam", {"rho": 0.3, "gamma": 0.0, "lam": 1.0}), ("sam", {"rho": 0.3}), {}, 1e-14),
    (("focal_sam", {"rho": 0.3, "gamma": 2.0, "lam": 0.0}), ("sgd", {}), {}, 0),
    (("focal_sam", {"rho": 0.3, "gamma": 0.0, "lam": 1.0, "plain": "reuse"}), ("sam", {"rho": 0.3}), {}, 1e-14),
    # with one prior for all classes nothing is neglected
    (
        ("focal_sam", {"rho": 0.3, "gamma": 2.0, "lam": 0.7, "plain": "reuse"}),
        ("focal_sam", {"rho": 0.3, "gamma": 2.0, "lam": 0.7}),
        {"counts": [9, 9, 9, 9]},
        1e-14,
    ),
    (("gradient_norm", {"rho": 0.3, "alpha": 1.0}), ("sam", {"rho": 0.3}), {}, 0),
    (("gradient_norm", {"rho": 0.3, "alpha": 0.0}), ("sgd", {}), {}, 0),
    (("wsam", {"rho": 0.3, "gamma": 0.5}), ("sam", {"rho": 0.3}), {}, 0),
    (("wsam", {"rho": 0.3, "gamma": 0.0}), ("sgd", {}), {}, 0),
    (("wsam", {"rho": 0.3, "gamma": 0.75}), ("gradient_norm", {"rho": 0.3, "alpha": 3.0}), {}, 0),
    (("momentum_focal_sam", {"rho": 0.0}), ("sgd", {}), {}, 0),
    # with one prior for all classes f is a number, which neither the ascent nor the quotient sees
    (
        ("momentum_focal_sam", {"rho": 0.3, "gamma": 2.0, "plain": "reuse"}),
        ("momentum_focal_sam", {"rho": 0.3, "gamma": 0.0}),
        {"counts": [9, 9, 9, 9]},
        1e-12,
    ),
    (("gsa", {"scale": 0.0}), ("sgd", {}), {}, 1e-14),
    (("gsa", {"scale": 9.0, "groups": 1}), ("sgd", {}), {}, 1e-14),
    (("gsam", {"rho": 0.3, "alpha": 0.0}), ("sam", {"rho": 0.3}), {}, 0),
    (("looksam", {"rho": 0.3, "every": 1}), ("sam", {"rho": 0.3}), {}, 0),
    (("msam", {"rho": 0.0}), ("sgd", {}), {}, 0),
    (("friendly_sam", {"rho": 0.3, "sigma": 0.0}), ("sam", {"rho": 0.3}), {}, 0),
    (("friendly_sam", {"rho": 0.0}), ("sgd", {}), {}, 0),
    (("le_sam", {"sigma": 0.0}), ("sgd", {}), {}, 0),
    (("le_sam", {"sigma": 1e9, "rho_max": 0.3}), ("sam", {"rho": 0.3}), {}, 1e-14),
    (("xsam", {"rho": 0.0}), ("sgd", {}), {}, 1e-9),
    (("gnm", {"sigma": 0.0}), ("sgd", {}), {}, 0),
    (("pgd", {"sigma": 0.0}), ("sgd", {}), {}, 0),
    (("model_perturbation", {"rho": 0.0}), ("sgd", {}), {}, 0),
    (("lpf_sgd", {"gamma": 0.0, "shards": 1}), ("sgd", {}), {}, 0),
    (("cc_sam", {"scale": 0.0}), ("sgd", {}), {}, 1e-14),
    (("cc_sam", {"scale": 9.0, "mix": 0.0}), ("sgd", {}), {}, 1e-14),
    # Focal-SAM is near ImbSAM only while gamma pi_head >> 1 >> gamma pi_tail ...
    (
        ("focal_sam", {"rho": 0.3, "gamma": 30.0, "lam": 1.0}),
        ("imbsam", {"rho": 0.3}),
        {"counts": [10**9, 10**9, 1, 1]},
        1e-8,
    ),
    # ... and tends to SGD as gamma grows, not to ImbSAM
    (("focal_sam", {"rho": 0.3, "gamma": 1e5, "lam": 1.0}), ("sgd", {}), {}, 1e-10),
]


@pytest.mark.parametrize("model", ["plain", "batch norm"])
@pytest.mark.parametrize(("left", "right", "setting", "tolerance"), TABLE)
def test_identity(left, right, setting, tolerance, model):
    """On three steps in a row, so that methods with a memory have one."""
    given = problem(model, **{"counts": COUNTS, **setting})
    mine, other = {}, {}
    for step in range(3):
        given.step = step
        ours = gradient_at(make_method(left[0], **left[1]), given, step_of(given, memory=mine))
        theirs = gradient_at(make_method(right[0], **right[1]), given, step_of(given, memory=other))
        assert_equal(ours, theirs, tolerance)


def test_lpf_sgd_without_noise_is_sgd_where_samples_do_not_interact():
    lpf_sgd, sgd = make_method("lpf_sgd", gamma=0.0, shards=3), make_method("sgd")
    assert_equal(gradient_of(lpf_sgd, problem()), gradient_of(sgd, problem()), 1e-14)
    with pytest.raises(AssertionError):  # each shard has its own batch statistics
        assert_equal(gradient_of(lpf_sgd, problem("batch norm")), gradient_of(sgd, problem("batch norm")), 1e-3)


@pytest.mark.parametrize("model", ["plain", "batch norm"])
def test_sam_is_sgd_plus_rho_times_a_hessian_vector_product(model):
    given = problem(model)
    parameters = list(given.model.parameters())
    loss = torch.nn.functional.cross_entropy(given.model(given.x), given.y)
    g = torch.autograd.grad(loss, parameters, create_graph=True)
    length = torch.cat([v.flatten() for v in g]).norm().detach()
    Hu = torch.autograd.grad(g, parameters, [v.detach() / length for v in g])
    rho = 1e-6
    sam, sgd = (gradient_of(make_method(n, **a), given) for n, a in (("sam", {"rho": rho}), ("sgd", {})))
    assert_equal([(a - b) / rho for a, b in zip(sam, sgd)], list(Hu), 1e-5)


def test_the_paths_differ_where_no_identity_holds():
    """Guards the table above against problems on which every method gives the same."""
    given = problem()
    sgd = torch.cat([v.flatten() for v in gradient_of(make_method("sgd"), given)])
    for name, args in [
        ("sam", {"rho": 0.3}),
        ("asam", {}),
        ("imbsam", {"rho": 0.3}),
        ("focal_sam", {"rho": 0.3}),
        ("sse_sam", {}),
        ("sam_ext", {}),
        ("gradient_norm", {"rho": 0.3}),
        ("gsam", {}),
        ("wsam", {"rho": 0.3}),
        ("gsa", {"scale": 0.3}),
        ("cc_sam", {"scale": 0.3}),
        ("friendly_sam", {"rho": 0.3}),
        ("looksam", {"rho": 0.3}),
        ("pgd", {"sigma": 0.1}),
        ("lpf_sgd", {"gamma": 0.1}),
        ("model_perturbation", {"rho": 0.3}),
        ("le_sam", {"sigma": 0.2}),
        ("xsam", {"rho": 0.3}),
        ("gnm", {"sigma": 0.2}),
    ]:
        other = torch.cat([v.flatten() for v in gradient_of(make_method(name, **args), given)])
        assert (other - sgd).norm() > 1e-3 * sgd.norm(), name
