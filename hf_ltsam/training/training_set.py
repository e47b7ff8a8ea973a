"""What a trainer knows about its training set before the first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import is_peft_available

from hf_ltsam.class_statistics import ClassStatistics, check_label_range
from hf_ltsam.data.labels import training_labels
from hf_ltsam.models.logits import check_num_classes
from hf_ltsam.training.refusals import check_not_empty


def readable_labels(dataset: Any, label_name: str) -> Tensor | None:
    """The labels (N,) of a training set, or None where they cannot be read without its samples."""
    if dataset is None:
        return None
    try:
        return training_labels(dataset, label_name)
    except (TypeError, ValueError):
        return None


def num_logits(model: nn.Module) -> int | None:
    """C as the model's configuration states it; None for a module without one."""
    inner = without_adapter(model)
    return inner.config.num_labels if isinstance(inner, PreTrainedModel) else None


def without_adapter(model: nn.Module) -> nn.Module:
    """The model under an adapter of peft; any other as it is."""
    if not is_peft_available():
        return model
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def statistics_of(
    dataset: Any, label_name: str, model: nn.Module, given: ClassStatistics | None, tail_threshold: int | None
) -> ClassStatistics | None:
    """The statistics that were given, or those counted from the label column; None where there is neither.

    Raises:
        TypeError: the labels cannot be read without the samples.
        ValueError: a training set without samples, a label outside the class range, a class without a training image,
            two different tail thresholds, or a number of classes that is not the model's.
    """
    if given is None and dataset is None:
        return None
    check_not_empty(dataset)
    if given is None:
        counted = training_labels(dataset, label_name)
        return ClassStatistics.from_labels(counted, num_logits(model), tail_threshold=tail_threshold)
    logits = num_logits(model)
    if logits is not None:
        check_num_classes(logits, given.num_classes)
    labels = readable_labels(dataset, label_name)
    if labels is not None and len(labels):
        check_label_range(labels, given.num_classes)
    return _with_threshold(given, tail_threshold)


def _with_threshold(given: ClassStatistics, tail_threshold: int | None) -> ClassStatistics:
    if tail_threshold is None or tail_threshold == given.tail_threshold:
        return given
    if given.tail_threshold is None:
        return replace(given, tail_threshold=tail_threshold)
    raise ValueError(
        f"tail_threshold is {tail_threshold} in LTSamConfig and {given.tail_threshold} in class_statistics: set one of them."
    )
