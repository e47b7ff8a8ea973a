"""One vector in weight space for every class of a mini-batch, in three forms.

`ListedVectors` holds the vectors themselves. For a classifier alone they need not exist: `HeadVectors` holds what those of a
linear one are made of, and `MovedHeads` makes those of any other one by one, wherever they are needed. Methods see their
lengths and change them, no more.

Shapes: n samples of the mini-batch, m classes among them, T trainable tensors of the model or the classifier, C classes,
D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hf_ltsam.data.soft_labels import are_soft, present_classes
from hf_ltsam.landscape.vector import WeightVector


@dataclass(frozen=True)
class ClassMembers:
    """Which samples of a mini-batch belong to which of its classes.

    Args:
        labels: class indices (n,), or soft ones (n, C), on the host.
    """

    labels: Tensor

    @cached_property
    def classes(self) -> list[int]:
        """The m classes of the mini-batch, in increasing order."""
        return present_classes(self.labels)

    @property
    def are_whole(self) -> bool:
        """Whether each sample is of one class."""
        return not are_soft(self.labels)

    def ones(self, dtype: torch.dtype) -> Tensor:
        """1_c of each class (m, n), on the host; of soft labels their shares."""
        if not self.are_whole:
            return self.labels[:, self.classes].T.to(dtype)
        return (torch.tensor(self.classes)[:, None] == self.labels).to(dtype)

    def of_samples(self, values: Tensor) -> Tensor:
        """Values of the classes (m, ...) for each sample (n, ...), which must be of one class."""
        return values[torch.searchsorted(torch.tensor(self.classes), self.labels).to(values.device)]


@dataclass(frozen=True)
class ListedVectors:
    """The vectors themselves.

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
    """For a linear classifier z = W h + b, held as what they are made of: g_c = sum_j A_cj d_j (h_j, 1)'.

    Whatever the number of classes, they take no more memory than the logits and products of pairs of samples (n, n).

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
        dd, hh = self.signals @ self.signals.T, self.features @ self.features.T  # (n, n)
        products = [dd * hh, dd]  # of weight and bias, between the parts of two samples
        squares = [((self.shares @ p) * self.shares).sum(1) for p, trained in zip(products, self._trained()) if trained]
        norms = torch.stack(squares, dim=1).clamp_min(0).sqrt()
        return norms if self.factors is None else norms * self.factors.abs()

    def scaled(self, factors: Tensor) -> HeadVectors:
        before = 1.0 if self.factors is None else self.factors
        return replace(self, factors=(before * factors).expand(len(self.shares), sum(self._trained())))

    def change_of_logits(self, features: Tensor, samples: slice) -> Tensor:
        """What the vector of each sample's class, added to W and b, adds to the sample's logits (b, C).

        Args:
            features: of some samples (b, D), differentiable; the vectors themselves are constants.
            samples: their place among the n.
        """
        shares = self.members.of_samples(self.shares)[samples]  # (b, n)
        factors = iter(self.factors.unbind(1) if self.factors is not None else [None, None])
        products: list[Tensor] = [features.to(self.features.dtype) @ self.features.T, torch.ones_like(shares)]
        mixing = torch.zeros_like(shares)
        for product, trained in zip(products, self._trained()):
            if trained:
                factor = next(factors)
                of_samples = 1.0 if factor is None else self.members.of_samples(factor)[samples, None]
                mixing = mixing + of_samples * shares * product
        return mixing @ self.signals

    def _trained(self) -> tuple[bool, bool]:
        """Whether weight and bias are among the trainable parameters."""
        bias = self.head.bias
        return self.head.weight.requires_grad, bias is not None and bias.requires_grad


@dataclass(frozen=True)
class MovedHeads:
    """For a classifier that takes samples one by one, cosine ones and soft labels included: made anew where they are needed.

    One class's vector is there at a time, so that memory does not grow with the number of classes.

    Args:
        members: of the mini-batch.
        head: the classifier.
        signals: d (n, C), the gradient of each sample's loss with respect to its logits.
        features: h (n, D), detached.
        factors: of every part (m, T); None is one.
        lengths: ||g_c|| of every part (m, T), once they are known.
    """

    members: ClassMembers
    head: nn.Module
    signals: Tensor
    features: Tensor
    factors: Tensor | None = None
    lengths: Tensor | None = None

    @property
    def trained(self) -> dict[str, Tensor]:
        """The weights that vectors belong to (T), as wide as the features."""
        return {name: p.detach().to(self.features.dtype) for name, p in self.head.named_parameters() if p.requires_grad}

    def norms(self) -> Tensor:
        return self._lengths if self.factors is None else self._lengths * self.factors.abs()

    def scaled(self, factors: Tensor) -> MovedHeads:
        before = 1.0 if self.factors is None else self.factors
        return replace(self, factors=(before * factors).expand_as(self._lengths), lengths=self._lengths)

    @cached_property
    def _lengths(self) -> Tensor:
        if self.lengths is not None:
            return self.lengths
        norms = [torch.stack([g.norm() for g in self._gradient(*part).values()]) for part in self._rows()]
        return torch.stack(norms)

    def at_each_class(
        self, losses: Callable[[Tensor, Tensor], Tensor], weights: Tensor, features: Tensor, samples: slice
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """s_i = sum over classes c of a_ci l_i, with the classifier moved by c's vector, and the gradient of sum_i s_i.

        Args:
            losses: logits of some of these samples (k, C), their indices (k,) -> l_i (k,).
            weights: a of each class (m, b), zero where the sample has no part in it.
            features: h (b, D) with their graph, which the losses may read beside the logits.
            samples: the place of these b samples among the n.

        Returns:
            s (b,), and that gradient with respect to the features (b, D) and to the weights of the classifier.
        """
        values = self.features[samples]
        all_losses, signal = values.new_zeros(len(values)), torch.zeros_like(values)
        of_head = {name: torch.zeros_like(p) for name, p in self.trained.items()}
        here = self.members.ones(values.dtype)[:, samples]
        for k, (of_class, shares) in enumerate(self._rows()):
            rows = here[k].nonzero().flatten()
            if not len(rows):
                continue
            rows = rows.to(values.device)
            h = values[rows].requires_grad_()
            moved = self._moved(k, of_class, shares)
            of_rows = losses(self._logits(moved, h), rows)
            weighted = weights[k][rows].to(of_rows) * of_rows
            leaves = [h, *moved.values(), *([features] if features.requires_grad else [])]
            gradients = torch.autograd.grad(weighted.sum(), leaves, allow_unused=True)
            all_losses[rows] += weighted.detach().to(all_losses)
            signal[rows] += gradients[0]
            for total, g in zip(of_head.values(), gradients[1:]):
                total += g
            for beside in gradients[1 + len(moved) :]:  # what the losses themselves make of the features
                signal += 0 if beside is None else beside.to(signal)
        return all_losses, signal, of_head

    def _rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The samples that have a part in each class (k,), and how large a one (k, 1)."""
        for ones in self.members.ones(self.features.dtype):
            rows = ones.nonzero().flatten()
            yield rows.to(self.features.device), ones[rows].unsqueeze(1).to(self.features.device)

    def _gradient(self, rows: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """g_c: of the mean loss of these samples."""
        leaves = {name: p.requires_grad_() for name, p in self.trained.items()}
        logits = self._logits(leaves, self.features[rows])
        signal = (self.signals[rows] * shares / shares.sum()).to(logits)
        return dict(zip(leaves, torch.autograd.grad(logits, list(leaves.values()), signal)))

    def _moved(self, k: int, rows: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """The classifier's weights with the k-th class's vector added."""
        factors = torch.ones(len(self.trained)) if self.factors is None else self.factors[k]
        gradient = self._gradient(rows, shares)
        return {
            name: (p + factor.to(p) * gradient[name]).requires_grad_()
            for (name, p), factor in zip(self.trained.items(), factors.unbind())
        }

    def _logits(self, weights: dict[str, Tensor], features: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.head, weights, (features,))
        return logits


ClassVectors: TypeAlias = ListedVectors | HeadVectors | MovedHeads
