"""Evaluation of anything that returns logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from .landscape import MicroBatch
from .logits import logits_of


class EvaluatesLogits(Trainer):
    """The stock Trainer, whose `eval_loss` is the plain cross-entropy of the raw logits, whatever the training loss."""

    def micro_batch(self, inputs: dict[str, Any]) -> MicroBatch:
        """Inputs and labels apart.

        Raises:
            ValueError: there are no labels under the name of `label_names`.
        """
        name = self.label_names[0]
        if name not in inputs:
            raise ValueError(
                f"The batch has no {name!r}, only {sorted(inputs)}. Name the label column 'label' or {name!r}, or set "
                "label_names=[...] in LTSamConfig."
            )
        return MicroBatch({k: v for k, v in inputs.items() if k != name}, inputs[name])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Mapping[str, Any]]:
        """The plain cross-entropy (a mean) of the raw logits."""
        batch = self.micro_batch(inputs)
        outputs = model(**batch.inputs)
        logits = logits_of(outputs)
        loss = F.cross_entropy(logits, batch.labels)
        if not return_outputs:
            return loss
        return loss, outputs if isinstance(outputs, Mapping) else {"logits": logits}

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if self.label_names[0] in inputs or isinstance(self.model, PreTrainedModel):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        # Without labels the stock step would take a bare tensor of one row for a tuple of one output.
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, logits_of(model(**self._prepare_inputs(inputs))).detach(), None
