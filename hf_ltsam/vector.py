"""Directions in weight space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = float | Tensor        # a number, or a 0-dimensional tensor that stays on its device

TINY = 1e-12        # in unit(g) = g / (||g|| + TINY) and in every other division by a norm (Focal-SAM's and SAM's code)


class WeightVector:
    """One tensor per trainable parameter, times one scalar. Immutable.

    The scalar is multiplied in only where it must be: `rho * g.unit()` shares the tensors of `g`, and a gradient of a
    loss that was divided by k for gradient accumulation is that gradient with the scalar k, to the last bit.

    Args:
        tensors: one per trainable parameter, in the order of the parameters; together P numbers.
        scale: the scalar.
    """

    __slots__ = ("_raw_norm", "scale", "tensors")

    def __init__(self, tensors: Sequence[Tensor], scale: Scalar = 1.0) -> None:
        self.tensors = list(tensors)
        self.scale = scale
        self._raw_norm: Tensor | None = None        # of the tensors without the scalar; computed once

    def materialize(self) -> list[Tensor]:
        """The tensors with the scalar multiplied in; the very same tensors where the scalar is 1."""
        if _is_number(self.scale, 1.0):
            return self.tensors
        return list(torch._foreach_mul(self.tensors, self.scale))

    def __mul__(self, other: Scalar | WeightVector) -> WeightVector:
        """By a scalar, or element by element with another vector."""
        if isinstance(other, WeightVector):
            return WeightVector(torch._foreach_mul(self.tensors, other.tensors), _product(self.scale, other.scale))
        return self._scaled(_product(self.scale, other))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Scalar) -> WeightVector:
        return self._scaled(self.scale / divisor)

    def __neg__(self) -> WeightVector:
        return self._scaled(-self.scale)

    def __add__(self, other: WeightVector | float) -> WeightVector:
        """With another vector, or with a number added to every element."""
        if not isinstance(other, WeightVector):
            return WeightVector(torch._foreach_add(self.materialize(), other))
        if _is_number(other.scale, 0.0):        # 0 * v is nothing, even where v is not finite
            return self
        if _is_number(self.scale, 0.0):
            return other
        if self.scale is other.scale:
            return WeightVector(torch._foreach_add(self.tensors, other.tensors), self.scale)
        if isinstance(self.scale, Tensor) or isinstance(other.scale, Tensor):
            return WeightVector(torch._foreach_add(self.materialize(), other.materialize()))
        return WeightVector(torch._foreach_add(self.tensors, other.tensors, alpha=other.scale / self.scale), self.scale)

    __radd__ = __add__

    def __sub__(self, other: WeightVector) -> WeightVector:
        return self + (-other)

    def __abs__(self) -> WeightVector:
        return WeightVector(torch._foreach_abs(self.tensors), _magnitude(self.scale))

    def dot(self, other: WeightVector) -> Tensor:
        """The inner product over all P numbers: a 0-dimensional tensor, summed in float32 or wider."""
        wide = _wide(self.tensors[0].dtype)
        products = [(a * b).sum(dtype=wide) for a, b in zip(self.tensors, other.tensors, strict=True)]
        return torch.stack(products).sum() * _product(self.scale, other.scale)

    def norm(self) -> Tensor:
        """The Euclidean norm over all P numbers: a 0-dimensional tensor, summed in float32 or wider."""
        if self._raw_norm is None:
            norms = torch._foreach_norm(self.tensors, 2, dtype=_wide(self.tensors[0].dtype))
            self._raw_norm = torch.linalg.vector_norm(torch.stack(list(norms)))
        return self._raw_norm * _magnitude(self.scale)

    def unit(self) -> WeightVector:
        """The vector over its norm (plus 1e-12): the zero vector stays zero."""
        return self / (self.norm() + TINY)

    def only(self, chosen: Sequence[bool]) -> WeightVector:
        """The vector with zeros for every parameter that is not chosen."""
        kept = [t if keep else torch.zeros_like(t) for t, keep in zip(self.tensors, chosen, strict=True)]
        return WeightVector(kept, self.scale)

    def normal_like(self, generator: torch.Generator) -> WeightVector:
        """As many independent standard normal numbers, drawn parameter by parameter."""
        return WeightVector(
            [torch.randn(t.shape, generator=generator, dtype=t.dtype, device=t.device) for t in self.tensors]
        )

    def _scaled(self, scale: Scalar) -> WeightVector:
        scaled = WeightVector(self.tensors, scale)
        scaled._raw_norm = self._raw_norm
        return scaled


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
