"""The Hessian operator against closed forms, double loops and finite differences."""

import numpy as np
import pytest
import torch
from curvature.problems import (
    chunks_of,
    full_matrix,
    hessian_by_double_loop,
    mean_loss,
    samples,
    small_net,
    softmax_regression,
)
from torch import nn

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, ClassStatistics
from hf_ltsam.curvature import Hessian, MeanLoss, fixed_for_curvature, sample_losses_of
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import CrossEntropy, LogitAdjustment


def closed_form(x, W, weights):
    """sum_i a_i (diag p_i - p_i p_i^T) kron x_i x_i^T, for W (C, D) flattened row by row."""
    x, W = x.numpy(), W.detach().numpy()
    H = np.zeros((W.size, W.size))
    for a, row in zip(weights, x):
        z = W @ row
        p = np.exp(z - z.max())
        p /= p.sum()
        H += a * np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row))
    return H


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_softmax_regression_has_its_closed_form_whatever_the_chunks(size):
    model, (x, y) = softmax_regression(), samples()
    H = full_matrix(Hessian(mean_loss(model, x, y, size)))
    np.testing.assert_allclose(H, closed_form(x, model.inner.weight, np.full(12, 1 / 12)), atol=1e-14)


def test_sample_weights():
    model, (x, y) = softmax_regression(), samples()
    a = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    a /= a.sum()
    H = full_matrix(Hessian(mean_loss(model, x, y, 5, sample_weights=a)))
    np.testing.assert_allclose(H, closed_form(x, model.inner.weight, a.numpy()), atol=1e-14)


@pytest.mark.parametrize("loss", [CrossEntropy(), LogitAdjustment(tau=2.0)])
def test_a_small_net_against_a_double_loop_over_the_loss(loss):
    model, (x, y) = small_net(), samples(10)
    objective = mean_loss(model, x, y, 4, loss)
    with fixed_for_curvature(model):
        H = full_matrix(Hessian(objective))
        naive = hessian_by_double_loop(mean_loss(model, x, y, 10, loss).value, list(model.parameters()))
    np.testing.assert_allclose(H, naive, atol=2e-6)
    assert np.linalg.eigvalsh(H)[0] < -1e-3  # a net has negative curvature: the check is not of Gauss-Newton


def test_finite_differences_of_the_gradient():
    model, (x, y) = small_net(), samples()
    objective = mean_loss(model, x, y)
    v = torch.randn(Hessian(objective).size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with fixed_for_curvature(model):
        product = Hessian(objective)(v)
        h, gradients = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                moved = torch.nn.utils.parameters_to_vector(model.parameters()) + sign * h * v
                torch.nn.utils.vector_to_parameters(moved, model.parameters())
            gradients.append(objective.gradient())
            with torch.no_grad():
                torch.nn.utils.vector_to_parameters(moved - sign * h * v, model.parameters())
    np.testing.assert_allclose(product, (gradients[0] - gradients[1]) / (2 * h), atol=1e-8)


def test_the_resnet_in_evaluation_mode_and_as_it_was_afterwards():
    torch.manual_seed(0)
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3)).double().train()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, y = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    objective = mean_loss(model, x, y, 4)
    v = torch.randn(Hessian(objective).size, dtype=torch.float64)
    with fixed_for_curvature(model):
        whole = Hessian(objective)(v)
        one_by_one = Hessian(mean_loss(model, x, y, 1))(v)
    torch.testing.assert_close(whole, one_by_one, rtol=1e-9, atol=1e-12)  # batch statistics would mix samples
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_memory_does_not_grow_with_the_class():
    """A chunk's graph is gone before the next one is built."""
    alive, most = [0], [0]

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.token = Token()
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    class Token:
        def __init__(self):
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self):
            alive[0] -= 1

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.eye(5, 3, dtype=torch.float64))

        def forward(self, pixel_values):
            return Counted.apply(pixel_values @ self.w) ** 2

    model, (x, y) = Net(), samples(40)
    hessian = Hessian(mean_loss(model, x, y, 2))
    hessian(torch.ones(15, dtype=torch.float64))
    assert most[0] <= 2 and alive[0] == 0


def test_only_trainable_weights():
    model, (x, y) = small_net(), samples()
    for p in model.inner[0].parameters():
        p.requires_grad_(False)
    with fixed_for_curvature(model):
        H = full_matrix(Hessian(mean_loss(model, x, y)))
        assert len(H) == sum(p.numel() for p in model.parameters() if p.requires_grad) == 8 + 15
        naive = hessian_by_double_loop(
            mean_loss(model, x, y, 12).value, [p for p in model.parameters() if p.requires_grad]
        )
    np.testing.assert_allclose(H, naive, atol=2e-6)


def test_the_modes_come_back_after_an_exception():
    model = small_net().train()
    model.inner[3].eval()
    with pytest.raises(KeyError), fixed_for_curvature(model):
        assert not any(m.training for m in model.modules())
        raise KeyError
    assert model.training and model.inner[2].training and not model.inner[3].training


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match=r"bfloat16.*float\(\)"), fixed_for_curvature(small_net().to(torch.bfloat16)):
        pass


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g.clone()


class OnceDifferentiable(nn.Module):
    def forward(self, x):
        return Once.apply(x)


@pytest.mark.parametrize(
    ("layer", "named"), [(nn.Hardsigmoid(), "hardsigmoid"), (OnceDifferentiable(), "a function of one of its layers")]
)
def test_a_layer_without_second_derivative_is_named(layer, named):
    model, (x, y) = softmax_regression(), samples()
    model.inner = nn.Sequential(model.inner, layer)
    hessian = Hessian(mean_loss(model, x, y, 12))
    with pytest.raises(ValueError, match=rf"no Hessian: .*{named} has no second derivative.*sharpness"):
        hessian(torch.ones(hessian.size, dtype=hessian.dtype))


def test_a_loss_that_reduces_is_refused():
    model, (x, y) = small_net(), samples()
    losses = sample_losses_of(model, lambda z, y, s: nn.functional.cross_entropy(z, y), ClassStatistics.from_labels(y))
    with pytest.raises(ValueError, match="one value per sample"):
        MeanLoss(TrainableWeights(model), chunks_of(x, y, 5), losses).value()
