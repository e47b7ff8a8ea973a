"""Evaluation of anything that returns logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import EvalLoopOutput

from .landscape import MicroBatch
from .logits import logits_of
from .refusals import check_columns


class EvaluatesLogits(Trainer):
    """The stock Trainer, whose `eval_loss` is the plain cross-entropy of the raw logits, whatever the training loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._known_columns: set[frozenset[str]] = set()
        super().__init__(*args, **kwargs)

    def micro_batch(self, inputs: dict[str, Any]) -> MicroBatch:
        """Inputs and labels apart.

        Raises:
            ValueError: there are no labels under the name of `label_names`, no samples, or columns that the model does not
                take.
        """
        name = self.label_names[0]
        if name not in inputs:
            renamed = " (the default collator renames 'label' to 'labels')" if name == "label" else ""
            raise ValueError(
                f"The batch has no {name!r}, only {sorted(inputs)}{renamed}. Name the label column 'labels', or set "
                "label_names=[...] in LTSamConfig to the name in the batch."
            )
        others = {k: v for k, v in inputs.items() if k != name}
        if frozenset(others) not in self._known_columns:
            check_columns(self.model, others)
            self._known_columns.add(frozenset(others))
        labels = inputs[name]
        if labels.ndim and not len(labels):
            raise ValueError(
                f"The batch has no samples ({name!r} has shape {tuple(labels.shape)}): nothing could be learned from it. "
                "Let the data collator return at least one, or leave samples out of the data set before."
            )
        return MicroBatch(others, labels if labels.is_floating_point() else labels.long())

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
        others = outputs if isinstance(outputs, Mapping) else {}
        return loss, {"logits": logits, **{k: v for k, v in others.items() if k != "logits"}}        # metrics take the first

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As stock, with the loss as the mean over the samples, whatever the batches and the number of processes.

        The stock loop repeats the mean of each batch, as if a smaller last one were full.
        """
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        name, own = f"{metric_key_prefix}_loss", type(self).compute_loss is EvaluatesLogits.compute_loss
        if own and name in (output.metrics or {}) and self.preprocess_logits_for_metrics is None:
            loss = _mean_cross_entropy(output.predictions, output.label_ids)
            output.metrics[name] = output.metrics[name] if loss is None else loss
        return output

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


def _mean_cross_entropy(predictions: Any, labels: Any) -> float | None:
    """Of logits (N, C), or a tuple that begins with them, and class indices (N,); None where they are something else."""
    predictions = predictions[0] if isinstance(predictions, tuple) else predictions
    if not isinstance(predictions, np.ndarray) or not isinstance(labels, np.ndarray) or predictions.ndim != 2:
        return None
    if labels.shape != predictions.shape[:1] or labels.dtype.kind != "i":
        return None
    return float(F.cross_entropy(torch.as_tensor(predictions).double(), torch.as_tensor(labels).long()))
