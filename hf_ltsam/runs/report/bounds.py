"""Bounds on the test loss over the training, from what `ltsam sharpness --checkpoints` has measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_ltsam.curvature.bounds import Bound, lyu_2025_bound, zhou_2023_bound, zhou_2023_radius
from hf_ltsam.runs.report.configurations import Configuration
from hf_ltsam.runs.report.content import Section, Table
from hf_ltsam.runs.report.curvature import (
    MOST_CURVES,
    Measured,
    clock,
    measured_samples,
    panel_title,
    representatives,
    sharpness_missing,
    with_curvature,
)
from hf_ltsam.runs.report.drawing import WIDTH, draw, legend_above
from hf_ltsam.runs.report.reading import ReportedRun
from hf_ltsam.runs.report.saved_parts import Checkpoint, Curvature
from hf_ltsam.runs.report.style import INK, series_style

TITLE = "Bounds on the test loss over the training"
Maker = Callable[[Checkpoint, ReportedRun], Bound | None]


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    """As in Zhou et al. 2023b Fig. 3: one row for each bound, one column for each subset."""
    measured = with_curvature(configurations, lambda c: bool(_subsets([c])))
    missing = sharpness_missing(configurations, measured, TITLE, ["--checkpoints"])
    if not measured:
        return Section(TITLE, missing=missing)
    subsets = _subsets([c for _, _, _, c in measured])
    shown = subsets[:1] + subsets[1:][-(MOST_CURVES - 1) :]
    kinds = [
        kind
        for kind, bound in BOUNDS.items()
        if any(_curve(c, n, run, bound) for _, _, run, c in measured for n in shown)
    ]
    figure = draw(
        folder, "bounds_over_training", (WIDTH, 0.7 + 2.3 * len(kinds)),
        lambda figure: _paint(figure, measured, shown, kinds), TITLE,
        f"Bounds on the test loss of the {measured_samples(measured)} of each column, and dotted their training loss (as "
        "Zhou et al. 2023b Fig. 3), with delta 0.05. Zhou: Eq. 15 at the radius rho* of each checkpoint, with the largest "
        "loss within it to first order; the proof is for losses up to 1. Lyu: Theorem 6 at the method's radius, with "
        "lam_max at the weights and without its last term, the largest possible loss / sqrt(n), which does not change.",
        "The values at every checkpoint are in the table below.",
    )  # fmt: skip
    rows = [
        [f"{configuration.title}, {curvature.labels[name]}, {kind}", f"{point.time:g}", f"{point.loss:.3g}",
         *(f"{value:.3g}" for value in (bound.value, bound.loss, bound.curvature, bound.complexity))]
        for _, configuration, run, curvature in measured for name in subsets for kind in kinds
        for point, bound in _curve(curvature, name, run, BOUNDS[kind])
    ]  # fmt: skip
    columns = [
        f"configuration, {measured_samples(measured)}, bound",
        clock(measured),
        "training loss",
        "bound",
        "its loss",
        "curvature",
        "root",
    ]
    table = Table("Bounds and their parts at every checkpoint", columns, rows)
    return Section(TITLE, [figure], [table], notes=[representatives(measured)], missing=missing)


def zhou_2023(point: Checkpoint, run: ReportedRun) -> Bound | None:
    """Eq. 15 at rho*, with L(w) + sqrt(k) rho* ||g|| for the largest loss within sqrt(k) rho*."""
    if not point.gradient_norm > 0:
        return None
    k, n = point.weights, point.samples
    rho = zhou_2023_radius(point.weight_norm, point.gradient_norm, k, n)
    return zhou_2023_bound(point.loss + math.sqrt(k) * rho * point.gradient_norm, point.weight_norm, k, n, rho)


def lyu_2025(point: Checkpoint, run: ReportedRun) -> Bound | None:
    """Theorem 6 but for M / sqrt(n), of a method with one positive radius."""
    rho = run.metrics.record.method["args"].get("rho") if run.metrics is not None else None
    if isinstance(rho, bool) or not isinstance(rho, int | float) or not rho > 0:
        return None
    bound = lyu_2025_bound(
        point.loss, point.lam_max, point.weight_norm, point.weights, point.samples, rho, highest_loss=1
    )
    return Bound(bound.loss, bound.curvature, bound.complexity, remainder=0.0)


BOUNDS: Mapping[str, Maker] = {"Zhou et al. 2023b Eq. 15": zhou_2023, "Lyu et al. 2025 Theorem 6": lyu_2025}


def _subsets(measured: Sequence[Curvature]) -> list[str]:
    """Those with two images or more, of which everything is saved that the bounds need."""
    return list(dict.fromkeys(n for c in measured for n, points in c.evolution.items() if any(map(_is_whole, points))))


def _is_whole(point: Checkpoint) -> bool:
    return point.samples > 1 and not math.isnan(point.loss + point.gradient_norm + point.weight_norm)


def _curve(curvature: Curvature, name: str, run: ReportedRun, make: Maker) -> list[tuple[Checkpoint, Bound]]:
    points = [point for point in curvature.evolution.get(name, []) if _is_whole(point)]
    return [(point, bound) for point in points if (bound := make(point, run)) is not None]


def _paint(figure: Any, measured: Measured, subsets: Sequence[str], kinds: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    panels = figure.subplots(len(kinds), len(subsets), squeeze=False, sharex=True, sharey="row")
    for row, kind in zip(panels, kinds):
        for axes, name in zip(row, subsets):
            for place, (k, _, run, curvature) in enumerate(measured):
                curve = _curve(curvature, name, run, BOUNDS[kind])
                x, style = [point.time for point, _ in curve], series_style(k)
                every = max(1, len(x) // 8)
                # so that marks of equal values are seen around each other
                size = 7 - 3 * place / max(len(measured) - 1, 1)
                axes.plot(x, [bound.value for _, bound in curve], **style.marked, markersize=size, markevery=every)
                axes.plot(x, [point.loss for point, _ in curve], color=style.colour, linestyle=":", linewidth=1)
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        row[0].set_ylabel(f"bound on the test loss\n({kind})")
    for axes, name in zip(panels[0], subsets):
        label = next(c.labels[name] for _, _, _, c in measured if name in c.labels)
        axes.set_title(panel_title(label, len(subsets)), fontsize=8.5)
    for axes in panels[-1]:
        axes.set_xlabel(clock(measured))
    more = {"training loss": {"color": INK, "linestyle": ":", "linewidth": 1}}
    legend_above(figure, [c.title for _, c, _, _ in measured], [k for k, _, _, _ in measured], more=more)
