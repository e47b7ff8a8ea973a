"""Everything but the classifier, frozen: images in, what the classifier is given out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.losses.features import captured_inputs
from hf_ltsam.models.classifier import classifier_name
from hf_ltsam.training.training_set import without_adapter

_WAY_OUT = "a model whose last layer is linear or cosine: a second stage trains that layer"


class Trunk:
    """A model in evaluation mode, so that batch norm keeps its statistics and dropout does nothing.

    Args:
        model: any classifier with one linear or cosine last layer.
        num_classes: C.

    Raises:
        ValueError: that layer cannot be told from the others.
    """

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        self.model = model.eval()
        self.name = classifier_name(model, num_classes, _WAY_OUT)

    @property
    def classifier(self) -> nn.Module:
        return self.model.get_submodule(self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what the model takes, also of one under an adapter."""
        return tuple(inspect.signature(without_adapter(self.model).forward).parameters)

    @torch.no_grad()
    def features(self, inputs: Mapping[str, Any]) -> Tensor:
        """What the classifier is given (n, D), of the keyword arguments of the model.

        Raises:
            ValueError: it is not called exactly once, with one vector for each sample.
        """
        with captured_inputs(self.classifier) as seen:
            self.model(**inputs)
        if len(seen) != 1 or seen[0].ndim != 2:
            shapes = ", ".join(str(tuple(x.shape)) for x in seen) or "nothing"
            raise ValueError(
                f"The classifier {self.name!r} of {type(self.model).__name__} was given {shapes}; a second stage needs one "
                "vector (n, D) for each sample, once."
            )
        return seen[0]

    @torch.no_grad()
    def set_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Write another state into the classifier; nothing else is touched."""
        self.classifier.load_state_dict(dict(state))


class CachedFeatures(KeyedDataset):
    """Features that were computed once: samples `{"features": (D,), "labels": int}`.

    Args:
        features: of images without augmentation (N, D), as `hf_ltsam.models.frozen_features` gives them.
        labels: class indices (N,).
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        super().__init__(seed=0)  # nothing is random here
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        rows = torch.as_tensor(indices)
        return [{"features": x, "labels": y} for x, y in zip(self.features[rows], self.labels[rows].tolist())]
