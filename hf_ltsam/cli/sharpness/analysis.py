"""The analysis of a saved run: which quantities, each computed once and kept, and one file of all of them.

analyse(Request(Path("runs/mine"), groups=("many", "few"), settings=CurvatureSettings(max_samples=300)))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from hf_ltsam import LOSSES
from hf_ltsam.cli.train.saved_run import SavedRun, open_run
from hf_ltsam.curvature import (
    ChosenImages,
    CurvatureSettings,
    Subject,
    Subset,
    check_memory,
    choose_images,
    class_index,
    density_of,
    fixed_for_curvature,
    group_classes,
    groups_of,
    make_subset,
    sharpness_of,
    spectrum_of,
    surface_images,
    surface_of,
)
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.hyperparameters import NON_NEGATIVE, require
from hf_ltsam.losses import CrossEntropy, Loss
from hf_ltsam.runs.folder import SHARPNESS, SHARPNESS_RESULTS, RunFolder
from hf_ltsam.runs.identity import describe, fingerprint
from hf_ltsam.runs.record import installed_versions, samples_of
from hf_ltsam.runs.sharpness.parts import Parts
from hf_ltsam.runs.sharpness.records import (
    extremes_record,
    samples_record,
    sharpness_record,
    spectrum_record,
    subset_record,
    surface_record,
)
from hf_ltsam.training.refusals.problem import check_head


@dataclass(frozen=True)
class Request:
    """The quantities of a saved run that are asked for.

    Args:
        run: its folder, or that of one of its checkpoints.
        loss: whose curvature.
        classes: by index or name. Without classes and groups: the largest and the smallest class.
        groups: of all, many, medium, few, head, tail.
        spectra: eigenvalues, trace and density of every class and group.
        checkpoints: their extreme eigenvalues at every checkpoint of the run.
        epochs: of the checkpoints those nearest to these, in place of all.
        suggest_rho: L(w + eps) - L(w) for a range of radii, and which to try.
        surface: the loss around the weights: "1d", "2d", or None.
        towards: the folder of another run or checkpoint, to which the first direction of the surface leads.
        dataset: where the data are now; None: where they were in the training.
        output: the folder of the results; None: `sharpness` in that of the run.
        settings: how each of them is measured.
        use_cpu: leave a GPU alone.
    """

    run: Path
    loss: Loss = field(default_factory=CrossEntropy)
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    spectra: bool = True
    checkpoints: bool = False
    epochs: tuple[float, ...] = ()
    suggest_rho: bool = False
    surface: str | None = None
    towards: Path | None = None
    dataset: str | None = None
    output: Path | None = None
    settings: CurvatureSettings = field(default_factory=CurvatureSettings)
    use_cpu: bool = False

    def __post_init__(self) -> None:
        if self.towards is not None and self.surface is None:
            raise ValueError("--towards is a direction of a surface: add --surface 1d or 2d.")
        if self.epochs and not self.checkpoints:
            raise ValueError("--epochs chooses among checkpoints: add --checkpoints.")
        for epoch in self.epochs:
            require(NON_NEGATIVE, self, epochs=epoch)


def analyse(request: Request, command: str = "", progress: bool = True) -> Path:
    """Compute what is asked for and not there yet, and write `sharpness.json`.

    Args:
        command: stated in the file, to repeat the analysis.
        progress: whether to show bars.

    Returns:
        The path of `sharpness.json`.

    Raises:
        ValueError: the folder holds results of something else.
    """
    if request.towards is not None:
        RunFolder(request.towards).require_weights()
    saved = open_run(request.run, request.dataset)
    subsets, chosen = _subsets(request, saved)
    checkpoints = _nearest(saved.checkpoints(), request.epochs) if request.checkpoints else []
    model = saved.model()
    check_head(request.loss, model)
    device = "cuda" if torch.cuda.is_available() and not request.use_cpu else "cpu"
    folder = request.output or request.run / SHARPNESS
    parts = Parts(folder, _identity(request, saved, model), groups_of(saved.statistics))
    data, labels = saved.training_data(model, progress), saved.splits.train_labels
    subject = Subject(model.to(device), request.loss, data.plain_train, labels, saved.statistics, data.collator)
    analysis = _Analysis(request, saved, subject, chosen, subsets, parts, progress)
    with fixed_for_curvature(model):
        if request.spectra:
            analysis.spectra()
        if request.suggest_rho:
            analysis.sharpness()
        if request.surface:
            analysis.surface()
    if request.checkpoints:
        analysis.evolution(checkpoints)
    return parts.assemble(SHARPNESS_RESULTS, _facts(parts, saved, model, chosen, subsets, command))


@dataclass(frozen=True)
class _Analysis:
    """Every quantity of one model, kept in `parts` when it is finished.

    Args:
        subsets: the classes and groups asked for.
        chosen: the images that stand for each class.
    """

    request: Request
    saved: SavedRun
    subject: Subject
    chosen: ChosenImages
    subsets: Sequence[Subset]
    parts: Parts
    progress: bool = True

    @property
    def settings(self) -> CurvatureSettings:
        return self.request.settings

    def spectra(self) -> None:
        """Eigenvalues, trace and density of every subset."""
        stated = self._stated("lanczos_steps", "probes", "trace_probes", "seed")
        check_memory(self.subject.model, self.settings.lanczos_steps)
        todo = [s for s in self.subsets if not self.parts.is_done(f"spectra/{s.name}", stated)]
        products = self.settings.lanczos_steps * self.settings.probes + self.settings.trace_probes
        with self._bar("Hessian-vector products", products * sum(map(len, todo))) as bar:
            for subset in todo:
                bar.set_postfix_str(subset.name)
                self.parts.make(f"spectra/{subset.name}", stated, partial(self._spectrum, subset, bar))

    def _spectrum(self, subset: Subset, bar: Any) -> dict[str, Any]:
        measured = spectrum_of(self.subject, subset, self.settings, lambda: bar.update(len(subset)))
        return {**subset_record(subset), **spectrum_record(*measured)}

    def evolution(self, checkpoints: Sequence[RunFolder]) -> None:
        """Extreme eigenvalues of every subset at every checkpoint."""
        check_memory(self.subject.model, self.settings.lanczos_steps)
        products = self.settings.lanczos_steps * self.settings.probes
        with self._bar("checkpoints", products * sum(map(len, self.subsets)) * len(checkpoints)) as bar:
            for checkpoint in checkpoints:
                model = self.saved.model(checkpoint.path).to(self.subject.device)
                with fixed_for_curvature(model):
                    self._checkpoint(checkpoint, model, bar)

    def _checkpoint(self, checkpoint: RunFolder, model: nn.Module, bar: Any) -> None:
        step, folder_name, subject = checkpoint.step, checkpoint.path.name, replace(self.subject, model=model)
        stated = {**self._stated("lanczos_steps", "probes", "seed"), "weights_sha256": fingerprint(model)}
        for subset in self.subsets:
            bar.set_postfix_str(f"{folder_name}, {subset.name}")
            name = f"evolution/{subset.name} @ {step}"
            if self.parts.is_done(name, stated):
                bar.update(self.settings.lanczos_steps * self.settings.probes * len(subset))
                continue
            place = {"subset": subset.name, "checkpoint": folder_name, "step": step, "epoch": checkpoint.epoch}
            self.parts.make(name, stated, partial(self._point, place, subject, subset, bar))

    def _point(self, place: dict[str, Any], subject: Subject, subset: Subset, bar: Any) -> dict[str, Any]:
        density, loss = density_of(subject, subset, self.settings, lambda: bar.update(len(subset)))
        norms = {
            "gradient_norm": float(subject.mean_loss(subset, self.settings.batch_size).gradient().double().norm()),
            "weight_norm": math.sqrt(sum(float(p.detach().double().square().sum()) for p in subject.trainable)),
            "trainable_parameters": sum(p.numel() for p in subject.trainable),
            "training_samples": sum(self.saved.statistics.counts[c] for c in subset.classes),
        }
        return {**place, **subset_record(subset), "loss": loss, **norms, **extremes_record(density)}

    def sharpness(self) -> None:
        """L(w + eps) - L(w) of every class, over mini-batches of all classes as the training draws them."""
        mini_batch = self.saved.run.config.per_device_train_batch_size
        rhos = sorted(self.settings.rhos)
        stated = {"rhos": rhos, "mini_batch": mini_batch, "seed": self.settings.seed}
        if self.parts.is_done("sharpness/all", stated):
            return
        with self._bar(f"{len(rhos)} radii", sum(map(len, self.chosen.rows))) as bar:
            measured = sharpness_of(self.subject, self.chosen, mini_batch, self.settings, bar.update)
        record = sharpness_record(measured.curve, measured.suggested, measured.loss_without_information)
        self.parts.make("sharpness/all", stated, lambda: {**subset_record(measured.subset), **record})

    def surface(self) -> None:
        """The mean loss of every subset around the weights."""
        towards = self.request.towards
        other = None if towards is None else self.saved.model(towards)
        stated = {
            "subsets": [s.name for s in self.subsets],
            "coordinates": self._coordinates(),
            "seed": self.settings.seed,
            "towards": None if other is None else {"folder": str(towards), "weights_sha256": fingerprint(other)},
        }
        name = f"surface/{self.request.surface}" + ("" if other is None else " towards")
        if not self.parts.is_done(name, stated):
            self.parts.make(name, stated, lambda: self._surface(other))

    def _surface(self, other: nn.Module | None) -> dict[str, Any]:
        classes = sorted({c for subset in self.subsets for c in subset.classes})
        target = None if other is None else (str(self.request.towards), other.to(self.subject.device).state_dict())
        with self._bar("loss surface", surface_images(classes, self.chosen, self._coordinates())) as bar:
            measured = surface_of(
                self.subject, classes, self.chosen, self._dimensions, self.settings, target, bar.update
            )
        return surface_record(*measured, self.subsets, self.saved.statistics.counts)

    def _coordinates(self) -> list[list[float]]:
        return self.settings.coordinates(self._dimensions, self.request.towards is not None)

    @property
    def _dimensions(self) -> int:
        return {"1d": 1, "2d": 2}[str(self.request.surface)]

    def _stated(self, *names: str) -> dict[str, Any]:
        """The settings that a part follows from."""
        return {name: getattr(self.settings, name) for name in names}

    @contextmanager
    def _bar(self, what: str, total: int) -> Iterator[Any]:
        hidden = total == 0 or not self.progress
        with tqdm(total=total, desc=what, unit=" images", unit_scale=True, disable=hidden) as bar:
            yield bar


def _subsets(request: Request, saved: SavedRun) -> tuple[list[Subset], ChosenImages]:
    """Those that were asked for; otherwise the largest and the smallest class."""
    counts, names = saved.statistics.counts, saved.splits.class_names
    classes = [class_index(word, names) for word in request.classes]
    if not classes and not request.groups:
        classes = [saved.statistics.most_frequent, len(counts) - 1 - counts[::-1].index(min(counts))]
    settings = request.settings
    chosen = choose_images(saved.splits.train_labels, len(counts), settings.max_samples, settings.seed)
    members = {name: group_classes(name, saved.statistics) for name in request.groups}
    members |= {f"class {c}": (c,) for c in classes}
    return [make_subset(name, of_subset, chosen) for name, of_subset in members.items()], chosen


def _nearest(checkpoints: list[RunFolder], epochs: Sequence[float]) -> list[RunFolder]:
    """The checkpoint nearest to each epoch, once; all where no epochs are asked for.

    Raises:
        ValueError: the checkpoints do not know their epochs.
    """
    if not epochs:
        return checkpoints
    dated = [(checkpoint.epoch, checkpoint) for checkpoint in checkpoints]
    known = [(epoch, checkpoint) for epoch, checkpoint in dated if epoch is not None]
    if not known:
        raise ValueError("--epochs: no checkpoint of the run says its epoch (trainer_state.json). Leave --epochs out.")
    chosen = {min(known, key=lambda pair: abs(pair[0] - epoch))[1].path for epoch in epochs}
    return [checkpoint for checkpoint in checkpoints if checkpoint.path in chosen]


def _identity(request: Request, saved: SavedRun, model: nn.Module) -> dict[str, object]:
    """What all parts have in common."""
    return {
        "weights_sha256": fingerprint(model),
        "loss": describe(LOSSES, request.loss),
        "training_labels_sha256": label_fingerprint(saved.splits.train_labels),
        "max_samples": request.settings.max_samples,
        "seed": request.settings.seed,
    }


def _facts(
    parts: Parts, saved: SavedRun, model: nn.Module, chosen: ChosenImages, subsets: Sequence[Subset], command: str
) -> dict[str, object]:
    """What figures and reports say about all parts."""
    return {
        "run": str(saved.root.path),
        "weights": str(saved.folder.path),
        **parts.subject,
        "task": saved.splits.task,
        "model": type(model).__name__,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "class_names": saved.splits.class_names,
        "class_statistics": saved.statistics.to_dict(),
        "samples": samples_record(chosen, subsets),
        "mode": f"evaluation mode, training {samples_of(saved.splits.task)} without random augmentation",
        "command": command,
        "versions": installed_versions(),
    }
