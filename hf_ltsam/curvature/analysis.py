"""The curvature of a trained model: how it is measured, on which model and images, and each quantity as a function.

settings = CurvatureSettings(lanczos_steps=30, max_samples=300)
subject = Subject(model, make_loss("cross_entropy"), images, labels, statistics)
chosen = choose_images(labels, statistics.num_classes, settings.max_samples, settings.seed)
with fixed_for_curvature(model):
    density, traces, loss, gradient_norm = spectrum_of(subject, make_subset("class 9", [9], chosen), settings)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import default_data_collator

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.curvature.density import SpectralDensity, spectral_density
from hf_ltsam.curvature.hessian import Hessian
from hf_ltsam.curvature.objective import Chunks, MeanLoss, SampleLosses, class_means, sample_losses_of
from hf_ltsam.curvature.sharpness import DEFAULT_RHOS, RhoRange, SharpnessCurve, sharpness_curve, suggest_rho
from hf_ltsam.curvature.subsets import ChosenImages, Subset, make_subset
from hf_ltsam.curvature.surface import Direction, filter_normalised, loss_surface, towards
from hf_ltsam.curvature.trace import Traces, hutchinson
from hf_ltsam.data.sample_labels import Collator
from hf_ltsam.hyperparameters import COUNT, POSITIVE, require
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import Loss

OTHER_VECTORS = 1_000_000  # seeds of the trace's vectors follow, so that they are independent of Lanczos' own
POINTS = {1: 41, 2: 21}  # of a surface in each direction, by the number of directions


@dataclass(frozen=True)
class CurvatureSettings:
    """How curvature is measured.

    Args:
        lanczos_steps: m of each Lanczos run.
        probes: Lanczos runs that are averaged for a density.
        trace_probes: random vectors for the trace.
        rhos: radii of the sharpness curve, positive.
        span: from where to where a surface reaches in each direction; None: -1 to 1, and -0.5 to 1.5 towards another model.
        points: of a surface in each direction; None: 41 on a line, 21 on a plane.
        max_samples: images of each class at most; None: all.
        batch_size: images that pass through the model together; it changes memory and no number.
        seed: of chosen images, start vectors and directions.
    """

    lanczos_steps: int = 100
    probes: int = 1
    trace_probes: int = 10
    rhos: tuple[float, ...] = DEFAULT_RHOS
    span: tuple[float, float] | None = None
    points: int | None = None
    max_samples: int | None = None
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lanczos_steps", "probes", "trace_probes", "batch_size"):
            require(COUNT, self, **{name: getattr(self, name)})
        for name in ("max_samples", "points"):
            if getattr(self, name) is not None:
                require(COUNT, self, **{name: getattr(self, name)})
        if self.points == 1:
            raise ValueError("CurvatureSettings(points=...) must be at least 2, got 1: one point is no surface.")
        for rho in self.rhos:
            require(POSITIVE, self, rhos=rho)
        if self.span is not None and not self.span[0] < self.span[1]:
            raise ValueError(f"CurvatureSettings(span=...) must rise, got {self.span[0]:g} to {self.span[1]:g}.")

    def coordinates(self, directions: int, towards_another: bool = False) -> list[list[float]]:
        """The values of t_k along each direction of a surface."""
        points = self.points or POINTS[directions]
        spans = [self.span or (-1.0, 1.0)] * directions
        if towards_another and self.span is None:
            spans[0] = (-0.5, 1.5)
        return [torch.linspace(low, high, points, dtype=torch.float64).tolist() for low, high in spans]


@dataclass(frozen=True)
class Subject:
    """The model whose curvature is measured, with the loss and the images that it is measured on.

    Args:
        model: on its device; the functions below want it inside `fixed_for_curvature`.
        images: the training images without random augmentation, `{"pixel_values": ..., "labels": int}`; or tokens of texts.
        labels: theirs (N,).
        statistics: of the training set.
        collator: makes batches of them.
    """

    model: nn.Module
    loss: Loss
    images: Any
    labels: Tensor
    statistics: ClassStatistics
    collator: Collator = default_data_collator

    @property
    def sample_losses(self) -> SampleLosses:
        return sample_losses_of(self.model, self.loss, self.statistics)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The weights whose curvature it is."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def chunks(self, rows: Tensor, size: int) -> Chunks:
        """Images in these rows, `size` of them at a time."""
        return Chunks(self.images, rows, size, self.device, self.collator)

    def mean_loss(self, subset: Subset, size: int) -> MeanLoss:
        """The mean loss of a subset as a function of the trainable weights."""
        return MeanLoss(
            TrainableWeights(self.model), self.chunks(subset.rows, size), self.sample_losses, subset.weights
        )

    def loss_without_information(self, subset: Subset) -> float:
        """The mean loss of a subset where all logits are 0."""
        logits = torch.zeros(len(subset), self.statistics.num_classes, dtype=torch.float64)
        return float(self.loss(logits, self.labels[subset.rows], self.statistics) @ subset.weights)


class Spectrum(NamedTuple):
    """The Hessian of a subset's mean loss, with the loss and its gradient's norm: 0 at a critical point."""

    density: SpectralDensity
    traces: Traces
    loss: float
    gradient_norm: float


class Sharpness(NamedTuple):
    """L(w + eps) - L(w) over a range of radii, and the radii that it suggests."""

    curve: SharpnessCurve
    suggested: RhoRange
    loss_without_information: float
    subset: Subset


class Surface(NamedTuple):
    """The mean loss of every class (..., C) around the weights, along directions that are described in words."""

    coordinates: list[list[float]]
    directions: list[str]
    class_losses: Tensor


def spectrum_of(
    subject: Subject, subset: Subset, settings: CurvatureSettings, on_product: Callable[[], None] = lambda: None
) -> Spectrum:
    """Density, traces, loss and gradient norm of a subset.

    Args:
        on_product: called after every product with the Hessian.

    Cost: lanczos_steps * probes + trace_probes products.
    """
    mean_loss = subject.mean_loss(subset, settings.batch_size)
    hessian = Hessian(mean_loss)
    density = spectral_density(hessian, settings.lanczos_steps, settings.probes, settings.seed, on_product)
    traces = hutchinson(hessian, settings.trace_probes, settings.seed + OTHER_VECTORS, on_product)
    return Spectrum(density, traces, mean_loss.value(), float(mean_loss.gradient().double().norm()))


def density_of(
    subject: Subject, subset: Subset, settings: CurvatureSettings, on_product: Callable[[], None] = lambda: None
) -> tuple[SpectralDensity, float]:
    """The density alone, for the extreme eigenvalues, and the loss of a subset.

    Cost: lanczos_steps * probes products.
    """
    mean_loss = subject.mean_loss(subset, settings.batch_size)
    density = spectral_density(Hessian(mean_loss), settings.lanczos_steps, settings.probes, settings.seed, on_product)
    return density, mean_loss.value()


def sharpness_of(
    subject: Subject,
    chosen: ChosenImages,
    mini_batch: int,
    settings: CurvatureSettings,
    on_batch: Callable[[int], None] = lambda size: None,
) -> Sharpness:
    """L(w + eps) - L(w) of every class, over mini-batches of all classes as the training draws them.

    Args:
        mini_batch: images of a mini-batch in the training: SAM's perturbation is that of a mini-batch.
        on_batch: called with the size of every mini-batch that is finished.
    """
    everything = make_subset("all", range(subject.statistics.num_classes), chosen)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(settings.seed))
    shuffled = Subset("all", everything.classes, everything.rows[order], everything.weights[order])
    curve = sharpness_curve(
        TrainableWeights(subject.model),
        subject.chunks(shuffled.rows, mini_batch),
        subject.sample_losses,
        subject.statistics.num_classes,
        settings.rhos,
        shuffled.weights,
        on_batch,
    )
    chance = subject.loss_without_information(shuffled)
    return Sharpness(curve, suggest_rho(curve, chance), chance, shuffled)


def surface_of(
    subject: Subject,
    classes: Sequence[int],
    chosen: ChosenImages,
    directions: int,
    settings: CurvatureSettings,
    other: tuple[str, Mapping[str, Tensor]] | None = None,
    on_point: Callable[[int], None] = lambda size: None,
) -> Surface:
    """The mean loss of some classes around the weights, along one or two directions.

    Args:
        directions: 1 or 2, random and filter-normalised.
        other: name and state dict of a model that the first direction leads to.
        on_point: called with the number of images after every point of the grid.
    """
    rows = make_subset("", classes, chosen).rows
    chunks, sample_losses = subject.chunks(rows, settings.batch_size), subject.sample_losses
    weights, coordinates = TrainableWeights(subject.model), settings.coordinates(directions, other is not None)
    along, described = _directions(weights, directions, settings.seed, other)

    def measure() -> Tensor:
        on_point(len(rows))
        return class_means(chunks, sample_losses, subject.statistics.num_classes)

    return Surface(coordinates, described, loss_surface(weights, measure, along, coordinates))


def surface_images(classes: Sequence[int], chosen: ChosenImages, coordinates: Sequence[Sequence[float]]) -> int:
    """How many images pass through the model for a surface: those of the classes at every point of the grid."""
    return prod(map(len, coordinates)) * len(make_subset("", classes, chosen))


def check_memory(model: nn.Module, lanczos_steps: int) -> None:
    """Refuse a Lanczos basis that does not fit.

    Raises:
        ValueError: naming its size and what there is.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    needed = lanczos_steps * sum(p.numel() * p.itemsize for p in trainable)
    device = trainable[0].device
    on_gpu = device.type == "cuda"
    there = torch.cuda.mem_get_info(device)[0] if on_gpu else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"{lanczos_steps} Lanczos steps keep as many vectors of all trainable weights, {needed / 2**30:.1f} GiB; there "
            f"are {there / 2**30:.1f} GiB. Take fewer steps: the extremes need some 30."
        )


def _directions(
    weights: TrainableWeights, count: int, seed: int, other: tuple[str, Mapping[str, Tensor]] | None
) -> tuple[list[Direction], list[str]]:
    """Directions, and each in words."""
    along = [filter_normalised(weights, seed + k) for k in range(count)]
    described = [f"random, filter-normalised (seed {seed + k})" for k in range(count)]
    if other is not None:
        name, state = other
        along[0], described[0] = towards(weights, state), f"to {name}"
    return along, described
