"""The same inputs for every pass over a micro-batch, whatever a forward pass does to them in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from copy import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from hf_ltsam.landscape.batches import MicroBatch


class PassInputs:
    """Containers are copied for each pass; tensors only where a model was seen to write into its inputs.

    The first pass of a training is given copies, which show whether it does.
    """

    def __init__(self) -> None:
        self._are_written: bool | None = None  # None: no pass has been made

    def logits(self, of: Callable[[MicroBatch], Tensor], batch: MicroBatch) -> Tensor:
        """What the losses are made from, by a pass over inputs that stay as they are.

        Args:
            of: makes it, by a forward pass.

        Raises:
            ValueError: the first pass has left its inputs alone, and this one has written into one of them.
        """
        given = replace(batch, inputs=copied(batch.inputs, tensors=self._are_written is not False))
        before = [(name, tensor, tensor._version) for name, tensor in _tensors(given.inputs)]
        logits = of(given)
        written = [name for name, tensor, version in before if tensor._version != version]
        if self._are_written is None:
            self._are_written = bool(written)
        elif written and not self._are_written:
            raise ValueError(
                f"The forward pass has written into its input {written[0]!r}, which the first one of the training did not: "
                "the other passes of this step would see other values. Let the model work on a copy, x = x / 255 and not "
                "x.div_(255)."
            )
        return logits


def copied(value: Any, tensors: bool) -> Any:
    """The inputs of a pass in containers of their own, with the same tensors or copies of them."""
    if isinstance(value, Tensor):
        return value.clone() if tensors else value
    if isinstance(value, MutableMapping):
        parts = copy(value)
        for name in list(parts):
            parts[name] = copied(parts[name], tensors)
        return parts
    return [copied(part, tensors) for part in value] if type(value) is list else value


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if not value.is_inference():  # those keep no count of what was written
            yield name, value
    elif isinstance(value, MutableMapping):
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part, name)
