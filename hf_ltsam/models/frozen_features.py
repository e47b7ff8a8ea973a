"""Features of many images, the inputs of a classifier, computed once by a frozen model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import default_data_collator

from hf_ltsam.data.labels import LABEL_NAMES, training_labels
from hf_ltsam.data.sample_labels import Collator
from hf_ltsam.hyperparameters import COUNT, require
from hf_ltsam.models.classifier import classifier_of

_SAMPLES_IN_TRAINING, _BATCH_IN_TRAINING = 256, 32


def first_of_every_class(labels: Tensor, max_per_class: int | None) -> Tensor:
    """Indices (M,), ascending, of the first `max_per_class` samples of every class; None: of all samples."""
    if max_per_class is None:
        return torch.arange(len(labels))
    require(COUNT, "first_of_every_class", max_per_class=max_per_class)
    first = [(labels == c).nonzero().flatten()[:max_per_class] for c in labels.unique()]
    return torch.cat(first).sort().values


@torch.no_grad()
def frozen_features(
    model: nn.Module,
    dataset: Any,
    num_classes: int,
    max_per_class: int | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = True,
    collator: Collator = default_data_collator,
) -> tuple[Tensor, Tensor]:
    """The inputs of the classifier, in evaluation mode, and the labels.

    Args:
        model: called with all of a sample but its labels; its classifier is its one linear or cosine layer with C outputs.
        dataset: samples `{"pixel_values": (3, H, W), "labels": int}`, not augmented, or tokens of texts, with labels that
            can be read without them.
        num_classes: C.
        max_per_class: how many samples of every class are used, the first ones of the data set; None: all.
        batch_size: samples per forward pass.
        num_workers: processes that prepare samples.
        progress: whether to show a progress bar.
        collator: makes batches of samples.

    Returns:
        Features (M, D) in float32 and labels (M,), both on the CPU.

    Raises:
        ValueError: no layer, or several, could be the classifier.
        TypeError: the labels cannot be read.
    """
    labels = training_labels(dataset)
    rows = first_of_every_class(labels, max_per_class)
    batches = DataLoader(Subset(dataset, rows.tolist()), batch_size, num_workers=num_workers, collate_fn=collator)
    bar = tqdm(batches, desc="features of the training samples", disable=not progress, leave=False)
    return _features(model, bar, num_classes, training=False), labels[rows]


@torch.no_grad()
def features_in_training(
    model: nn.Module, dataset: Any, num_classes: int, num_workers: int = 0, collator: Collator = default_data_collator
) -> tuple[Tensor, Tensor]:
    """The inputs of the classifier as the first steps of a training see them, with dropout and batch norm, and the labels.

    Of up to 256 samples, the same ones each time. The model and the random numbers that follow stay as they are.

    Args and errors as for `frozen_features`.

    Returns:
        Features (M, D) in float32 and labels (M,), both on the CPU.
    """
    labels = training_labels(dataset)
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:_SAMPLES_IN_TRAINING]
    whole = len(rows) // _BATCH_IN_TRAINING * _BATCH_IN_TRAINING
    rows = rows[: whole or len(rows)]  # batch norm takes no batch of one
    batches = DataLoader(
        Subset(dataset, rows.tolist()), _BATCH_IN_TRAINING, num_workers=num_workers, collate_fn=collator
    )
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    device = next(model.parameters()).device
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            features = _features(model, batches, num_classes, training=True)
    finally:
        for name, buffer in model.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
    return features, labels[rows]


def _features(model: nn.Module, batches: Iterable[Any], num_classes: int, training: bool) -> Tensor:
    inputs: list[Tensor] = []
    features: list[Tensor] = []
    was_training, first = model.training, next(model.parameters())
    hook = classifier_of(model, num_classes).register_forward_pre_hook(lambda _, x: inputs.append(x[0].float().cpu()))
    try:
        model.train(training)
        for batch in batches:
            given = {name: x for name, x in batch.items() if name not in LABEL_NAMES}
            model(**{name: x.to(first.device, _type_for(x, first)) for name, x in given.items()})
            features.append(_of_samples(inputs.pop(), batch.get("attention_mask")))
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(features)


def _of_samples(inputs: Tensor, mask: Tensor | None) -> Tensor:
    """Those of each text's last token (n, D), where the classifier of a decoder is applied to all of them (n, T, D)."""
    if inputs.dim() < 3:
        return inputs
    places = torch.arange(inputs.shape[1])
    last = places.expand(len(inputs), -1) if mask is None else mask.cpu() * places  # (n, T)
    return inputs[torch.arange(len(inputs)), last.argmax(1)]


def _type_for(values: Tensor, weights: Tensor) -> torch.dtype:
    """Tokens stay whole numbers, also below weights in half precision."""
    return weights.dtype if values.is_floating_point() else values.dtype
