"""Evaluation of anything that returns logits: `eval_loss` is their plain cross-entropy, whatever the training loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.soft_labels import ROUNDING
from hf_ltsam.losses.protocol import cross_entropy, takes_several_labels
from hf_ltsam.metrics.decisions import FEW_CLASSES, Decisions, as_array, label_ranks, logits_in, parts_of
from hf_ltsam.metrics.long_tail import LongTailMetrics
from hf_ltsam.metrics.several_labels import SeveralLabelMetrics
from hf_ltsam.models.logits import logits_of
from hf_ltsam.training.loaders import replaced
from hf_ltsam.training.objective import LabelledBatches

logger = logging.get_logger(__name__)


class Evaluation:
    """Loss and outputs of an evaluation.

    Args:
        batches: inputs and labels apart.
        loss: gives that of the training, which says what labels are.
    """

    def __init__(self, batches: LabelledBatches, loss: Callable[[], Any] = lambda: None) -> None:
        self._batches, self._loss = batches, loss
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
    ) -> Tensor | tuple[Tensor, Any]:
        """The plain cross-entropy (a mean) of the raw logits, binary for several labels of a sample, with the outputs behind
        them on demand.

        Args:
            module: what is called: the model, or what wraps it.
            model: the model itself.
        """
        micro_batch = self._batches.split(batch, model)
        outputs = module(**micro_batch.inputs)
        logits, labels = logits_of(outputs), micro_batch.labels
        if takes_several_labels(self._loss()):
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        else:
            loss = cross_entropy(logits, labels).mean()
        if not return_outputs:
            return loss
        outputs = logits_first(outputs)
        return loss, outputs if isinstance(outputs, Mapping) else (loss, *outputs)  # the stock step drops the first

    def outputs(self, module: nn.Module, **inputs: Any) -> Any:
        """Of a batch without labels, in an order and a form that the stock prediction step keeps."""
        return logits_first(module(**inputs))

    def with_mean_loss(self, output: EvalLoopOutput, prefix: str) -> EvalLoopOutput:
        """The loss as the mean over the samples, whatever the batches and the number of processes.

        The stock loop repeats the mean of each batch, as if a smaller last one were full.
        """
        name = f"{prefix}_loss"
        if name in (output.metrics or {}):
            several = takes_several_labels(self._loss())
            loss = _mean_cross_entropy(output.predictions, output.label_ids, several)
            output.metrics[name] = output.metrics[name] if loss is None else loss
        return output


def beside_groups(
    own: Callable[..., Any] | None,
    statistics: ClassStatistics | None,
    prefix: str,
    loss: Any = None,
    are_logits: bool = True,
) -> Callable[..., Any] | None:
    """The metrics of an evaluation: one's own `compute_metrics`, and the accuracies by group beside them.

    Where a name is in both, one's own value counts, and a warning says so once if they differ. So it does where the
    predictions are neither logits nor classes, and there are no accuracies by group.

    Args:
        are_logits: whether predictions are the model's own; otherwise they may be probabilities.
    """
    if isinstance(own, LongTailMetrics):
        ours = replace(own)  # without batches of an evaluation that was cut short
        return ours if are_logits else _OfProbabilities(ours)
    if own is None or statistics is None:
        return own
    of_logits = renewed(None, statistics, loss)
    groups = of_logits if are_logits else _OfProbabilities(of_logits)

    def metrics(prediction: EvalPrediction, compute_result: bool | None = None) -> Any:
        ours = _or_warning(groups, prediction, compute_result is not False)
        given = own(prediction) if compute_result is None else own(prediction, compute_result=compute_result)
        if not isinstance(given, Mapping):
            return given
        names = {name: name if name in given else f"{prefix}_{name}" for name in ours}
        clashes = [name for name, other in names.items() if other in given and not _equal(given[other], ours[name])]
        if clashes:
            logger.warning_once(f"compute_metrics has {', '.join(clashes)} of its own, which take the place of ours.")
        return {**{name: value for name, value in ours.items() if names[name] not in given}, **given}

    return metrics


def renewed(metrics: LongTailMetrics | None, statistics: ClassStatistics, loss: Any = None) -> LongTailMetrics:
    """The same metrics by the statistics of another training set; where there were none, ours for that training loss."""
    kind = SeveralLabelMetrics if takes_several_labels(loss) else LongTailMetrics
    return kind(statistics) if metrics is None else replace(metrics, statistics=statistics)


@dataclass
class _OfProbabilities:
    """Metrics of logits, given what a `preprocess_logits_for_metrics` of the user's makes of them.

    Softmax of probabilities would be other probabilities: rows of numbers from 0 on that add up to 1 become the logits that
    have them, their logarithms. All else stays as it is. One is made for each evaluation.
    """

    metrics: LongTailMetrics
    _others: bool = False  # whether a batch has had a number that no probability is, or zeros alone

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, Any]:
        """As the metrics.

        Raises:
            ValueError: several labels of a sample, and numbers that may be probabilities or logits.
        """
        outputs = prediction.predictions
        if isinstance(self.metrics, SeveralLabelMetrics):
            batches = outputs if isinstance(outputs, list) else [outputs]
            self._others = self._others or any(_from_0_to_1(batch) is None for batch in batches)
            if compute_result and not self._others:
                raise ValueError(
                    "preprocess_logits_for_metrics gives numbers from 0 to 1 alone, probabilities it seems; a label is "
                    "taken where its logit is above 0: return the logits, or measure in a compute_metrics of your own."
                )
            return self.metrics(prediction, compute_result)
        made = [_logits(batch) for batch in outputs] if isinstance(outputs, list) else _logits(outputs)
        return self.metrics(EvalPrediction(made, prediction.label_ids), compute_result)


def _logits(outputs: Any) -> Any:
    """Those of probabilities; other outputs as they are."""
    values = _from_0_to_1(outputs)
    if values is None or np.abs(values.sum(axis=1) - 1).max() > ROUNDING:
        return outputs
    with np.errstate(divide="ignore"):
        return np.log(values)


def _from_0_to_1(outputs: Any) -> NDArray[np.float64] | None:
    """What is not of another kind than probabilities (n, C) are, nor zeros alone, as a head that starts at zero gives."""
    found = logits_in(outputs)
    values = None if found is None else as_array(found)
    if values is None or not (values.min() >= 0 and 0 < values.max() <= 1):
        return None
    return values.astype(np.float64)


def _or_warning(groups: Callable[..., Any], prediction: EvalPrediction, compute_result: bool) -> dict[str, Any]:
    try:
        return groups(prediction, compute_result)
    except (TypeError, ValueError) as error:
        logger.warning_once(f"There are no accuracies by group beside those of compute_metrics: {error}")
        return {}


def _equal(value: Any, other: float) -> bool:
    try:
        return abs(float(value) - other) < 1e-6
    except (TypeError, ValueError):
        return False


def logits_first(outputs: Any) -> Mapping[str, Any] | tuple[Any, ...]:
    """All outputs of a model, the logits before the others.

    A bare tensor becomes a mapping: the stock prediction step would take one of a single row for a tuple of one output.
    """
    logits = logits_of(outputs)
    if isinstance(outputs, tuple):
        return outputs
    others = outputs if isinstance(outputs, Mapping) else {}
    return {"logits": logits, **{name: value for name, value in others.items() if name != "logits"}}


@contextmanager
def decisions_alone(trainer: Trainer, wanted: bool = True) -> Iterator[None]:
    """The trainer keeps `decisions_of_batch` of the logits: of 200,000 samples and 8,142 classes 8 MB, not 6 GB.

    A `preprocess_logits_for_metrics` of the user's stays in its place.
    """
    given = trainer.preprocess_logits_for_metrics
    with replaced(trainer, preprocess_logits_for_metrics=decisions_of_batch if wanted and given is None else given):
        yield


def keeps_logits(trainer: Trainer) -> bool:
    """Or `decisions_of_batch` of them; otherwise what the user makes of them."""
    return trainer.preprocess_logits_for_metrics in (None, decisions_of_batch)


def decisions_of_batch(outputs: Any, labels: Any) -> Any:
    """As `preprocess_logits_for_metrics` of a Trainer: `Decisions.columns`, the log-likelihood of the labels and their
    `label_ranks`, (n,) each; of few classes the logits (n, C), from which all these follow, and areas under curves too.

    What is not logits (n, C) and class indices (n,) stays as it is.
    """
    logits = outputs[0] if isinstance(outputs, tuple | list) else outputs
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor) or logits.ndim != 2:
        return outputs
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        return outputs
    if logits.shape[1] <= FEW_CLASSES:
        return logits
    # on the CPU, where it is the same on every machine; in one copy, because what follows would wait for the device too
    here = logits.detach().cpu()
    ranks = torch.from_numpy(label_ranks(here, labels.cpu().numpy()))
    columns = (*map(torch.from_numpy, Decisions.of(here).columns), _log_likelihood(here, labels.cpu()), ranks)
    device = logits.device if logits.device.type != "mps" else torch.device("cpu")  # which has no float64
    return tuple(column.to(device) for column in columns)


def _log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """log softmax(z)_y (n,), in float64, of some rows at a time."""
    rows = [logits[part].double().log_softmax(1).gather(1, labels[part, None].long()) for part in parts_of(logits)]
    return torch.cat(rows)[:, 0]


def _mean_cross_entropy(predictions: Any, labels: Any, several: bool = False) -> float | None:
    """Of logits (N, C), or a tuple that begins with them, or what `decisions_of_batch` keeps, and class indices (N,) or
    shares of classes (N, C).

    None where they are something else.
    """
    if isinstance(predictions, tuple) and len(predictions) == 5 and np.ndim(predictions[0]) == 1:
        log_likelihood = torch.as_tensor(predictions[3])  # summed as `cross_entropy` sums
        return float(F.nll_loss(log_likelihood[:, None], torch.zeros(len(log_likelihood), dtype=torch.long)))
    predictions = predictions[0] if isinstance(predictions, tuple) else predictions
    if not isinstance(predictions, np.ndarray) or not isinstance(labels, np.ndarray) or predictions.ndim != 2:
        return None
    if labels.shape == predictions.shape and several:
        logits, truth = (torch.as_tensor(values).double() for values in (predictions, labels))
        return float(F.binary_cross_entropy_with_logits(logits, truth))
    if labels.shape == predictions.shape and labels.dtype.kind == "f":
        return float(F.cross_entropy(torch.as_tensor(predictions).double(), torch.as_tensor(labels).double()))
    if labels.shape != predictions.shape[:1] or labels.dtype.kind != "i":
        return None
    return float(F.cross_entropy(torch.as_tensor(predictions).double(), torch.as_tensor(labels).long()))
