"""Curvature and sharpness of a trained model, class by class.

ltsam sharpness runs/mine --classes 0 9 --max_samples 300
ltsam sharpness runs/mine --groups many few --surface 2d
ltsam sharpness runs/mine --suggest_rho
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from hf_ltsam import LOSSES
from hf_ltsam.cli.sharpness.analysis import Analysis
from hf_ltsam.cli.sharpness.options import loss_of, parse_options
from hf_ltsam.cli.train.saved_run import SavedRun, open_run
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.curvature import (
    ChosenImages,
    Subset,
    choose_images,
    class_index,
    fixed_for_curvature,
    group_classes,
    make_subset,
)
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.runs.files import mapping, read_json
from hf_ltsam.runs.folder import SHARPNESS, SHARPNESS_RESULTS, RunFolder
from hf_ltsam.runs.identity import describe, fingerprint
from hf_ltsam.runs.record import installed_versions
from hf_ltsam.runs.sharpness.figures import save_figures
from hf_ltsam.runs.sharpness.parts import Parts
from hf_ltsam.runs.sharpness.records import samples_record, summary
from hf_ltsam.training.refusals import check_head


def main(argv: Sequence[str] | None = None) -> None:
    """One analysis, from the words of the command line."""
    words = sys.argv[1:] if argv is None else argv
    with user_errors():
        options = parse_options(words)
        try:
            analyze(options, shlex.join(["ltsam", "sharpness", *words]))
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("The same command goes on from what is finished.") from interrupt


def analyze(options: argparse.Namespace, command: str = "") -> Path:
    """Compute what is asked for and not there yet; write `sharpness.json` and the figures, and show them.

    Returns:
        The path of `sharpness.json`.
    """
    path = compute(options, command)
    _show(path, save_figures(path))
    return path


def compute(options: argparse.Namespace, command: str = "", progress: bool = True) -> Path:
    """Compute what is asked for and not there yet, and write `sharpness.json`.

    Args:
        progress: whether to show bars.

    Returns:
        The path of `sharpness.json`.
    """
    if options.towards is not None:
        RunFolder(options.towards).require_weights()
    saved = open_run(options.run, options.dataset)
    subsets, chosen = _subsets(options, saved)
    checkpoints = saved.checkpoints() if options.checkpoints else []
    loss, model = loss_of(options), saved.model()
    check_head(loss, model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = Parts(options.output or options.run / SHARPNESS, _subject(options, saved, model))
    images = saved.training_images(model, progress)
    analysis = Analysis(saved, model.to(device), loss, images, chosen, subsets, options, parts, progress)
    with fixed_for_curvature(model):
        if options.spectrum or not (options.surface or options.suggest_rho or options.checkpoints):
            analysis.spectra()
        if options.suggest_rho:
            analysis.sharpness()
        if options.surface:
            analysis.surface()
    if options.checkpoints:
        analysis.evolution(checkpoints)
    return parts.assemble(SHARPNESS_RESULTS, _facts(parts, saved, model, chosen, subsets, command))


def _subsets(options: argparse.Namespace, saved: SavedRun) -> tuple[list[Subset], ChosenImages]:
    """Those that were asked for; otherwise the largest and the smallest class."""
    counts, names = saved.statistics.counts, saved.splits.class_names
    classes = [class_index(word, names) for word in options.classes]
    if not classes and not options.groups:
        classes = [counts.index(max(counts)), len(counts) - 1 - counts[::-1].index(min(counts))]
    chosen = choose_images(saved.splits.train_labels, len(counts), options.max_samples, options.seed)
    wanted = {name: group_classes(name, saved.statistics) for name in options.groups}
    wanted |= {f"class {c}": (c,) for c in classes}
    return [make_subset(name, members, chosen) for name, members in wanted.items()], chosen


def _subject(options: argparse.Namespace, saved: SavedRun, model: nn.Module) -> dict[str, object]:
    return {
        "weights_sha256": fingerprint(model),
        "loss": describe(LOSSES, loss_of(options)),
        "training_labels_sha256": label_fingerprint(saved.splits.train_labels),
        "max_samples": options.max_samples,
        "seed": options.seed,
    }


def _facts(
    parts: Parts, saved: SavedRun, model: nn.Module, chosen: ChosenImages, subsets: Sequence[Subset], command: str
) -> dict[str, object]:
    """What figures and reports say about all parts."""
    return {
        "run": str(saved.root.path),
        "weights": str(saved.folder.path),
        **parts.subject,
        "model": type(model).__name__,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "class_names": saved.splits.class_names,
        "class_statistics": saved.statistics.to_dict(),
        "samples": samples_record(chosen, subsets),
        "mode": "evaluation mode, training images without random augmentation",
        "command": command,
        "versions": installed_versions(),
    }


def _show(path: Path, figures: Sequence[Path]) -> None:
    results, console = read_json(path, mapping) or {}, Console()
    if results.get("spectra"):
        table = Table("", "images", "loss", "lam_max", "lam_min", "min/max", "max/min", "trace")
        for name, record in results["spectra"].items():
            table.add_row(name, *summary(record))
        console.print(table)
        console.print("min/max: |lam_min / lam_max| (Rangwani et al. 2022); max/min: its inverse (Lyu et al. 2025).")
    for record in results.get("sharpness", {}).values():
        low, high = (record["suggested"][end] for end in ("low", "high"))
        console.print(f"rho to try: {_or_not_found(low)} to {_or_not_found(high)}")
    console.print(f"Results: {path}", soft_wrap=True)
    for figure in figures:
        console.print(f"Figure:  {figure}", soft_wrap=True)


def _or_not_found(rho: float | None) -> str:
    return "(not among the radii measured)" if rho is None else f"{rho:.2g}"


if __name__ == "__main__":
    main()
