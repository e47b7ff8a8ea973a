"""What a trainer can say of its training set: class statistics before the first step, the samples of a batch after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerState
from transformers.trainer_utils import has_length
from transformers.utils import is_peft_available

from hf_ltsam.class_statistics import ClassStatistics, check_label_range
from hf_ltsam.data.labels import training_labels
from hf_ltsam.data.sampling.sample_indices import indices_of_batches, named_with_labels
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.models.logits import check_num_classes
from hf_ltsam.training.refusals import check_not_empty, check_num_labels


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
        check_num_labels(counted, num_logits(model))
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


def require_statistics(statistics: ClassStatistics | None) -> ClassStatistics:
    """The class statistics themselves.

    Raises:
        ValueError: there are none.
    """
    if statistics is None:
        raise ValueError("There are no class statistics: pass train_dataset, or class_statistics=ClassStatistics(...).")
    return statistics


def samples_in_words(
    before: int, batches: Sequence[MicroBatch], state: TrainerState, loader: Any, training_labels: Tensor | None
) -> str:
    """Which samples of the training set some micro-batches hold, or of which classes where the loader cannot tell.

    Args:
        before: number of micro-batches of the step that came before them.
        state: of the trainer, at the beginning of the step.
        loader: of the training.
        training_labels: of the training set (N,); None: they cannot be read.
    """
    epoch = int(state.epoch or 0)
    labels = torch.cat([b.labels.cpu() for b in batches])
    indices = None
    if has_length(loader):
        first = round(((state.epoch or 0) - epoch) * len(loader)) + before
        indices = indices_of_batches(loader, epoch, first, len(batches))
    named = named_with_labels(indices, training_labels, labels)
    return named or f"a batch of the classes {sorted(set(labels.tolist()))}"
