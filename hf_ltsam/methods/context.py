"""What a method may know about the step it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.soft_labels import of_samples
from hf_ltsam.landscape.vector import WeightVector


@dataclass(frozen=True)
class StepContext:
    """One optimizer step, seen from a method.

    Args:
        labels: class indices (n,) of the mini-batch, in the order of the landscape's samples, on the host; or soft ones
            (n, C), of which the values below are means over the classes of a sample.
        statistics: of the training set.
        progress: completed steps / total steps, in [0, 1).
        like: any tensor on the host, of the floating-point type in which weightings are computed. There they can be read
            without waiting for an accelerator, so that rows of weight zero need not be computed.
        memory: state that lives as long as the training; the host saves it with every checkpoint. Numbers, tuples of
            numbers, tensors and lists of tensors under string keys, each named after its method: "msam.m".
        step: completed optimizer steps. Micro-batches of one step, and all processes, share it.
        seed: of the training, for `generator`.
        device: of the weights, for `generator`.
        places: of the trained parameters among all of the model, for `remember` and `recall`.
    """

    labels: Tensor
    statistics: ClassStatistics
    progress: float
    like: Tensor
    memory: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    seed: int = 0
    device: torch.device | str = "cpu"
    places: tuple[int, ...] = ()

    @property
    def prior(self) -> Tensor:
        """pi_{y_i} (n,)."""
        return self._of_samples("prior")

    def of_samples(self, values: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of the prior pi (C,), for every sample (n,)."""
        return of_samples(values(self.statistics.tensor("prior", self.like)), self.labels)

    @property
    def head(self) -> Tensor:
        """The 0/1 weighting h (n,) of samples from head classes; h + t = 1."""
        return self._of_samples("head")

    @property
    def tail(self) -> Tensor:
        """The 0/1 weighting t (n,) of samples from tail classes."""
        return self._of_samples("tail")

    def generator(self) -> torch.Generator:
        """Random numbers that depend on (seed, step) alone, on the device of the weights.

        A resumed run draws the same as an uninterrupted one, and so do all processes and all micro-batches of a step,
        so that noise which is added to the gradient does not shrink when gradients are averaged.
        """
        generator = torch.Generator(device=self.device)
        return generator.manual_seed(random_key(self.seed, self.step))

    def remember(self, key: str, vector: WeightVector) -> None:
        """Keep a copy of a vector: what a method returns becomes `p.grad`, which others write into."""
        self.memory[key] = list(torch._foreach_mul(vector.tensors, vector.scale))
        self.memory[_places_of(key)] = self.places

    def recall(self, key: str, like: WeightVector) -> WeightVector | None:
        """The vector kept under `key`; None where there is none, or where parameters were frozen or thawed since."""
        kept = self.memory.get(key)
        others = self.memory.get(_places_of(key), self.places) != self.places
        if kept is None or others or [t.shape for t in kept] != [t.shape for t in like.tensors]:
            return None
        return WeightVector(kept)

    @property
    def num_classes(self) -> int | None:
        """C; None where the loss knows no classes."""
        return self.statistics.num_classes

    def _of_samples(self, name: str) -> Tensor:
        return of_samples(self.statistics.tensor(name, self.like), self.labels)


def _places_of(key: str) -> str:
    return f"{key}.places"


class ClasslessContext(StepContext):
    """A step whose loss is the model's own: it has no classes, and a method that asks for them is refused."""

    num_classes = None

    def __getattribute__(self, name: str) -> Any:
        if name in ("labels", "statistics"):
            raise ValueError(
                f"The method asks for the {name} of the samples, and the model's own loss knows no classes. Take one of "
                "those that ask for none, such as sam, or a loss of each sample, such as loss='cross_entropy'."
            )
        return super().__getattribute__(name)
