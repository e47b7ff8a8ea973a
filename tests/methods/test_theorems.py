"""What the papers prove about saddle points, on quadratics on which the conditions really hold."""

import math

import pytest
import torch
from torch import nn

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.landscape.landscape import LossLandscape, MicroBatch
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.methods import make_method
from hf_ltsam.methods.context import StepContext


class Quadratic(nn.Module):
    """Sample i has the loss w . H w / 2 + b_i . w."""

    def __init__(self, H, w):
        super().__init__()
        self.H = H
        self.w = nn.Parameter(w.clone())

    def forward(self, b):
        return self.w @ self.H @ self.w / 2 + b @ self.w


def landscape(model, b):
    batch = MicroBatch({"b": b}, torch.zeros(len(b), dtype=torch.long))
    return LossLandscape(TrainableWeights(model), [batch], lambda batch: model(batch.inputs["b"]), lambda z, _: z)


# ---- Rangwani et al. 2022 Theorem 2: eps = rho grad, not normalised (Rangwani et al. 2022 Eq. 6) ----


def second_moments(lam_min, rho):
    """E <v_min, .>^2 over the samples, of SAM's gradient and of the plain one."""
    torch.manual_seed(0)
    Q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    H = Q @ torch.diag(torch.tensor([lam_min, 0.3, 1.0, 2.0], dtype=torch.float64)) @ Q.T
    model = Quadratic(H, torch.randn(4, dtype=torch.float64))
    sam, plain = [], []
    for b in torch.randn(50, 1, 4, dtype=torch.float64):  # one stochastic gradient each
        G = landscape(model, b).gradient
        g = G()
        plain.append(g.tensors[0] @ Q[:, 0])
        sam.append(G(at=rho * g).tensors[0] @ Q[:, 0])
    return torch.stack(sam).square().mean().item(), torch.stack(plain).square().mean().item()


@pytest.mark.parametrize(("lam_min", "rho"), [(-0.5, 0.1), (-30.0, 0.05), (-50.0, 0.05), (-0.4, 10.0), (0.2, 0.5)])
def test_theorem_2_of_saddle_longtail(lam_min, rho):
    sam, plain = second_moments(lam_min, rho)
    assert sam == pytest.approx((1 + rho * lam_min) ** 2 * plain, rel=1e-9)


@pytest.mark.parametrize(
    ("lam_min", "grows"), [(-0.1, False), (-10.0, False), (-39.9, False), (-40.1, True), (-100.0, True)]
)
def test_negative_curvature_is_amplified_only_beyond_two_over_rho(lam_min, grows):
    """The factor is at least 1 for lam_min <= -2/rho; between that and 0 the component shrinks."""
    sam, plain = second_moments(lam_min, rho=0.05)  # 2 / rho = 40
    assert (sam > plain) == grows


# ---- Lyu et al. 2025 Theorem 1 ----

ETA, RHO, G0 = 0.01, 0.05, (1.0, 1e-9)  # the case of which the condition is true


def trajectory(name, lam_min, g0, steps):
    """Weights w_0 ... w_t of SGD with a learning rate ETA, and the norms of the gradients there."""
    H = torch.diag(torch.tensor([0.0, lam_min], dtype=torch.float64))
    model, b = Quadratic(H, torch.zeros(2, dtype=torch.float64)), torch.tensor([g0], dtype=torch.float64)
    method = make_method(name, **({"rho": RHO} if name == "sam" else {}))
    weights, norms = [], []
    for step in range(steps + 1):
        loss = landscape(model, b)
        weights.append(model.w.detach().clone())
        norms.append(loss.gradient().norm().item())
        context = StepContext(torch.zeros(1, dtype=torch.long), ClassStatistics([1, 1]), 0.0, b, step=step)
        update = method.gradient(loss, context).materialize()[0]
        with torch.no_grad():
            model.w.sub_(ETA * update)
    return weights, norms


def condition(lam_min, L, mu):
    """Lyu et al. 2025 Theorem 1: below which lam_min must be."""
    half = (1 + mu) / 2 * ETA
    return lam_min <= -L / (ETA * RHO) * (half + math.sqrt(half**2 + (2 + mu) * ETA * RHO / L))


def travelled(lam_min, g0, steps):
    """|<v_min, w_t - w_0>| of SAM and of SGD, and L."""
    (sam, sam_norms), (sgd, sgd_norms) = (trajectory(name, lam_min, g0, steps) for name in ("sam", "sgd"))
    return abs(float(sam[-1][1] - sam[0][1])), abs(float(sgd[-1][1] - sgd[0][1])), max(sam_norms + sgd_norms)


@pytest.mark.parametrize("mu", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_theorem_1_of_sse_sam(steps, mu):
    sam, sgd, L = travelled(-200.0, G0, steps)
    assert condition(-200.0, L, mu), "the theorem says nothing here"
    assert sam >= mu * sgd + ((mu**2 + mu) * steps - 2 * mu**2 - mu) * G0[1] / 200.0
    # by the recursions of its proof: each step multiplies the gradient by 3 (SGD) and by -17 (SAM, ||g|| = 1)
    assert sgd == pytest.approx((3**steps - 1) * G0[1] / 200, rel=1e-9)
    assert sam == pytest.approx(abs((-17) ** steps - 1) * G0[1] / 200, rel=1e-5)


@pytest.mark.parametrize(("lam_min", "g0"), [(-1.0, (0.1, 0.1)), (-200.0, (1.0, 1.0)), (-99.0, G0)])
def test_a_generic_saddle_does_not_meet_the_condition(lam_min, g0):
    """L is the largest gradient along both trajectories, and grows with them."""
    *_, L = travelled(lam_min, g0, 5)
    assert not condition(lam_min, L, mu=1.0)
