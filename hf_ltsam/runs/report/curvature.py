"""Curvature class by class, as `ltsam sharpness` measured it: spectra, and their extremes over the training."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.runs.escaping import figure_text, figure_texts
from hf_ltsam.runs.report.configurations import Configuration, samples_of_all
from hf_ltsam.runs.report.content import Figure, Missing, Section, Table
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels, legend_above
from hf_ltsam.runs.report.reading import ReportedRun, has_steps, sharpness
from hf_ltsam.runs.report.saved_parts import Curvature, Spectrum
from hf_ltsam.runs.report.style import GRID, INK, series_style

FLOOR = 1e-8  # of a density on a log axis: less than one eigenvalue in a hundred million
ROWS = 6  # configurations in one figure of spectra
COLUMNS = 4  # subsets
_ROW = 24  # characters along the height of a panel
MOST_CURVES = 5  # subsets of curves over the training, which need less room
Measured = list[tuple[int, Configuration, ReportedRun, Curvature]]  # by place in the report; one run for each


def spectra_section(configurations: Sequence[Configuration], folder: Path) -> Section:
    """As in Rangwani et al. 2022 Fig. 2: one row for each configuration, one column for each subset."""
    title, measured = "Spectral densities", with_curvature(configurations, lambda c: bool(c.spectra))
    missing = sharpness_missing(configurations, measured, "Spectra", [])
    if not measured:
        return Section(title, missing=missing)
    subsets = list(dict.fromkeys(name for _, _, _, c in measured for name in c.spectra))
    shown, rows = subsets[:1] + subsets[1:][-(COLUMNS - 1) :], measured[:ROWS]
    caption = (
        f"Spectral density of the Hessian of the {measured[0][3].loss} on the training {measured_samples(measured)} (as "
        "Rangwani et al. 2022 Fig. 2). Eigenvalues left of zero: directions of negative curvature, the mark of a saddle. "
        "All panels of a column have the same scale."
    )
    if len(measured) > ROWS or len(subsets) > COLUMNS:
        caption += " The table has the rest."
    extremes = (
        f"{configuration.title}, {name}: {spectrum.lam_min:.3g} to {spectrum.lam_max:.3g}"
        for _, configuration, _, curvature in rows for name, spectrum in curvature.spectra.items()
    )  # fmt: skip
    figure = draw(
        folder, "spectra", (WIDTH, 0.7 + 1.75 * len(rows)), lambda figure: _paint_spectra(figure, rows, shown),
        "Spectral densities of the Hessian", caption, f"Eigenvalues reach from and to: {'; '.join(extremes)}.",
    )  # fmt: skip
    figures = [figure, _ratios(measured, shown, folder)] if len(measured) > 1 else [figure]
    return Section(title, figures, [_table(measured)], notes=[representatives(measured)], missing=missing)


def evolution_section(configurations: Sequence[Configuration], folder: Path) -> Section:
    """As in Rangwani et al. 2022 Fig. 3, one column for each subset."""
    title, measured = "Curvature over the training", with_curvature(configurations, lambda c: bool(c.evolution))
    missing = sharpness_missing(configurations, measured, title, ["--checkpoints"])
    if not measured:
        return Section(title, missing=missing)
    subsets = list(dict.fromkeys(name for _, _, _, c in measured for name in c.evolution))
    shown = subsets[:1] + subsets[1:][-(MOST_CURVES - 1) :]
    figure = draw(
        folder, "curvature_over_training", (WIDTH, 4.6), lambda figure: _paint_evolution(figure, measured, shown),
        "Extreme eigenvalues of the Hessian over the training",
        "Share of negative curvature |lam_min / lam_max| (above; as Rangwani et al. 2022 Fig. 3) and lam_min (below) of the "
        "Hessian over the training.",
        "The values at every checkpoint are in the table below.",
    )  # fmt: skip
    rows = [
        [f"{configuration.title}, {curvature.labels[name]}", f"{point.time:g}", _number(point.lam_min),
         _number(point.lam_max), _number(point.ratio)]
        for _, configuration, _, curvature in measured for name, points in curvature.evolution.items() for point in points
    ]  # fmt: skip
    columns = [
        f"configuration, {measured_samples(measured)}",
        clock(measured),
        "lam_min",
        "lam_max",
        "|lam_min / lam_max|",
    ]
    table = Table("Extreme eigenvalues of the Hessian at every checkpoint", columns, rows)
    return Section(title, [figure], [table], notes=[representatives(measured)], missing=missing)


def with_curvature(configurations: Sequence[Configuration], has: Callable[[Curvature], bool]) -> Measured:
    """The first run of each configuration whose `sharpness.json` has this part."""
    measured: Measured = []
    for k, configuration in enumerate(configurations):
        run = configuration.first(lambda run: run.curvature is not None and has(run.curvature))
        if run is not None and run.curvature is not None:
            measured.append((k, configuration, run, run.curvature))
    return measured


def sharpness_missing(
    configurations: Sequence[Configuration], measured: Measured, what: str, options: Sequence[str]
) -> list[Missing]:
    """What `ltsam sharpness` with these options makes, of configurations that do not have it."""
    there = {k for k, _, _, _ in measured}
    return [
        Missing(f"{what} of {c.title}", sharpness(c.runs[0], *options))
        for k, c in enumerate(configurations)
        if k not in there and (has_steps(c.runs[0]) or "--checkpoints" not in options)
    ]


def _paint_spectra(figure: Any, measured: Measured, subsets: Sequence[str]) -> None:
    panels = figure.subplots(len(measured), len(subsets), squeeze=False, sharex="col", sharey=True)
    highest = max(c.spectra[n].values.max() for _, _, _, c in measured for n in subsets if n in c.spectra)
    for row, (k, configuration, _, curvature) in enumerate(measured):
        for column, name in enumerate(subsets):
            axes = panels[row, column]
            if name in curvature.spectra:
                _density(axes, curvature.spectra[name], series_style(k).colour)
            if row == 0:
                axes.set_title(panel_title(curvature.labels.get(name, name), len(subsets)), fontsize=8.5)
            if column == 0:
                axes.set_ylabel(row_title(configuration.title))
    panels[0, 0].set_ylim(FLOOR, 3e3 * highest)
    figure.supxlabel("eigenvalue of the Hessian", fontsize=9)
    figure.supylabel("density (log scale)", fontsize=9)


def _density(axes: Any, spectrum: Spectrum, colour: str) -> None:
    values = np.maximum(spectrum.values, FLOOR)
    axes.fill_between(spectrum.grid, FLOOR, values, color=colour, alpha=0.25, linewidth=0)
    axes.plot(spectrum.grid, values, color=colour, linewidth=1)
    axes.axvline(0, color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.grid(visible=False)
    values_of = {
        "\\lambda_{\\max}": spectrum.lam_max,
        "\\lambda_{\\min}": spectrum.lam_min,
        "\\mathrm{tr}": spectrum.trace,
    }
    words = "\n".join(f"${symbol} = {_in_mathtext(value)}$" for symbol, value in values_of.items())
    axes.text(0.97, 0.97, words, transform=axes.transAxes, ha="right", va="top", fontsize=7.5)


def _in_mathtext(value: float) -> str:
    """1.02e+03 with its power of ten written as one."""
    digits, e, power = f"{value:.3g}".partition("e")
    return f"{digits} \\times 10^{{{int(power)}}}" if e else digits


def panel_title(label: str, columns: int) -> str:
    """What a panel is of, in lines that fit beside those of the other columns."""
    lines = figure_text(label).replace(" (", "\n(")
    return lines.replace(", ", ",\n") if columns >= COLUMNS else lines


def row_title(title: str) -> str:
    """Of a row of panels, in lines that are no longer than a panel is high."""
    return "\n".join(map(figure_text, textwrap.wrap(title, _ROW)))


def _paint_evolution(figure: Any, measured: Measured, subsets: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    panels = figure.subplots(2, len(subsets), squeeze=False, sharex=True, sharey="row")
    for column, name in enumerate(subsets):
        for k, _, _, curvature in measured:
            points = curvature.evolution.get(name, [])
            x = [point.time for point in points]
            style = {**series_style(k).marked, "markersize": 4, "markevery": max(1, len(points) // 8)}
            panels[0, column].plot(x, [point.ratio for point in points], **style)
            panels[1, column].plot(x, [point.lam_min for point in points], **style)
        label = next(c.labels[name] for _, _, _, c in measured if name in c.labels)
        panels[0, column].set_title(panel_title(label, len(subsets)), fontsize=8.5)
        panels[1, column].axhline(0, color=GRID, linewidth=0.8)
        panels[1, column].set_xlabel(clock(measured))
        panels[1, column].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    panels[0, 0].set_ylabel("$|\\lambda_{\\min} / \\lambda_{\\max}|$")
    panels[1, 0].set_ylabel("$\\lambda_{\\min}$")
    legend_above(figure, [c.title for _, c, _, _ in measured], [k for k, _, _, _ in measured])


def _ratios(measured: Measured, subsets: Sequence[str], folder: Path) -> Figure:
    """As in Lyu et al. 2025 Fig. 4: one panel for each subset, one bar for each configuration."""

    def paint(figure: Any) -> None:
        panels = grid_of_panels(figure, len(subsets), len(subsets), sharey=True)
        for axes, name in zip(panels, subsets):
            bars = [
                (k, 1 / c.spectra[name].ratio) for k, _, _, c in measured if name in c.spectra and c.spectra[name].ratio
            ]
            places = [len(measured) - 1 - [k for k, _, _, _ in measured].index(k) for k, _ in bars]
            lengths = axes.barh(places, [ratio for _, ratio in bars], color=[series_style(k).colour for k, _ in bars])
            axes.bar_label(lengths, fmt="%.3g", padding=2, fontsize=8)
            axes.set_yticks(range(len(measured)), figure_texts([c.title for _, c, _, _ in reversed(measured)]))
            axes.margins(x=0.25)
            axes.grid(visible=False)
            label = next(c.labels[name] for _, _, _, c in measured if name in c.labels)
            axes.set_title(panel_title(label, len(subsets)), fontsize=8.5)
        figure.supxlabel("$|\\lambda_{\\max} / \\lambda_{\\min}|$", fontsize=9)

    return draw(
        folder, "eigenvalue_ratios", (WIDTH, 1.1 + 0.3 * len(measured)), paint, "Ratios of the extreme eigenvalues",
        "|lam_max / lam_min| of the Hessian (as Lyu et al. 2025 Fig. 4): the larger, the less negative curvature.",
        "The ratios are in the table below.",
    )  # fmt: skip


def _table(measured: Measured) -> Table:
    rows = [
        [f"{configuration.title}, {curvature.labels[name]}", _number(s.lam_max), _number(s.lam_min), _number(s.ratio),
         _number(1 / s.ratio if s.ratio else math.nan), _number(s.trace)]
        for _, configuration, _, curvature in measured for name, s in curvature.spectra.items()
    ]  # fmt: skip
    columns = [
        f"configuration, {measured_samples(measured)}",
        "lam_max",
        "lam_min",
        "|lam_min / lam_max|",
        "|lam_max / lam_min|",
        "trace",
    ]
    caption = "Eigenvalues and trace of the Hessian; the ratios as Rangwani et al. 2022 and as Lyu et al. 2025 use them"
    return Table(caption, columns, rows)


def measured_samples(measured: Measured) -> str:
    """What they classify, in the plural."""
    return samples_of_all(configuration for _, configuration, _, _ in measured)


def representatives(measured: Measured) -> str:
    """Which run of each configuration was measured."""
    runs = "; ".join(f"{c.title}: {run.folder}" for _, c, run, _ in measured)
    return f"One run stands for each configuration. {runs}."


def clock(measured: Measured) -> str:
    """What `time` of the checkpoints counts."""
    points = [p for _, _, _, c in measured for points in c.evolution.values() for p in points]
    return "epoch" if not any(math.isnan(p.epoch) for p in points) else "training step"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
