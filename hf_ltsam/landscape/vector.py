"""Directions in weight space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias
from weakref import WeakSet

import torch
from torch import Tensor

from hf_ltsam.landscape.sharded import are_sharded, sharded_like, whole
from hf_ltsam.models.trained_weights import is_half

Scalar: TypeAlias = float | Tensor  # a number, or a 0-dimensional tensor that stays on its device

TINY = 1e-12  # in unit(g) = g / (||g|| + TINY) and in every other division by a norm (Focal-SAM's and SAM's code)


class _Memory:
    """Who holds some tensors."""

    __slots__ = ("seen", "vectors")

    def __init__(self) -> None:
        self.vectors: WeakSet[WeightVector] = WeakSet()
        self.seen = False  # whether they were handed out


class WeightVector:
    """One tensor per trainable parameter, times one scalar. Immutable.

    The scalar is multiplied in only where it must be: `rho * g.unit()` shares the tensors of `g`, and a gradient of a
    loss that was divided by k for gradient accumulation is that gradient with the scalar k, to the last bit.

    Args:
        tensors: one per trainable parameter, in the order of the parameters; together P numbers.
        scale: the scalar.
        fresh: whether nobody but this vector holds the tensors, so that its last use may write into them.
    """

    __slots__ = ("__weakref__", "_memory", "_raw_norm", "_tensors", "scale")

    def __init__(self, tensors: Sequence[Tensor], scale: Scalar = 1.0, fresh: bool = False) -> None:
        self._tensors = list(tensors)
        self.scale = scale
        self._raw_norm: Tensor | None = None  # of the tensors without the scalar; computed once
        self._memory: _Memory | None = _Memory() if fresh else None
        if self._memory is not None:
            self._memory.vectors.add(self)

    @property
    def tensors(self) -> list[Tensor]:
        """Without the scalar. Whoever has seen them may have kept them: from then on nobody writes into them."""
        if self._memory is not None:
            self._memory.seen = True
        return self._tensors

    def materialize(self) -> list[Tensor]:
        """The tensors with the scalar multiplied in; the very same tensors where the scalar is 1."""
        if _is_number(self.scale, 1.0):
            return self.tensors
        return list(torch._foreach_mul(self._tensors, self.scale))

    def __mul__(self, other: Scalar | WeightVector) -> WeightVector:
        """By a scalar, or element by element with another vector."""
        if isinstance(other, WeightVector):
            products = torch._foreach_mul(self._tensors, other._tensors)
            return WeightVector(products, _product(self.scale, other.scale), fresh=True)
        return self._scaled(_product(self.scale, other))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Scalar) -> WeightVector:
        return self._scaled(self.scale / divisor)

    def __neg__(self) -> WeightVector:
        return self._scaled(-self.scale)

    def __add__(self, other: WeightVector | float) -> WeightVector:
        """With another vector, or with a number added to every element."""
        if not isinstance(other, WeightVector):
            return WeightVector(torch._foreach_add(self.materialize(), other), fresh=True)
        if _is_number(other.scale, 0.0):  # 0 * v is nothing, even where v is not finite
            return self
        if _is_number(self.scale, 0.0):
            return other
        if self.scale is other.scale:
            return WeightVector(torch._foreach_add(self._tensors, other._tensors), self.scale, fresh=True)
        if isinstance(self.scale, Tensor) or isinstance(other.scale, Tensor):
            return WeightVector(torch._foreach_add(self.materialize(), other.materialize()), fresh=True)
        total = torch._foreach_add(self._tensors, other._tensors, alpha=other.scale / self.scale)
        return WeightVector(total, self.scale, fresh=True)

    __radd__ = __add__

    def __sub__(self, other: WeightVector) -> WeightVector:
        return self + (-other)

    def __abs__(self) -> WeightVector:
        return WeightVector(torch._foreach_abs(self._tensors), _magnitude(self.scale), fresh=True)

    def dot(self, other: WeightVector) -> Tensor:
        """The inner product over all P numbers: a 0-dimensional tensor, summed in float32 or wider."""
        sharded = are_sharded(self._tensors)
        products = [_dot(a, b, sharded) for a, b in zip(self._tensors, other._tensors, strict=True)]
        return whole(torch.stack(products).sum()) * _product(self.scale, other.scale)

    def cosine(self, other: WeightVector) -> Tensor:
        """Of the angle between two vectors: a 0-dimensional tensor."""
        return self.dot(other) / (self.norm() * other.norm() + TINY)

    def norm(self) -> Tensor:
        """The Euclidean norm over all P numbers: a 0-dimensional tensor, summed in float32 or wider."""
        if self._raw_norm is None:
            self._raw_norm = whole(torch.linalg.vector_norm(torch.stack(tensor_norms(self._tensors))))
        return self._raw_norm * _magnitude(self.scale)

    def length(self) -> Tensor:
        """The norm, computed anew and not remembered: whether somebody measures must not change what follows."""
        return WeightVector(self._tensors, self.scale).norm()

    def count_nonzero(self) -> Tensor:
        """How many of the P numbers are not zero, whatever the scalar: a 0-dimensional tensor."""
        return whole(torch.stack([(t != 0).sum() for t in self._tensors]).sum())

    def unit(self) -> WeightVector:
        """The vector over its norm (plus 1e-12): the zero vector stays zero."""
        return self / (self.norm() + TINY)

    def only(self, chosen: Sequence[bool]) -> WeightVector:
        """The vector with zeros for every parameter that is not chosen."""
        kept = [t if keep else torch.zeros_like(t) for t, keep in zip(self._tensors, chosen, strict=True)]
        return self._shared_with(WeightVector(kept, self.scale))

    def normal_like(self, generator: torch.Generator) -> WeightVector:
        """As many independent standard normal numbers, drawn parameter by parameter."""
        drawn = (torch.randn(t.shape, generator=generator, dtype=t.dtype, device=t.device) for t in self._tensors)
        return WeightVector([sharded_like(xi, t) for xi, t in zip(drawn, self._tensors)], fresh=True)

    def _scaled(self, scale: Scalar) -> WeightVector:
        scaled = WeightVector(self._tensors, scale)
        scaled._raw_norm = self._raw_norm
        return self._shared_with(scaled)

    def _shared_with(self, other: WeightVector) -> WeightVector:
        """Note that another vector holds the same tensors."""
        other._memory = self._memory
        if self._memory is not None:
            self._memory.vectors.add(other)
        return other

    def can_become(self, point: Sequence[Tensor]) -> bool:
        """Whether the tensors may be overwritten, and could hold a point like this one."""
        if self._memory is None or self._memory.seen or len(self._memory.vectors) > 1:
            return False
        alone = all(len({t.data_ptr() for t in tensors}) == len(tensors) for tensors in (self._tensors, point))
        return alone and all(map(_alike, self._tensors, point))

    def become(self, point: Sequence[Tensor]) -> list[Tensor]:
        """Overwrite the tensors by point + scalar * tensors, and hand them out."""
        scale = number_on_host(self.scale)
        if isinstance(scale, Tensor):
            torch._foreach_mul_(self._tensors, scale)
            torch._foreach_add_(self._tensors, list(point))
        else:  # rounded once, as where the point itself is moved
            for tensor, p in zip(self._tensors, point):
                torch.add(p, tensor, alpha=scale, out=tensor)
        return self._tensors

    def become_offset(self, point: Sequence[Tensor]) -> None:
        """Undo `become`, up to rounding."""
        torch._foreach_sub_(self._tensors, list(point))
        is_same = self._raw_norm is not None and not any(map(is_half, self._tensors))  # half precision rounds much away
        self._raw_norm = self.norm() if is_same else None
        self.scale = 1.0


def tensor_norms(tensors: list[Tensor]) -> list[Tensor]:
    """Each one's Euclidean norm, summed in float32 or wider."""
    wide = _wide(tensors[0].dtype)
    if are_sharded(tensors):  # for shards torch has no such sum in another type than their own
        return list(torch._foreach_norm([t.to(wide) for t in tensors], 2))
    return list(torch._foreach_norm(tensors, 2, dtype=wide))


def _dot(a: Tensor, b: Tensor, sharded: bool) -> Tensor:
    """Summed in float32 or wider; nothing is stored in between where the tensors are that wide."""
    wide = _wide(a.dtype)
    if a.dtype == wide and not sharded:
        return torch.dot(a.flatten(), b.flatten())
    return (a * b).sum(dtype=wide)


def number_on_host(scale: Scalar) -> Scalar:
    """A scalar that lies on the host as a number: reading it waits for no device."""
    return scale.item() if isinstance(scale, Tensor) and scale.device.type == "cpu" else scale


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether a could hold the numbers of b, in memory that is all its own."""
    same = type(a) is Tensor and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype
    return same and a.untyped_storage().nbytes() == a.numel() * a.element_size()


def _magnitude(scale: Scalar) -> Scalar:
    return scale.abs() if isinstance(scale, Tensor) else abs(scale)


def _product(a: Scalar, b: Scalar) -> Scalar:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.mul(a, b) if isinstance(a, Tensor) else torch.mul(b, a)
    return a * b


def _is_number(scale: Scalar, value: Scalar) -> bool:
    """Whether two scalars are known to be equal; never by a read from the device."""
    return not isinstance(scale, Tensor) and not isinstance(value, Tensor) and scale == value


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
