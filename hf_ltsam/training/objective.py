"""What a training minimises: from the batch of a loader to the loss of each of its samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_ltsam.class_statistics import NAMES_TO_NUMBERS, ClassStatistics
from hf_ltsam.data.soft_labels import are_soft, shares_of, smoothed
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.losses import LOSSES, CrossEntropy, FeatureLoss, Loss, make_any_loss
from hf_ltsam.losses.features import check_inputs, classifier_inputs, losses_of
from hf_ltsam.losses.protocol import takes_several_labels
from hf_ltsam.losses.reweighting import Reweighting
from hf_ltsam.methods import METHODS, Method, make_method
from hf_ltsam.models.logits import check_logits, check_losses, logits_of
from hf_ltsam.runs.identity import describe
from hf_ltsam.training.refusals.problem import check_columns

_EARLY_LOSS = CrossEntropy()


@dataclass(frozen=True)
class Objective:
    """What is minimised, and by which update rule.

    Args:
        method: the update rule.
        loss: of each sample.
        loss_start: share of the training from which it applies, in [0, 1]; before it, cross-entropy does.
        reweighting: class weights, from a share of the training of their own.
        statistics: of the training set.
        mixing: how images are mixed, as `MixingSettings.mixing` states it.
        label_smoothing: share of every label that is spread over all classes, in [0, 1]. It belongs to the loss alone: for
            methods and class weights, a sample stays of its class.
    """

    method: Method
    loss: Loss | FeatureLoss
    loss_start: float
    reweighting: Reweighting
    statistics: ClassStatistics
    mixing: Mapping[str, float] = field(default_factory=dict)
    label_smoothing: float = 0.0

    def identity(self) -> dict[str, Any]:
        """What a checkpoint records; a run that differs must not resume it."""
        return {
            "method": describe(METHODS, self.method),
            "loss": describe(LOSSES, self.loss),
            "loss_start": self.loss_start,
            "reweighting": {"scheme": self.reweighting.scheme, "start": self.reweighting.start},
            "class_counts": list(self.statistics.counts),
            "tail_threshold": self.statistics.tail_threshold if self.method.needs_split else None,
            "mixing": dict(self.mixing),
            "label_smoothing": self.label_smoothing,
        }

    def of_batches(
        self,
        module: nn.Module,
        model: nn.Module,
        progress: float,
        context: Callable[[], AbstractContextManager[None]],
    ) -> BatchLoss:
        """The losses of one training step, see `BatchLoss`."""
        return BatchLoss(module, model, self, progress, context)

    def loss_at(self, progress: float) -> Loss | FeatureLoss:
        """The loss at completed steps / total steps."""
        return self.loss if progress >= self.loss_start else _EARLY_LOSS


class BatchLoss:
    """The losses of the samples of one training step.

    Args:
        module: what is called: the model, or what wraps it.
        model: the model itself.
        objective: whose loss and class weights apply.
        progress: completed steps / total steps, in [0, 1).
        context: in which the model is called.
    """

    def __init__(
        self,
        module: nn.Module,
        model: nn.Module,
        objective: Objective,
        progress: float,
        context: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.loss = objective.loss_at(progress)
        self._module, self._model = module, model
        self._objective, self._progress = objective, progress
        self._num_classes = objective.statistics.num_classes
        self._context = context
        self._features: Sequence[Tensor] = []  # what the classifier was given in the last pass

    def logits(self, batch: MicroBatch) -> Tensor:
        """Logits (b, C), by one forward pass."""
        captured = classifier_inputs(self._objective.loss, self._model, self._num_classes)
        with self._context(), captured as self._features:
            return logits_of(self._module(**batch.inputs))

    def losses(self, logits: Tensor, batch: MicroBatch) -> Tensor:
        """l_i (b,) of the last pass's logits, or of what a moved classifier would have made of the same features."""
        statistics = self._objective.statistics
        check_logits(logits, batch.labels, self._num_classes, takes_several_labels(self.loss))
        check_inputs(self._objective.loss, self._features, len(batch.labels))  # of a loss that begins later, now
        labels = self._objective.reweighting.within(self._progress, statistics, batch.labels)
        with _soft_labels_noted(given := self._smoothed(labels, logits)):
            losses = losses_of(self.loss, logits, given, statistics, self._features)
        check_losses(losses, batch.labels)
        weights = self._objective.reweighting.weights(self._progress, statistics, batch.labels, losses)
        return losses if weights is None else weights * losses

    def _smoothed(self, labels: Tensor, logits: Tensor) -> Tensor:
        """The labels that the loss is given: shares in the type that losses are computed in, where they are smoothed."""
        factor = self._objective.label_smoothing
        if factor == 0:
            return labels
        shares = shares_of(labels, self._num_classes).to(torch.promote_types(logits.dtype, torch.float32))
        return smoothed(shares, self._num_classes, factor)


