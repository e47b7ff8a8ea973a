"""A forward pass that stays open between the classifier and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hf_ltsam.data.random_states import RandomState, random_numbers_of, random_state
from hf_ltsam.landscape.batches import JointBatch
from hf_ltsam.landscape.class_gradients import ClassMembers, HeadVectors, MovedHeads
from hf_ltsam.landscape.signals import is_plain_linear, reaches
from hf_ltsam.models.cosine_classifier import CosineClassifier


@dataclass(frozen=True)
class OpenPass:
    """What the classifier was given, what it gave, and the losses made from it; their graph is still there.

    Args:
        head: the classifier.
        features: its input (b, D).
        logits: of the model (b, C): the classifier's output, in whatever floating-point type.
        losses: l_i (b,).
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

    def around_classifier(self) -> AroundClassifier:
        """What is left when the graph is gone."""
        wide = torch.promote_types(self.features.dtype, torch.float32)
        (signals,) = torch.autograd.grad(self.losses.sum(), self.logits, retain_graph=True)
        return AroundClassifier(signals.to(wide), self.features.detach().to(wide))

    def logits_at(self, vectors: HeadVectors, samples: slice) -> Tensor:
        """The logits with each class's own vector added to the classifier (b, C).

        Args:
            samples: the place of these b samples in the mini-batch.
        """
        return self.logits + vectors.change_of_logits(self.features, samples).to(self.logits.dtype)


@dataclass(frozen=True)
class AroundClassifier:
    """Of every sample what the classifier's gradient is made of: it takes no graph, and that of several passes adds up.

    Args:
        signals: d (n, C), the gradient of each sample's loss with respect to its logits.
        features: h (n, D).
    """

    signals: Tensor
    features: Tensor

    def class_gradients(self, head: nn.Module, members: ClassMembers) -> HeadVectors | MovedHeads:
        """The gradient of each class's mean loss with respect to the classifier."""
        if not isinstance(head, nn.Linear) or not members.are_whole:
            return MovedHeads(members, head, self.signals, self.features)
        ones = members.ones(self.features.dtype)
        shares = (ones / ones.sum(1, keepdim=True)).to(self.features.device)
        return HeadVectors(members, head, shares, self.signals, self.features)


def of_mini_batch(
    parts: Sequence[AroundClassifier], places: Sequence[slice], joint: JointBatch | None
) -> AroundClassifier:
    """Of all n samples, from micro-batches at their places among them.

    Args:
        joint: with the samples of the other processes, which ask at the same time.
    """
    of_all = [
        torch.zeros(places[-1].stop if joint is None else joint.size, *t.shape[1:], dtype=t.dtype, device=t.device)
        for t in (parts[0].signals, parts[0].features)
    ]
    for part, samples in zip(parts, places, strict=True):
        for whole, t in zip(of_all, (part.signals, part.features)):
            whole[samples] = t
    if joint is not None:
        for whole in of_all:
            dist.all_reduce(whole)  # each process holds zeros at the places of the others
    return AroundClassifier(*of_all)


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
