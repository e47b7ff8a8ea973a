"""The same inputs for every pass over a micro-batch, whatever a forward pass does to them in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from copy import copy
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers.utils import logging

from hf_ltsam.landscape.batches import MicroBatch

logger = logging.get_logger(__name__)


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
        """
        inputs: Any = copied(batch.inputs, tensors=self._are_written is not False)
        if inputs is batch.inputs:  # an object of one's own, from which parts may be taken
            inputs = copy(inputs)
        given = replace(batch, inputs=inputs)
        before = [(name, tensor, tensor._version) for name, tensor in _tensors(given.inputs)]
        logits = of(given)
        written = [name for name, tensor, version in before if tensor._version != version]
        if written and self._are_written is False:
            logger.warning(
                f"A forward pass has written into its input {written[0]!r}, which earlier ones did not: later passes of "
                "this step see what it wrote. From here on each pass is given copies; a model that works on one itself "
                "(x = x / 255, not x.div_(255)) needs none."
            )
        self._are_written = bool(written) or bool(self._are_written)
        return logits


def copied(value: Any, tensors: bool) -> Any:
    """The inputs of a pass in containers of their own, with the same tensors or copies of them."""
    if isinstance(value, Tensor):
        return value.clone() if tensors else value
    if isinstance(value, tuple):
        parts = [copied(part, tensors) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if not isinstance(value, MutableMapping | list):
        return value
    own = copy(value)
    for place in list(own) if isinstance(own, MutableMapping) else range(len(own)):
        own[place] = copied(own[place], tensors)
    return own


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
