"""Small problems whose Hessians are known by other means."""

import numpy as np
import torch
from torch import nn

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.curvature import MeanLoss, sample_losses_of
from hf_ltsam.landscape.landscape import MicroBatch
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import CrossEntropy


class Logits(nn.Module):
    """A module that takes pixel_values by name, as the classifiers of transformers do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values):
        return self.inner(pixel_values)


class Dense:
    """A symmetric matrix as an operator, which counts its products."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.size, self.dtype, self.device = len(matrix), matrix.dtype, matrix.device
        self.products = 0

    def __call__(self, vector):
        self.products += 1
        return self.matrix @ vector


def samples(n=12, features=5, num_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    y = torch.arange(n) % num_classes
    return x, y


def chunks_of(x, y, size):
    return [MicroBatch({"pixel_values": a}, b) for a, b in zip(x.split(size), y.split(size))]


def mean_loss(model, x, y, size=5, loss=None, sample_weights=None):
    statistics = ClassStatistics.from_labels(y)
    losses = sample_losses_of(model, loss or CrossEntropy(), statistics)
    return MeanLoss(TrainableWeights(model), chunks_of(x, y, size), losses, sample_weights)


def softmax_regression(seed=1, features=5, num_classes=3):
    torch.manual_seed(seed)
    return Logits(nn.Linear(features, num_classes, bias=False).double())


def small_net(seed=1):
    torch.manual_seed(seed)
    inner = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    inner[2].running_mean.uniform_(-1, 1)
    inner[2].running_var.uniform_(0.5, 2)
    return Logits(inner)


def full_matrix(operator):
    return torch.stack([operator(column) for column in torch.eye(operator.size, dtype=operator.dtype)], dim=1)


def hessian_by_double_loop(value, parameters, step=1e-4):
    """Central differences of the loss itself, entry by entry; `value` reads the parameters as they stand."""
    P = sum(p.numel() for p in parameters)
    flat = [(p, k) for p in parameters for k in range(p.numel())]
    H = np.zeros((P, P))

    def at(*moves):
        with torch.no_grad():
            for (p, k), t in moves:
                p.view(-1)[k] += t
            result = value()
            for (p, k), t in moves:
                p.view(-1)[k] -= t
        return result

    for i in range(P):
        for j in range(i, P):
            a, b = flat[i], flat[j]
            corners = [at((a, s * step), (b, t * step)) * s * t for s in (1, -1) for t in (1, -1)]
            H[i, j] = H[j, i] = sum(corners) / (4 * step**2)
    return H
