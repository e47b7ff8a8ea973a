"""Gradients of several weightings from one backward pass, where samples do not interact.

The signal that reaches a module's output is, sample by sample, linear in that sample's weight. With input and output
signal of every module that owns trainable weights, each further weighting costs the weight gradients of these modules
alone: little where they are few (adapters, heads), and half of a backward pass where they are all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves, tree_map_only

from hf_ltsam.data.random_states import RandomState, random_numbers_of, random_state
from hf_ltsam.models.trained_weights import is_half

# Modules other than linear layers are run again for their weight gradients: they may hold this share of all weights.
RUN_AGAIN = 0.1

CHECKPOINTS = "gradient_checkpointing"  # the attribute of transformers' modules that checkpoint their activations

LocalGradients: TypeAlias = list[tuple[int, Tensor]]  # index of a trainable weight, its gradient


@dataclass
class _Call:
    """What one module was given and gave back in the forward pass."""

    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: Any
    versions: list[int]  # of all tensors above: an operation in place would make them mean something else
    autocast: tuple[bool, torch.dtype]
    random: RandomState


class Signals:
    """The signals of one forward pass at every module that owns trainable weights.

    Args:
        model: the module that is trained.
        parameters: its trainable weights.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor]) -> None:
        self._index = {id(p): i for i, p in enumerate(parameters)}
        self._parameters = list(parameters)
        self._device = parameters[0].device
        self._owners = list(dict.fromkeys(self._owners_in(model)))
        self._states: dict[nn.Module, RandomState] = {}
        self._calls: list[_Call] = []
        self._model = model

    @property
    def worth_it(self) -> bool:
        """Whether little is run again, no activation is kept that checkpointing was to spare, and weights are weights."""
        modules = list(self._model.modules())
        if any(CHECKPOINTS in vars(m) and vars(m)[CHECKPOINTS] for m in modules):
            return False
        if any(is_parametrized(m) for m in modules):  # running one again would move its power iteration
            return False
        again = sum(p.numel() for m in self._owners if not is_plain_linear(m) for p in m.parameters())
        return again <= RUN_AGAIN * sum(p.numel() for p in self._model.parameters())

    @property
    def in_half(self) -> bool:
        """Whether a module took or gave numbers of less than 32 bits."""
        leaves = tree_leaves([(call.arguments, call.keywords, call.output) for call in self._calls])
        return any(is_half(leaf) for leaf in leaves if isinstance(leaf, Tensor))

    def _owners_in(self, module: nn.Module) -> Iterator[nn.Module]:
        """The outermost modules that own trainable weights themselves."""
        if any(id(p) in self._index for p in module.parameters(recurse=False)):
            yield module
        else:
            for child in module.children():
                yield from self._owners_in(child)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the forward pass made in this `with` block."""
        handles = [m.register_forward_pre_hook(self._before) for m in self._owners]
        handles += [m.register_forward_hook(self._after, with_kwargs=True) for m in self._owners]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: nn.Module, _: Any) -> None:
        if not is_plain_linear(module):
            self._states[module] = random_state(self._device)

    def _after(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        kind = self._device.type
        autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        random = self._states.get(module, (torch.empty(0), None))
        versions = _versions(arguments, keywords, output)
        self._calls.append(_Call(module, arguments, keywords, output, versions, autocast, random))

    def gradients(
        self, losses: Tensor, weightings: Sequence[Tensor | None], first: bool = False
    ) -> list[list[Tensor | None]] | None:
        """The gradient of (a * losses).sum() for every weighting a (b,), with respect to every trainable weight.

        Args:
            first: look at the whole graph, which is long: weights may be used without their modules.

        Returns:
            None if the pass was not recorded in a way that tells: a module that ran twice, say, or a compiled one. The
            graph of the losses is still there in this case, and used up in the other.
        """
        if not all(self._tells(call, len(losses)) for call in self._calls) or not self._calls:
            return None
        if len({id(call.module) for call in self._calls}) < len(self._calls):
            return None
        outputs = [call.output for call in self._calls]
        if first and reaches(losses, self._parameters, outputs):
            return None
        signals = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
        gradients: list[list[Tensor | None]] = [[None] * len(self._parameters) for _ in weightings]
        for call, signal in zip(self._calls, signals):
            if signal is not None:
                self._add(call, signal, weightings, gradients)
        return gradients

    def _tells(self, call: _Call, samples: int) -> bool:
        """Whether the output is a tensor of the graph with one row per sample, and nothing was overwritten since."""
        output = call.output
        return (
            isinstance(output, Tensor)
            and output.requires_grad
            and output.ndim > 0
            and len(output) == samples
            and (not is_plain_linear(call.module) or (len(call.arguments) == 1 and call.arguments[0].ndim > 1))
            and call.versions == _versions(call.arguments, call.keywords, output)
        )

    def _add(
        self, call: _Call, signal: Tensor, weightings: Sequence[Tensor | None], gradients: list[list[Tensor | None]]
    ) -> None:
        weighted = [signal if a is None else _weighted(signal, a) for a in weightings]
        each = self._of_linear(call, weighted) if is_plain_linear(call.module) else self._run_again(call, weighted)
        for sums, local in zip(gradients, each):
            for index, g in local:
                before = sums[index]
                sums[index] = g if before is None else before + g  # a weight may belong to several modules

    def _of_linear(self, call: _Call, signals: Sequence[Tensor]) -> Iterator[LocalGradients]:
        """W' = s x' and b' = s 1, for every signal s."""
        linear = dict(call.module.named_parameters())
        (x,) = call.arguments
        x = x.detach().flatten(0, -2).to(signals[0].dtype)  # (n positions, in)
        for signal in signals:
            s = signal.flatten(0, -2)  # (n positions, out)
            gradients = {"weight": lambda s=s: s.T @ x, "bias": lambda s=s: s.sum(0)}
            yield [
                (self._index[id(p)], gradients[name]().to(p.dtype))
                for name, p in linear.items()
                if id(p) in self._index
            ]

    def _run_again(self, call: _Call, signals: Sequence[Tensor]) -> Iterator[LocalGradients]:
        weights = [p for p in call.module.parameters() if id(p) in self._index]
        arguments, keywords = tree_map_only(Tensor, Tensor.detach, (call.arguments, call.keywords))
        enabled, dtype = call.autocast
        again = torch.autocast(self._device.type, dtype) if enabled else nullcontext()
        with torch.enable_grad(), again, random_numbers_of(call.random, self._device):
            output = call.module(*arguments, **keywords)
        for signal in signals:
            gradients = torch.autograd.grad(output, weights, signal, retain_graph=True, allow_unused=True)
            yield [(self._index[id(p)], g) for p, g in zip(weights, gradients) if g is not None]


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
        if id(getattr(node, "variable", None)) in targets:  # only the nodes of leaves have it
            return True
        waiting.extend(parent for parent, _ in node.next_functions)
    return False


def is_plain_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer of weight and bias, none of them made from other weights."""
    return type(module) is nn.Linear and {name for name, _ in module.named_parameters()} <= {"weight", "bias"}


def _weighted(signal: Tensor, a: Tensor) -> Tensor:
    wide = torch.promote_types(signal.dtype, torch.float32)
    return (signal * a.to(signal.device, wide, non_blocking=True).view(-1, *[1] * (signal.ndim - 1))).to(signal.dtype)


def _versions(*values: Any) -> list[int]:
    return [t._version for t in tree_leaves(values) if isinstance(t, Tensor)]
