"""What a tensor was made from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def reaches(tensor: Tensor, weights: Sequence[Tensor], through: Sequence[Tensor]) -> bool:
    """Whether a tensor depends on one of these weights other than through one of the given tensors."""
    targets = {id(w) for w in weights}
    seen = {t.grad_fn for t in through}
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in targets:        # only the nodes of leaves have it
            return True
        waiting.extend(parent for parent, _ in node.next_functions)
    return False
