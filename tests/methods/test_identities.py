"""What the methods have in common, in float64, with and without batch norm (methods.md, "Identities")."""

import pytest
import torch
from methods.problems import COUNTS, assert_equal, gradient_of, problem

from hf_ltsam.methods import make_method

ALL_TAIL, NO_TAIL = [5, 5, 4, 3], [500, 120, 100, 50]        # against a tail threshold of 20

# left method, right method, what makes them equal, tolerance
TABLE = [
    (("sam", {"rho": 0.0}), ("sgd", {}), {}, 0),
    (("asam", {"rho": 0.0}), ("sgd", {}), {}, 0),
    (("asam", {"rho": 0.3 / 1e8, "eta": 1e8}), ("sam", {"rho": 0.3}), {}, 1e-7),
    (("imbsam", {"rho": 0.3}), ("sam", {"rho": 0.3}), {"counts": ALL_TAIL}, 1e-14),
    (("imbsam", {"rho": 0.3}), ("sgd", {}), {"counts": NO_TAIL}, 1e-14),
    (("imbsam", {"rho": 0.0}), ("sgd", {}), {}, 1e-14),
    (("sse_sam", {"rho_head": 9.0, "rho_tail": 0.3, "gamma": 0.5, "normalizer": "group"}), ("imbsam", {"rho": 0.3}),
     {"progress": 0.5}, 1e-14),
    (("sse_sam", {"rho_head": 0.2, "rho_tail": 0.3, "gamma": 1.0}), ("sam_ext", {"rho_head": 0.2, "rho_tail": 0.3}),
     {"progress": 0.999}, 0),
    (("sam_ext", {"rho_head": 9.0, "rho_tail": 0.3}), ("sam", {"rho": 0.3}), {"counts": ALL_TAIL}, 1e-14),
    (("sam_ext", {"rho_head": 9.0, "rho_tail": 0.3, "normalizer": "group"}), ("sam", {"rho": 0.3}),
     {"counts": ALL_TAIL}, 1e-14),
    (("sam_ext", {"rho_head": 0.2, "rho_tail": 9.0}), ("sam", {"rho": 0.2}), {"counts": NO_TAIL}, 1e-14),
    (("sam_ext", {"rho_head": 0.2, "rho_tail": 9.0, "normalizer": "group"}), ("sam", {"rho": 0.2}),
     {"counts": NO_TAIL}, 1e-14),
    (("focal_sam", {"rho": 0.3, "gamma": 0.0, "lam": 1.0}), ("sam", {"rho": 0.3}), {}, 1e-14),
    (("focal_sam", {"rho": 0.3, "gamma": 2.0, "lam": 0.0}), ("sgd", {}), {}, 0),
    # Focal-SAM is near ImbSAM only while gamma pi_head >> 1 >> gamma pi_tail ...
    (("focal_sam", {"rho": 0.3, "gamma": 30.0, "lam": 1.0}), ("imbsam", {"rho": 0.3}),
     {"counts": [10**9, 10**9, 1, 1]}, 1e-8),
    # ... and tends to SGD as gamma grows, not to ImbSAM
    (("focal_sam", {"rho": 0.3, "gamma": 1e5, "lam": 1.0}), ("sgd", {}), {}, 1e-10),
]


@pytest.mark.parametrize("model", ["plain", "batch norm"])
@pytest.mark.parametrize(("left", "right", "setting", "tolerance"), TABLE)
def test_identity(left, right, setting, tolerance, model):
    given = problem(model, **{"counts": COUNTS, **setting})
    ours = gradient_of(make_method(left[0], **left[1]), given)
    assert_equal(ours, gradient_of(make_method(right[0], **right[1]), given), tolerance)


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
    for name, args in [("sam", {"rho": 0.3}), ("asam", {}), ("imbsam", {"rho": 0.3}), ("focal_sam", {"rho": 0.3}),
                       ("sse_sam", {}), ("sam_ext", {})]:
        other = torch.cat([v.flatten() for v in gradient_of(make_method(name, **args), given)])
        assert (other - sgd).norm() > 1e-3 * sgd.norm(), name
