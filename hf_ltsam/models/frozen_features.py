"""What a classifier is given: the features of many images, computed once by a frozen model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import default_data_collator

from hf_ltsam.data.labels import training_labels
from hf_ltsam.hyperparameters import COUNT, require
from hf_ltsam.models.classifier import classifier_of


def first_of_every_class(labels: Tensor, max_per_class: int | None) -> Tensor:
    """Indices (M,), ascending, of the first `max_per_class` samples of every class; of all where it is None."""
    if max_per_class is None:
        return torch.arange(len(labels))
    require(COUNT, "first_of_every_class", max_per_class=max_per_class)
    kept = [(labels == c).nonzero().flatten()[:max_per_class] for c in labels.unique()]
    return torch.cat(kept).sort().values


@torch.no_grad()
def frozen_features(
    model: nn.Module,
    dataset: Any,
    num_classes: int,
    max_per_class: int | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """What reaches the classifier, in evaluation mode, and the labels.

    Args:
        model: called with `pixel_values`; its classifier is its one linear or cosine layer with C outputs.
        dataset: samples `{"pixel_values": (3, H, W), "labels": int}`, not augmented; its labels can be read without
            its images.
        num_classes: C.
        max_per_class: use the first so many samples of every class, in the order of the data set; None: all.
        batch_size: images that go through the model at once.
        num_workers: processes that prepare images.
        progress: whether to show a bar.

    Returns:
        Features (M, D) in float32 and labels (M,), both on the CPU.

    Raises:
        ValueError: no layer, or several, could be the classifier.
    """
    labels = training_labels(dataset)
    rows = first_of_every_class(labels, max_per_class)
    batches = DataLoader(
        Subset(dataset, rows.tolist()), batch_size, num_workers=num_workers, collate_fn=default_data_collator
    )
    seen: list[Tensor] = []
    was_training, first = model.training, next(model.parameters())
    hook = classifier_of(model, num_classes).register_forward_pre_hook(lambda _, x: seen.append(x[0].float().cpu()))
    try:
        model.eval()
        for batch in tqdm(batches, desc="features of the training images", disable=not progress, leave=False):
            model(pixel_values=batch["pixel_values"].to(first.device, first.dtype))
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(seen), labels[rows]
