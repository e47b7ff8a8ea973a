"""One direction in weight space for every class of a mini-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .class_members import ClassMembers
from .moved_heads import MovedHeads
from .vector import WeightVector

# Shapes: n samples of the mini-batch, m classes among them, T parameter tensors, C classes, D features.


@dataclass(frozen=True)
class ListedVectors:
    """A vector per class, as such. Methods see lengths and change lengths, no more.

    Args:
        members: of the mini-batch.
        vectors: of its classes (m), each of T tensors.
        moving: which of the T parts there are; the others are zeros, which all classes may share.
    """

    members: ClassMembers
    vectors: Sequence[WeightVector]
    moving: Sequence[bool] | None = None

    def norms(self) -> Tensor:
        """The Euclidean norm of every parameter tensor's part (m, T)."""
        parts = [[WeightVector([t], v.scale).norm() for t in v.tensors] for v in self.vectors]
        return torch.stack([torch.stack(row) for row in parts])

    def scaled(self, factors: Tensor) -> ListedVectors:
        """Every part times a factor (m, T), or every vector times one (m, 1)."""
        width = len(self.vectors[0].tensors)
        rows, moving = [list(f.expand(width).unbind()) for f in factors], self.moving or [True] * width
        scaled = [
            WeightVector([t * (f * v.scale).to(t.dtype) if moves else t for t, f, moves in zip(v.tensors, row, moving)])
            for v, row in zip(self.vectors, rows)
        ]
        return replace(self, vectors=scaled)


@dataclass(frozen=True)
class HeadVectors:
    """The same for a linear classifier z = W h + b, held as what they are made of: g_c = sum_j A_cj d_j (h_j, 1)'.

    Whatever the number of classes, they take no more memory than the logits.

    Args:
        members: of the mini-batch.
        head: the linear layer.
        shares: A (m, n): one over the number of the class's samples, for each of them.
        signals: d (n, C), the gradient of each sample's loss with respect to its logits.
        features: h (n, D), detached.
        factors: of every part (m, T); None is one.
    """

    members: ClassMembers
    head: nn.Linear
    shares: Tensor
    signals: Tensor
    features: Tensor
    factors: Tensor | None = None

    def norms(self) -> Tensor:
        dd, hh = self.signals @ self.signals.T, self.features @ self.features.T        # (n, n)
        products = [dd * hh, dd]        # of weight and bias, between the parts of two samples
        squares = [((self.shares @ p) * self.shares).sum(1) for p, trained in zip(products, self._trained()) if trained]
        norms = torch.stack(squares, dim=1).clamp_min(0).sqrt()
        return norms if self.factors is None else norms * self.factors.abs()

    def scaled(self, factors: Tensor) -> HeadVectors:
        before = 1.0 if self.factors is None else self.factors
        return replace(self, factors=(before * factors).expand(len(self.shares), sum(self._trained())))

    def change_of_logits(self, features: Tensor) -> Tensor:
        """What the vector of each sample's class, added to W and b, adds to the sample's logits (n, C).

        Args:
            features: of the samples (n, D), differentiable; the vectors themselves are constants.
        """
        shares = self.members.of_samples(self.shares)        # (n, n)
        factors = iter(self.factors.unbind(1) if self.factors is not None else [None, None])
        products: list[Tensor] = [features.to(self.features.dtype) @ self.features.T, torch.ones_like(shares)]
        mixing = torch.zeros_like(shares)
        for product, trained in zip(products, self._trained()):
            if trained:
                factor = next(factors)
                of_samples = 1.0 if factor is None else self.members.of_samples(factor)[:, None]
                mixing = mixing + of_samples * shares * product
        return mixing @ self.signals

    def _trained(self) -> tuple[bool, bool]:
        """Whether weight and bias are among the trainable parameters."""
        bias = self.head.bias
        return self.head.weight.requires_grad, bias is not None and bias.requires_grad


ClassVectors: TypeAlias = ListedVectors | HeadVectors | MovedHeads
