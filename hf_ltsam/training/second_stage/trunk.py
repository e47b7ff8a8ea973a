"""Everything but the classifier, frozen: images in, what the classifier is given out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.losses.features import captured_inputs
from hf_ltsam.models.classifier import classifier_name
from hf_ltsam.training.training_set import without_adapter

_WAY_OUT = "a model whose last layer is linear or cosine: a second stage trains that layer"


class Trunk:
    """A model in evaluation mode, so that dropout does nothing, and batch norm keeps its statistics unless it is shifted.

    Args:
        model: any classifier with one linear or cosine last layer.
        num_classes: C.
        shifts_batch_norm: whether batch norm goes on counting in training.

    Raises:
        ValueError: that layer cannot be told from the others, or there is no batch norm to shift.
    """

    def __init__(self, model: nn.Module, num_classes: int, shifts_batch_norm: bool = False) -> None:
        self.model = model.eval()
        self.name = classifier_name(model, num_classes, _WAY_OUT)
        norms = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
        if shifts_batch_norm and not norms:
            raise ValueError(
                f"{type(model).__name__} has no batch norm that could be shifted: set shift_batch_norm=False, or take the "
                "second stage crt."
            )
        self.shifted = norms if shifts_batch_norm else {}

    @property
    def classifier(self) -> nn.Module:
        return self.model.get_submodule(self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what the model takes, also of one under an adapter."""
        return tuple(inspect.signature(without_adapter(self.model).forward).parameters)

    @property
    def running(self) -> dict[str, Tensor]:
        """What shifted batch norm counts, by name."""
        return {f"{name}.{of}": value for name, norm in self.shifted.items() for of, value in norm.named_buffers()}

    @torch.no_grad()
    def features(self, inputs: Mapping[str, Any], in_training: bool = False) -> Tensor:
        """What the classifier is given (n, D), of the keyword arguments of the model.

        Args:
            in_training: on a batch that is trained on, which shifted batch norm counts.

        Raises:
            ValueError: it is not called exactly once, with one vector for each sample.
        """
        with captured_inputs(self.classifier) as seen, self._counting(in_training):
            self.model(**inputs)
        if len(seen) != 1 or seen[0].ndim != 2:
            shapes = ", ".join(str(tuple(x.shape)) for x in seen) or "nothing"
            raise ValueError(
                f"The classifier {self.name!r} of {type(self.model).__name__} was given {shapes}; a second stage needs one "
                "vector (n, D) for each sample, once."
            )
        return seen[0]

    @contextmanager
    def _counting(self, in_training: bool) -> Iterator[None]:
        """Shifted batch norm as in training; over processes all go on with the counts of the first, as batch norm does."""
        for norm in self.shifted.values():
            norm.train(in_training)
        try:
            yield
        finally:
            for norm in self.shifted.values():
                norm.eval()
        if in_training and torch.distributed.is_available() and torch.distributed.is_initialized():
            for value in self.running.values():
                torch.distributed.broadcast(value, 0)

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
