"""The trainable weights of a model, and the only code that writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hf_ltsam.landscape.repeated_pass import OtherMoves
from hf_ltsam.landscape.sharded import own_shards, whole
from hf_ltsam.landscape.vector import WeightVector, number_on_host, tensor_norms
from hf_ltsam.models.trained_weights import is_half, trained_parameters


@dataclass(frozen=True)
class StoredOffset:
    """What an offset became when it was added to weights that are stored in few digits; 0-dimensional tensors.

    Args:
        wanted: norm of the offset itself.
        norm: of the difference that it made to the weights.
        unmoved: share of the weights with an offset that stayed where they were; NaN where none has one.
    """

    wanted: Tensor
    norm: Tensor
    unmoved: Tensor


class TrainableWeights:
    """The parameters that are trained, with the means to move them by an offset and back.

    These are the ones that require a gradient, and of them those that the optimizer holds, once there is one.

    They come back bit for bit: the offset's memory holds w + eps in the meantime where nobody else needs the offset, and
    one saved copy, which serves every step, holds w where somebody does. Whoever asks the model for its state while it is
    moved, or a part of the model (a signal handler that saves, say), is given the unmoved weights.

    Args:
        model: the module whose parameters are perturbed.
        reads_norms: whether the norm of every offset is read from an accelerator, which waits for it.
        of_loss: whether weights that only the optimizer holds are trained as well, as those of a loss outside the model.
        in_place: whether passes are CUDA graphs: parameters must stay in their memory, and the next pass overwrites that of
            gradients.

    Raises:
        ValueError: no parameter requires a gradient.
    """

    def __init__(
        self, model: nn.Module, reads_norms: bool = False, of_loss: bool = False, in_place: bool = False
    ) -> None:
        self.model = model
        self.other_moves = OtherMoves(model, in_place)  # of its passes
        self.in_place = in_place
        self._of_loss = of_loss
        self._reads_norms = reads_norms
        self.parameters: list[Tensor] = trained_parameters(model)
        if not self.parameters:
            raise ValueError(
                f"{type(model).__name__} has no parameter with requires_grad=True: nothing can be trained."
            )
        self.places = self._places()
        self._copies: list[Tensor] = []  # memory for the unmoved weights
        self._unmoved: list[Tensor] = []  # they, while the parameters are moved; else empty
        self._swapped = False  # whether the parameters are moved by other memory, and not in their own

    @property
    def are_moved(self) -> bool:
        """Whether an offset is added at the moment."""
        return bool(self._unmoved)

    @property
    def are_half(self) -> bool:
        """Whether any of them is stored in less than 32 bits."""
        return any(map(is_half, self.parameters))

    @property
    def wide_dtype(self) -> torch.dtype:
        """In which weightings are computed: the floating-point type of the weights, or float32 if that is wider."""
        return torch.promote_types(self.parameters[0].dtype, torch.float32)

    @property
    def vector(self) -> WeightVector:
        """The weights themselves as a vector; valid until the weights are next written."""
        return WeightVector([p.detach() for p in self.parameters])

    def of_module(self, module: nn.Module) -> list[bool]:
        """For each trainable parameter, whether it belongs to this part of the model."""
        members = {id(p) for p in module.parameters()}
        return [id(p) in members for p in self.parameters]

    def follow(self, optimizer: Any = None) -> None:
        """Look again which parameters are trained: between steps callbacks may freeze, thaw, and make another optimizer."""
        current = trained_parameters(self.model, optimizer, self._of_loss)
        if len(current) != len(self.parameters) or any(a is not b for a, b in zip(current, self.parameters)):
            self.parameters, self._copies = current, []
            self.places = self._places()

    def _places(self) -> tuple[int, ...]:
        """Of the trained parameters among all of the model; those of a loss come behind them."""
        of_model = {id(p): place for place, p in enumerate(self.model.parameters())}
        return tuple(of_model.get(id(p), len(of_model) + k) for k, p in enumerate(self.parameters))

    def drop_other_gradients(self) -> None:
        """Of weights in shards that the optimizer does not hold: backward passes through shards leave them everywhere."""
        trained = set(map(id, self.parameters))
        for p in self.model.parameters():
            if id(p) not in trained:
                p.grad = None

    def unless_infinite(self, offset: WeightVector | None) -> WeightVector | None:
        """The offset; None where it is known not to be finite, as after an overflow in half precision: nothing is perturbed.

        On an accelerator it is not known unless norms are read. Then the perturbed pass gives a gradient that is not finite
        either, and the step is not taken.
        """
        is_read = self._reads_norms or self.parameters[0].device.type == "cpu"
        return None if offset is not None and is_read and not bool(offset.norm().isfinite()) else offset

    @contextmanager
    def moved(self, offset: WeightVector | None, measured: bool = False) -> Iterator[StoredOffset | None]:
        """Add an offset to the weights for the duration of a `with` block; None moves nothing.

        Args:
            measured: whether what the weights make of it is given to the block. It takes four passes over the weights.
        """
        if offset is None:
            yield None
            return
        if self._unmoved:
            raise RuntimeError("The weights are moved already: one offset at a time.")
        # a partial, since torch marks the hook with an attribute and a bound method can carry none
        hook = partial(self._state_without_offset)
        handles = [m.register_state_dict_post_hook(hook) for m in self.model.modules()]  # type: ignore[no-untyped-call]
        try:
            swap = not self.in_place and offset.can_become(self.parameters)
            before = (offset.length(), offset.count_nonzero()) if measured else None
            self._swap(offset) if swap else self._move(offset)
            yield None if before is None else self._stored(*before)
        finally:
            self.restore()
            for handle in handles:
                handle.remove()
        if swap:
            offset.become_offset([p.detach() for p in self.parameters])

    @torch.no_grad()
    def restore(self) -> None:
        """Put the unmoved weights back; does nothing where they are not moved, so one call too many does no harm."""
        if self._swapped:
            for parameter, unmoved in zip(self.parameters, self._unmoved):
                parameter.data = unmoved
        elif self._unmoved:
            torch._foreach_copy_(own_shards(self.parameters), own_shards(self._unmoved))
        self._unmoved, self._swapped = [], False

    @torch.no_grad()
    def _stored(self, wanted: Tensor, count: Tensor) -> StoredOffset:
        """One parameter after another, so that no second copy of the weights is needed.

        Args:
            wanted: norm of the offset.
            count: of its numbers that are not zero.
        """
        norms, counts = [], []
        for parameter, unmoved in zip(self.parameters, self._unmoved):
            difference = parameter.detach() - unmoved
            norms += tensor_norms([difference])
            counts.append((difference != 0).sum())
        norm, moved = whole(torch.linalg.vector_norm(torch.stack(norms))), whole(torch.stack(counts).sum())
        # 0 / 0 where nothing is to move: ImbSAM on a batch without a tail sample, a radius of 0
        return StoredOffset(wanted, norm, torch.where(wanted > 0, 1 - moved / count, torch.nan))

    @torch.no_grad()
    def _move(self, offset: WeightVector) -> None:
        if [(c.shape, c.dtype, c.device) for c in self._copies] != [
            (p.shape, p.dtype, p.device) for p in self.parameters
        ]:
            self._copies = [torch.empty_like(p) for p in self.parameters]
        parameters, directions, scale = (
            own_shards(self.parameters),
            own_shards(offset.tensors),
            number_on_host(offset.scale),
        )
        torch._foreach_copy_(own_shards(self._copies), parameters)
        self._unmoved = self._copies
        if isinstance(scale, Tensor):
            torch._foreach_add_(parameters, list(torch._foreach_mul(directions, scale)))
        else:
            torch._foreach_add_(parameters, directions, alpha=scale)

    @torch.no_grad()
    def _swap(self, offset: WeightVector) -> None:
        """Let the parameters live in the offset's memory, which is made w + eps; w stays where it is."""
        moved = offset.become([p.detach() for p in self.parameters])
        self._unmoved, self._swapped = [p.data for p in self.parameters], True
        for parameter, tensor in zip(self.parameters, moved):
            parameter.data = tensor

    def _state_without_offset(
        self, module: nn.Module, state: dict[str, Any], prefix: str, _local_metadata: dict[str, Any]
    ) -> None:
        saved = {id(p): s for p, s in zip(self.parameters, self._unmoved)}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if id(parameter) in saved and prefix + name in state:
                state[prefix + name] = saved[id(parameter)]
