"""A forward pass that stays open between the classifier and the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .class_vectors import ClassMembers, HeadVectors


@dataclass(frozen=True)
class OpenPass:
    """What the classifier was given, what it gave, and the losses made from it; their graph is still there.

    Args:
        head: the classifier.
        features: its input (n, D).
        logits: of the model (n, C): the classifier's output, in whatever floating-point type.
        losses: l_i (n,).
    """

    head: nn.Linear
    features: Tensor
    logits: Tensor
    losses: Tensor

    def class_gradients(self, members: ClassMembers) -> HeadVectors:
        """The gradient of each class's mean loss with respect to the classifier."""
        wide = torch.promote_types(self.features.dtype, torch.float32)
        (signals,) = torch.autograd.grad(self.losses.sum(), self.logits, retain_graph=True)
        ones = members.ones(wide)
        shares = (ones / ones.sum(1, keepdim=True)).to(self.features.device)
        return HeadVectors(members, self.head, shares, signals.to(wide), self.features.detach().to(wide))

    def logits_at(self, vectors: HeadVectors) -> Tensor:
        """The logits with each class's own vector added to the classifier (n, C)."""
        return self.logits + vectors.change_of_logits(self.features).to(self.logits.dtype)


def opened(head: nn.Linear, forward: Callable[[], Tensor], losses: Callable[[Tensor], Tensor]) -> OpenPass | None:
    """One forward pass; None where the model's logits are not simply what the classifier gave, row by row."""
    calls: list[tuple[Tensor, Tensor]] = []
    handle = head.register_forward_hook(lambda _, given, output: calls.append((given[0], output)))
    try:
        logits = forward()
    finally:
        handle.remove()
    if len(calls) != 1 or calls[0][0].ndim != 2 or not _is_cast_of(logits, calls[0][1]):
        return None
    return OpenPass(head, calls[0][0], logits, losses(logits))


def _is_cast_of(logits: Tensor, output: Tensor) -> bool:
    """Whether it is the same tensor, or the same in another floating-point type."""
    if logits is output:
        return True
    made_by = logits.grad_fn
    if made_by is None or type(made_by).__name__ != "ToCopyBackward0":
        return False
    return made_by.next_functions[0][0] is output.grad_fn
