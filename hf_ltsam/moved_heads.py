"""A vector per class for a classifier that is no linear function of its weights: cosines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .class_members import ClassMembers

# Shapes: n samples of the mini-batch, m classes among them, T trainable tensors of the classifier, C classes, D features.


@dataclass(frozen=True)
class MovedHeads:
    """g_c, times a factor, for a classifier that takes samples one by one. Made anew wherever they are needed.

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
        norms = [torch.stack([g.norm() for g in self._gradient(rows).values()]) for rows in self._rows()]
        return torch.stack(norms)

    def at_each_class(
        self, losses: Callable[[Tensor, Tensor], Tensor], weights: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The losses l_i (n,), each with the classifier moved by its class's vector, and the gradient of sum_i a_i l_i.

        Args:
            losses: logits of some samples (k, C), their indices (k,) -> l_i (k,).
            weights: a (n,).

        Returns:
            The losses, and the gradient with respect to the features (n, D) and to the weights of the classifier.
        """
        found, signal = self.features.new_zeros(len(self.features)), torch.zeros_like(self.features)
        of_head = {name: torch.zeros_like(p) for name, p in self.trained.items()}
        for k, rows in enumerate(self._rows()):
            h = self.features[rows].requires_grad_()
            moved = self._moved(k, rows)
            of_rows = losses(self._logits(moved, h), rows)
            gradients = torch.autograd.grad((weights[rows].to(of_rows) * of_rows).sum(), [h, *moved.values()])
            found[rows], signal[rows] = of_rows.detach().to(found), gradients[0]
            for total, g in zip(of_head.values(), gradients[1:]):
                total += g
        return found, signal, of_head

    def _rows(self) -> Iterator[Tensor]:
        """The samples of each class."""
        for c in self.members.classes:
            yield (self.members.labels == c).nonzero().flatten().to(self.features.device)

    def _gradient(self, rows: Tensor) -> dict[str, Tensor]:
        """g_c: of the mean loss of these samples."""
        leaves = {name: p.requires_grad_() for name, p in self.trained.items()}
        logits = self._logits(leaves, self.features[rows])
        signal = (self.signals[rows] / len(rows)).to(logits)
        return dict(zip(leaves, torch.autograd.grad(logits, list(leaves.values()), signal)))

    def _moved(self, k: int, rows: Tensor) -> dict[str, Tensor]:
        """The classifier's weights with the k-th class's vector added."""
        factors = torch.ones(len(self.trained)) if self.factors is None else self.factors[k]
        gradient = self._gradient(rows)
        return {
            name: (p + factor.to(p) * gradient[name]).requires_grad_()
            for (name, p), factor in zip(self.trained.items(), factors.unbind())
        }

    def _logits(self, weights: dict[str, Tensor], features: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.head, weights, (features,))
        return logits
