"""A forward pass that stays open between the classifier and the loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_ltsam.landscape.class_gradients import ClassMembers, HeadVectors, MovedHeads
from hf_ltsam.landscape.replay import RandomState, random_numbers_of, random_state
from hf_ltsam.landscape.signals import is_plain_linear, reaches
from hf_ltsam.models.cosine_classifier import CosineClassifier


@dataclass(frozen=True)
class OpenPass:
    """What the classifier was given, what it gave, and the losses made from it; their graph is still there.

    Args:
        head: the classifier.
        features: its input (n, D).
        logits: of the model (n, C): the classifier's output, in whatever floating-point type.
        losses: l_i (n,).
        random: the state of the generators before the losses were made.
    """

    head: nn.Module
    features: Tensor
    logits: Tensor
    losses: Tensor
    random: RandomState

    def drawing_again(self) -> AbstractContextManager[None]:
        """Losses made in this context draw the random numbers that `losses` have drawn."""
        return random_numbers_of(self.random, self.logits.device)

    def class_gradients(self, members: ClassMembers) -> HeadVectors | MovedHeads:
        """The gradient of each class's mean loss with respect to the classifier."""
        wide = torch.promote_types(self.features.dtype, torch.float32)
        (signals,) = torch.autograd.grad(self.losses.sum(), self.logits, retain_graph=True)
        signals, features = signals.to(wide), self.features.detach().to(wide)
        if not isinstance(self.head, nn.Linear) or not members.are_whole:
            return MovedHeads(members, self.head, signals, features)
        ones = members.ones(wide)
        shares = (ones / ones.sum(1, keepdim=True)).to(self.features.device)
        return HeadVectors(members, self.head, shares, signals, features)

    def logits_at(self, vectors: HeadVectors) -> Tensor:
        """The logits with each class's own vector added to the classifier (n, C)."""
        return self.logits + vectors.change_of_logits(self.features).to(self.logits.dtype)


def may_be_opened(head: nn.Module) -> bool:
    """Whether it is a classifier that takes samples one by one, and nothing is hooked to it."""
    return (is_plain_linear(head) or type(head) is CosineClassifier) and not head._forward_pre_hooks


def opened(
    head: nn.Module, forward: Callable[[], Tensor], losses: Callable[[Tensor], Tensor], first: bool
) -> OpenPass | None:
    """One forward pass; None where the model's logits are not simply what the classifier gave, row by row.

    Args:
        first: look into the trunk's graph too, which is long: the classifier's weights may be used there as well.
    """
    calls: list[tuple[tuple[Tensor, ...], Tensor, int]] = []
    changed = bool(head._forward_hooks)  # somebody's hook may change the output
    handle = head.register_forward_hook(lambda _, given, output: calls.append((given, output, output._version)))
    try:
        logits = forward()
    finally:
        handle.remove()
    if changed or len(calls) != 1:
        return None
    given, output, version = calls[0]
    if len(given) != 1 or given[0].ndim != 2 or output._version != version or not _is_cast_of(logits, output):
        return None
    if first and reaches(given[0], list(head.parameters()), []):
        return None
    random = random_state(logits.device)
    return OpenPass(head, given[0], logits, losses(logits), random)


def _is_cast_of(logits: Tensor, output: Tensor) -> bool:
    """Whether it is the same tensor, or the same in another floating-point type."""
    if logits is output:
        return True
    made_by = logits.grad_fn
    if made_by is None or type(made_by).__name__ != "ToCopyBackward0":
        return False
    return made_by.next_functions[0][0] is output.grad_fn
