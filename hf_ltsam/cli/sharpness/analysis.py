"""The quantities of `ltsam sharpness`, each computed once and kept."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_ltsam.cli.train.saved_run import SavedRun
from hf_ltsam.curvature import (
    ChosenImages,
    Chunks,
    Direction,
    Hessian,
    MeanLoss,
    Subset,
    class_means,
    filter_normalised,
    fixed_for_curvature,
    hutchinson,
    loss_surface,
    make_subset,
    sample_losses_of,
    sharpness_curve,
    spectral_density,
    suggest_rho,
    towards,
)
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import Loss
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.identity import fingerprint
from hf_ltsam.runs.sharpness.parts import Parts
from hf_ltsam.runs.sharpness.records import (
    extremes_record,
    sharpness_record,
    spectrum_record,
    subset_record,
    surface_record,
)

OTHER_VECTORS = 1_000_000  # seeds of the trace's vectors follow, so that they are independent of Lanczos' own


@dataclass
class Analysis:
    """One model and its images, with what was asked for.

    Args:
        model: on its device.
        images: the training images without augmentation.
        chosen: those that stand for each class.
        subsets: the classes and groups asked for.
        options: of the command line.
        parts: where results are kept.
        progress: whether to show bars.
    """

    saved: SavedRun
    model: nn.Module
    loss: Loss
    images: Any
    chosen: ChosenImages
    subsets: Sequence[Subset]
    options: argparse.Namespace
    parts: Parts
    progress: bool = True

    def spectra(self) -> None:
        """Eigenvalues, trace and density of every subset."""
        o = self.options
        settings = {
            "lanczos_steps": o.lanczos_steps,
            "probes": o.probes,
            "trace_probes": o.trace_probes,
            "seed": o.seed,
        }
        check_memory(self.model, o.lanczos_steps)
        todo = [s for s in self.subsets if not self.parts.is_done(f"spectra/{s.name}", settings)]
        products = o.lanczos_steps * o.probes + o.trace_probes
        with self._bar("Hessian-vector products", products * sum(map(len, todo))) as bar:
            for subset in todo:
                bar.set_postfix_str(subset.name)
                self.parts.make(f"spectra/{subset.name}", settings, partial(self._spectrum, subset, bar))

    def _spectrum(self, subset: Subset, bar: Any) -> dict[str, Any]:
        o, mean_loss = self.options, self._mean_loss(self.model, subset)
        hessian = Hessian(mean_loss)

        def advance() -> None:
            bar.update(len(subset))

        density = spectral_density(hessian, o.lanczos_steps, o.probes, o.seed, advance)
        traces = hutchinson(hessian, o.trace_probes, o.seed + OTHER_VECTORS, advance)
        gradient_norm = float(mean_loss.gradient().double().norm())
        return {**subset_record(subset), **spectrum_record(density, traces, mean_loss.value(), gradient_norm)}

    def evolution(self, checkpoints: Sequence[RunFolder]) -> None:
        """Extreme eigenvalues of every subset at every checkpoint."""
        check_memory(self.model, self.options.lanczos_steps)
        total = self.options.lanczos_steps * self.options.probes * sum(map(len, self.subsets)) * len(checkpoints)
        with self._bar("checkpoints", total) as bar:
            for checkpoint in checkpoints:
                model = self.saved.model(checkpoint.path).to(self._device)
                with fixed_for_curvature(model):
                    self._checkpoint(checkpoint, model, bar)

    def _checkpoint(self, checkpoint: RunFolder, model: nn.Module, bar: Any) -> None:
        o, step, folder_name = self.options, checkpoint.step, checkpoint.path.name
        settings = {
            "lanczos_steps": o.lanczos_steps,
            "probes": o.probes,
            "seed": o.seed,
            "weights_sha256": fingerprint(model),
        }
        for subset in self.subsets:
            bar.set_postfix_str(f"{folder_name}, {subset.name}")
            name = f"evolution/{subset.name} @ {step}"
            if self.parts.is_done(name, settings):
                bar.update(o.lanczos_steps * o.probes * len(subset))
                continue
            where = {"subset": subset.name, "checkpoint": folder_name, "step": step, "epoch": checkpoint.epoch}
            self.parts.make(name, settings, partial(self._point, where, model, subset, bar))

    def _point(self, where: dict[str, Any], model: nn.Module, subset: Subset, bar: Any) -> dict[str, Any]:
        o, mean_loss = self.options, self._mean_loss(model, subset)
        density = spectral_density(
            Hessian(mean_loss), o.lanczos_steps, o.probes, o.seed, lambda: bar.update(len(subset))
        )
        return {**where, **subset_record(subset), "loss": mean_loss.value(), **extremes_record(density)}

    def sharpness(self) -> None:
        """L(w + eps) - L(w) of every class, over mini-batches of all classes as the training draws them."""
        o, batch_size = self.options, self.saved.run.config.per_device_train_batch_size
        everything = make_subset("all", range(self.saved.statistics.num_classes), self.chosen)
        settings = {"rhos": sorted(o.rhos), "mini_batch": batch_size, "seed": o.seed}
        if self.parts.is_done("sharpness/all", settings):
            return
        order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(o.seed))
        shuffled = Subset("all", everything.classes, everything.rows[order], everything.weights[order])
        with self._bar(f"{len(o.rhos)} radii", len(shuffled)) as bar:
            curve = sharpness_curve(
                TrainableWeights(self.model),
                Chunks(self.images, shuffled.rows, batch_size, self._device),
                self._sample_losses(self.model),
                self.saved.statistics.num_classes,
                o.rhos,
                shuffled.weights,
                bar.update,
            )
        chance = self._loss_without_information(shuffled)
        record = {**subset_record(shuffled), **sharpness_record(curve, suggest_rho(curve, chance), chance)}
        self.parts.make("sharpness/all", settings, lambda: record)

    def surface(self) -> None:
        """The mean loss of every subset around the weights."""
        o = self.options
        other = None if o.towards is None else self.saved.model(o.towards)
        settings = {
            "subsets": [s.name for s in self.subsets],
            "coordinates": self._coordinates(),
            "seed": o.seed,
            "towards": None if other is None else {"folder": str(o.towards), "weights_sha256": fingerprint(other)},
        }
        name = f"surface/{o.surface}" + ("" if other is None else " towards")
        if not self.parts.is_done(name, settings):
            self.parts.make(name, settings, lambda: self._surface(other))

    def _surface(self, other: nn.Module | None) -> dict[str, Any]:
        coordinates, weights = self._coordinates(), TrainableWeights(self.model)
        directions, words = self._directions(weights, other)
        classes = sorted({c for subset in self.subsets for c in subset.classes})
        rows = make_subset("", classes, self.chosen).rows
        C, points = self.saved.statistics.num_classes, 1
        for values in coordinates:
            points *= len(values)
        chunks = Chunks(self.images, rows, self.options.batch_size, self._device)
        sample_losses = self._sample_losses(self.model)
        with self._bar("loss surface", points * len(rows)) as bar:

            def measure() -> Tensor:
                bar.update(len(rows))
                return class_means(chunks, sample_losses, C)

            losses = loss_surface(weights, measure, directions, coordinates)
        return surface_record(coordinates, words, losses, self.subsets, self.saved.statistics.counts)

    def _directions(self, weights: TrainableWeights, other: nn.Module | None) -> tuple[list[Direction], list[str]]:
        count, seed = int(self.options.surface[0]), self.options.seed
        directions = [filter_normalised(weights, seed + k) for k in range(count)]
        words = [f"random, filter-normalised (seed {seed + k})" for k in range(count)]
        if other is not None:
            directions[0], words[0] = (
                towards(weights, other.to(self._device).state_dict()),
                f"to {self.options.towards}",
            )
        return directions, words

    def _coordinates(self) -> list[list[float]]:
        o = self.options
        points = o.points or {"1d": 41, "2d": 21}[o.surface]
        spans = [o.span or (-1.0, 1.0) for _ in range(int(o.surface[0]))]
        if o.towards is not None and o.span is None:
            spans[0] = (-0.5, 1.5)
        return [torch.linspace(low, high, points, dtype=torch.float64).tolist() for low, high in spans]

    def _mean_loss(self, model: nn.Module, subset: Subset) -> MeanLoss:
        chunks = Chunks(self.images, subset.rows, self.options.batch_size, self._device)
        return MeanLoss(TrainableWeights(model), chunks, self._sample_losses(model), subset.weights)

    def _sample_losses(self, model: nn.Module) -> Any:
        return sample_losses_of(model, self.loss, self.saved.statistics)

    def _loss_without_information(self, subset: Subset) -> float:
        """Mean loss where all logits are 0."""
        labels = self.saved.splits.train_labels[subset.rows]
        logits = torch.zeros(len(subset), self.saved.statistics.num_classes, dtype=torch.float64)
        return float(self.loss(logits, labels, self.saved.statistics) @ subset.weights)

    @contextmanager
    def _bar(self, what: str, total: int) -> Iterator[Any]:
        hidden = total == 0 or not self.progress
        with tqdm(total=total, desc=what, unit=" images", unit_scale=True, disable=hidden) as bar:
            yield bar

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def check_memory(model: nn.Module, steps: int) -> None:
    """Refuse a Lanczos basis that does not fit.

    Raises:
        ValueError: naming its size and what there is.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    needed = steps * sum(p.numel() * p.itemsize for p in trainable)
    device = trainable[0].device
    on_gpu = device.type == "cuda"
    there = torch.cuda.mem_get_info(device)[0] if on_gpu else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"--lanczos_steps {steps} keeps {steps} vectors of all trainable weights, {needed / 2**30:.1f} GiB; there are "
            f"{there / 2**30:.1f} GiB. Take fewer steps: the extremes need some 30."
        )
