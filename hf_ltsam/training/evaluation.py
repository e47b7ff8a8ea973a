"""Evaluation of anything that returns logits: `eval_loss` is their plain cross-entropy, whatever the training loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput

from hf_ltsam.models.logits import logits_of
from hf_ltsam.training.objective import LabelledBatches


class Evaluation:
    """Loss and logits of an evaluation.

    Args:
        batches: inputs and labels apart.
        context: in which the model is called where there is no loss.
    """

    def __init__(self, batches: LabelledBatches, context: Callable[[], AbstractContextManager[None]]) -> None:
        self._batches, self._context = batches, context
        self.for_prediction = False  # which needs no labels

    def without_missing_labels(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch as it is, or without its labels where all stand for none (-1).

        Raises:
            ValueError: there are no labels and they are needed, or some are there and some are not.
        """
        name = self._batches.label_name
        labels = batch.get(name)
        if not isinstance(labels, Tensor) or labels.is_floating_point() or not bool((labels < 0).any()):
            return batch
        if not self.for_prediction or not bool((labels < 0).all()):
            missing = int(labels[labels < 0][0])
            raise ValueError(
                f"The batch has samples without a label (label {missing}): nothing can be measured on them. Leave them out; "
                "predict() takes a data set in which no sample has one."
            )
        return {key: value for key, value in batch.items() if key != name}

    def loss(
        self, module: nn.Module, model: nn.Module, batch: dict[str, Any], return_outputs: bool
    ) -> Tensor | tuple[Tensor, Mapping[str, Any]]:
        """The plain cross-entropy (a mean) of the raw logits, with the outputs behind them on demand.

        Args:
            module: what is called: the model, or what wraps it.
            model: the model itself.
        """
        micro_batch = self._batches.split(batch, model)
        outputs = module(**micro_batch.inputs)
        logits = logits_of(outputs)
        loss = F.cross_entropy(logits, micro_batch.labels)
        if not return_outputs:
            return loss
        others = outputs if isinstance(outputs, Mapping) else {}
        return loss, {"logits": logits, **{k: v for k, v in others.items() if k != "logits"}}  # metrics take the first

    def logits(self, module: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Of a batch without labels (n, C)."""
        with torch.no_grad(), self._context():
            return logits_of(module(**inputs)).detach()

    def with_mean_loss(self, output: EvalLoopOutput, prefix: str) -> EvalLoopOutput:
        """The loss as the mean over the samples, whatever the batches and the number of processes.

        The stock loop repeats the mean of each batch, as if a smaller last one were full.
        """
        name = f"{prefix}_loss"
        if name in (output.metrics or {}):
            loss = _mean_cross_entropy(output.predictions, output.label_ids)
            output.metrics[name] = output.metrics[name] if loss is None else loss
        return output


def _mean_cross_entropy(predictions: Any, labels: Any) -> float | None:
    """Of logits (N, C), or a tuple that begins with them, and class indices (N,); None where they are something else."""
    predictions = predictions[0] if isinstance(predictions, tuple) else predictions
    if not isinstance(predictions, np.ndarray) or not isinstance(labels, np.ndarray) or predictions.ndim != 2:
        return None
    if labels.shape != predictions.shape[:1] or labels.dtype.kind != "i":
        return None
    return float(F.cross_entropy(torch.as_tensor(predictions).double(), torch.as_tensor(labels).long()))
