"""The input of the classifier, for losses that read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.losses.protocol import FeatureLoss, Loss
from hf_ltsam.models.classifier import classifier_of


@contextmanager
def captured_inputs(layer: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs that a layer is given inside a `with` block, in order."""
    inputs: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.extend(arguments[:1])

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield inputs
    finally:
        handle.remove()


@contextmanager
def classifier_inputs(loss: Loss | FeatureLoss, model: nn.Module, num_classes: int) -> Iterator[list[Tensor]]:
    """What the classifier is given inside a `with` block, where the loss reads it; otherwise nothing is captured."""
    if not isinstance(loss, FeatureLoss):
        yield []
        return
    with captured_inputs(_classifier(loss, model, num_classes)) as inputs:
        yield inputs


def losses_of(
    loss: Loss | FeatureLoss, logits: Tensor, labels: Tensor, statistics: ClassStatistics, inputs: Sequence[Tensor]
) -> Tensor:
    """The losses (n,), of logits (n, C) and, for a loss that reads features, of what `classifier_inputs` captured.

    Raises:
        ValueError: see `check_inputs`.
    """
    if not isinstance(loss, FeatureLoss):
        return loss(logits, labels, statistics)
    check_inputs(loss, inputs, len(labels))
    return loss(logits, labels, statistics, inputs[0])


def check_inputs(loss: Loss | FeatureLoss, inputs: Sequence[Tensor], samples: int) -> None:
    """Refuse a loss that reads features where a pass shows none: the classifier is called once, with a vector a sample.

    Args:
        inputs: what `classifier_inputs` captured.
        samples: n, of the pass.

    Raises:
        ValueError: naming what was captured.
    """
    if not isinstance(loss, FeatureLoss):
        return
    if len(inputs) != 1 or inputs[0].ndim != 2 or len(inputs[0]) != samples:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs) or "nothing"
        raise ValueError(
            f"{type(loss).__name__} reads the features (n, D) that the classifier is given, once for each of the "
            f"{samples} samples; it was given {shapes}. Use another loss, such as logit_adjustment."
        )


def check_features(loss: Loss | FeatureLoss, model: nn.Module, num_classes: int, hidden_by: str | None = None) -> None:
    """Refuse a loss that reads features where nobody can say what they are.

    Args:
        hidden_by: the setting under which modules are not called one by one; None: they are.

    Raises:
        ValueError: no linear layer could be the classifier, or several could; or a setting hides it.
    """
    if not isinstance(loss, FeatureLoss):
        return
    _classifier(loss, model, num_classes)
    if hidden_by is not None:
        raise ValueError(
            f"{type(loss).__name__} reads the input of the classifier, which {hidden_by}=True does not show: set "
            f"{hidden_by}=False, or use another loss."
        )


def _classifier(loss: FeatureLoss, model: nn.Module, num_classes: int) -> nn.Module:
    name = type(loss).__name__
    classifier = classifier_of(model, num_classes, way_out=f"another loss than {name}, which reads its input")
    if not isinstance(classifier, nn.Linear):
        raise ValueError(
            f"{name} reads the input of a linear last layer, and {type(model).__name__} ends in a "
            f'{type(classifier).__name__}. Build the model with a linear head (CifarResNetConfig(head="linear")), or use '
            "another loss."
        )
    return classifier
