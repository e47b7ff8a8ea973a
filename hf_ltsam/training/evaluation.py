"""Evaluation of anything that returns logits: `eval_loss` is their plain cross-entropy, whatever the training loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from hf_ltsam.metrics.decisions import Decisions, parts_of
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


@contextmanager
def decisions_alone(trainer: Trainer, wanted: bool = True) -> Iterator[None]:
    """The trainer keeps `decisions_of_batch` of the logits: of 200,000 samples and 8,142 classes 6 MB, not 6 GB.

    A `preprocess_logits_for_metrics` of the user's stays in its place.
    """
    given = trainer.preprocess_logits_for_metrics
    trainer.preprocess_logits_for_metrics = decisions_of_batch if wanted and given is None else given
    try:
        yield
    finally:
        trainer.preprocess_logits_for_metrics = given


def keeps_logits(trainer: Trainer) -> bool:
    """Or `decisions_of_batch` of them; otherwise what the user makes of them."""
    return trainer.preprocess_logits_for_metrics in (None, decisions_of_batch)


def decisions_of_batch(outputs: Any, labels: Any) -> Any:
    """As `preprocess_logits_for_metrics` of a Trainer: `Decisions.columns`, and the log-likelihood of the labels, (n,) each.

    What is not logits (n, C) and class indices (n,) stays as it is.
    """
    logits = outputs[0] if isinstance(outputs, tuple | list) else outputs
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor) or logits.ndim != 2:
        return outputs
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        return outputs
    # on the CPU, where it is the same on every machine; in one copy, because what follows would wait for the device too
    here = logits.detach().cpu()
    columns = (*map(torch.from_numpy, Decisions.of(here).columns), _log_likelihood(here, labels.cpu()))
    device = logits.device if logits.device.type != "mps" else torch.device("cpu")  # which has no float64
    return tuple(column.to(device) for column in columns)


def _log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """log softmax(z)_y (n,), in float64, of some rows at a time."""
    rows = [logits[part].double().log_softmax(1).gather(1, labels[part, None].long()) for part in parts_of(logits)]
    return torch.cat(rows)[:, 0]


def _mean_cross_entropy(predictions: Any, labels: Any) -> float | None:
    """Of logits (N, C), or a tuple that begins with them, or what `decisions_of_batch` keeps, and class indices (N,).

    None where they are something else.
    """
    if isinstance(predictions, tuple) and len(predictions) == 4 and np.ndim(predictions[0]) == 1:
        log_likelihood = torch.as_tensor(predictions[3])  # summed as `cross_entropy` sums
        return float(F.nll_loss(log_likelihood[:, None], torch.zeros(len(log_likelihood), dtype=torch.long)))
    predictions = predictions[0] if isinstance(predictions, tuple) else predictions
    if not isinstance(predictions, np.ndarray) or not isinstance(labels, np.ndarray) or predictions.ndim != 2:
        return None
    if labels.shape != predictions.shape[:1] or labels.dtype.kind != "i":
        return None
    return float(F.cross_entropy(torch.as_tensor(predictions).double(), torch.as_tensor(labels).long()))
