"""From a micro-batch to the loss of each of its samples, as the landscape asks for it: logits, then losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.losses.features import classifier_inputs, losses_of
from hf_ltsam.losses.protocol import FeatureLoss, Loss
from hf_ltsam.models.logits import check_logits, check_losses, logits_of


class BatchLoss:
    """The losses of one training step.

    Args:
        module: what is called: the model, or what wraps it.
        model: the model itself.
        loss: of this moment of the training.
        statistics: of the training set.
        class_weights: labels (b,), losses (b,) -> the factor of each loss (b,); None: all ones.
        context: in which the model is called.
    """

    def __init__(
        self,
        module: nn.Module,
        model: nn.Module,
        loss: Loss | FeatureLoss,
        statistics: ClassStatistics,
        class_weights: Callable[[Tensor, Tensor], Tensor | None],
        context: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._module, self._model = module, model
        self._loss = loss
        self._statistics = statistics
        self._class_weights = class_weights
        self._context = context
        self._features: Sequence[Tensor] = []  # what the classifier was given in the last pass

    def logits(self, batch: MicroBatch) -> Tensor:
        """Logits (b, C), by one forward pass."""
        captured = classifier_inputs(self._loss, self._model, self._statistics.num_classes)
        with self._context(), captured as self._features:
            return logits_of(self._module(**batch.inputs))

    def losses(self, logits: Tensor, batch: MicroBatch) -> Tensor:
        """l_i (b,) of the last pass's logits, or of what a moved classifier would have made of the same features."""
        check_logits(logits, batch.labels, self._statistics.num_classes)
        losses = losses_of(self._loss, logits, batch.labels, self._statistics, self._features)
        check_losses(losses, batch.labels)
        weights = self._class_weights(batch.labels, losses)
        return losses if weights is None else weights * losses