@contextmanager
def _soft_labels_noted(labels: Tensor) -> Iterator[None]:
    """An error of a loss that takes shares of classes for class indices says what it was given."""
    try:
        yield
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        if are_soft(labels) and not isinstance(error, torch.OutOfMemoryError):
            error.add_note(
                f"The labels that the loss was given are soft: shares of the classes, of shape {tuple(labels.shape)} and "
                f"type {labels.dtype}, by mixup_alpha, cutmix_alpha, label_smoothing_factor or the data set. A loss of "
                "class indices takes labels.argmax(1), or goes without these settings."
            )
        raise


class LabelledBatches:
    """Inputs and labels of batches, apart.

    Args:
        label_name: gives the key of the labels in a batch.
    """

    def __init__(self, label_name: Callable[[], str]) -> None:
        self._label_name = label_name
        self._accepted: set[frozenset[str]] = set()  # columns that the model was seen to take

    @property
    def label_name(self) -> str:
        return self._label_name()

    def split(self, batch: dict[str, Any], model: nn.Module) -> MicroBatch:
        """The micro-batch of what a loader gives.

        Raises:
            ValueError: there are no labels under their name, no samples, or columns that the model does not take.
        """
        name = self._label_name()
        if name not in batch:
            renamed = " (the default collator renames 'label' to 'labels')" if name == "label" else ""
            raise ValueError(
                f"The batch has no {name!r}, only {sorted(batch)}{renamed}. Name the label column 'labels', or set "
                "label_names=[...] in LTSamConfig to its name (under remove_unused_columns=True a batch has those columns "
                f"alone that the model takes, and the default collator leaves labels out that are text). {NAMES_TO_NUMBERS}"
            )
        inputs = {key: value for key, value in batch.items() if key != name}
        if frozenset(inputs) not in self._accepted:
            check_columns(model, inputs)
            self._accepted.add(frozenset(inputs))
        labels = batch[name]
        if labels.ndim and not len(labels):
            raise ValueError(
                f"The batch has no samples ({name!r} has shape {tuple(labels.shape)}): nothing could be learned from it. "
                "Let the data collator return at least one, or leave samples out of the data set before."
            )
        return MicroBatch(inputs, labels if labels.is_floating_point() else labels.long())


def by_name_or_object(given: Any, kind: str, arguments: Any) -> Any:
    """A method or loss that was passed: the object itself, the one that a name stands for, or None where it is None.

    Args:
        kind: "method" or "loss".
        arguments: of the settings, which belong to a name.

    Raises:
        ValueError: an object and arguments, or a name that does not exist.
        TypeError: a class in the place of an object, or a loss that does not take logits, labels and statistics.
    """
    if isinstance(given, str):
        make: Callable[..., Any] = make_method if kind == "method" else make_any_loss
        return make(given, **(arguments or {}))
    if given is not None and arguments:
        raise ValueError(
            f"{kind} was passed as an object ({type(given).__name__}) and {kind}_args={arguments} as well: use one."
        )
    if isinstance(given, type):  # of a loss; a method's has been refused
        raise TypeError(f"{kind}={given.__name__} is a class: pass an object, {given.__name__}(...), or a name.")
    if kind == "loss" and not isinstance(given, FeatureLoss | None):
        _check_signature(given)
    return given


def _check_signature(loss: Any) -> None:
    """Refuse a loss of two arguments, such as torch's, whose mean over the batch no method could weight either."""
    try:
        inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).bind(None, None, None)
    except ValueError:  # written in C, it shows no signature
        return
    except TypeError as error:
        raise TypeError(
            f"loss={getattr(loss, '__name__', type(loss).__name__)} cannot be called as loss(logits (n, C), labels (n,), "
            "statistics), which returns the loss of each sample (n,). Pass a name such as 'cross_entropy', or a function: "
            "lambda logits, labels, statistics: torch.nn.functional.cross_entropy(logits, labels, reduction='none')."
        ) from error
