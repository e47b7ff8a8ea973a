"""What the model sees at once, and parts of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """What the model sees at once.

    Args:
        inputs: the keyword arguments of the model, without the labels.
        labels: class indices (b,).
    """

    inputs: dict[str, Any]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_rows(self) -> bool:
        """Whether every input holds one entry per sample, so that some of the samples can be taken."""
        return all(_is_setting(value) or self._is_per_sample(value) for value in self.inputs.values())

    def rows(self, rows: slice | Tensor) -> MicroBatch:
        """Some of its samples: a slice, or indices.

        Raises:
            ValueError: an input does not hold one entry per sample.
        """
        if isinstance(rows, Tensor):
            rows = rows.to(self.labels.device, non_blocking=True)
        return MicroBatch({name: self._cut(name, value, rows) for name, value in self.inputs.items()}, self.labels[rows])

    def _cut(self, name: str, value: Any, rows: slice | Tensor) -> Any:
        if _is_setting(value):
            return value
        if self._is_per_sample(value):
            return value[rows]
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"The model's input {name!r} is {found} and cannot be dealt out to parts of a batch of {len(self)} samples: "
            "tensors with one row per sample can. Leave it out, or what cuts the batch: ascent_size, or the method."
        )

    def _is_per_sample(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(self)


def _is_setting(value: Any) -> bool:
    """The same for every sample."""
    return value is None or isinstance(value, bool | int | float | str)
