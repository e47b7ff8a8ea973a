"""Loss surfaces around the weights, along one or two directions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.runs.escaping import figure_text, file_name
from hf_ltsam.runs.report.configurations import Configuration
from hf_ltsam.runs.report.content import Figure, Section, Table
from hf_ltsam.runs.report.curvature import (
    COLUMNS,
    ROWS,
    Measured,
    measured_samples,
    panel_title,
    row_title,
    sharpness_missing,
    with_curvature,
)
from hf_ltsam.runs.report.drawing import WIDTH, draw, fill_surface, grid_of_panels, legend_above
from hf_ltsam.runs.report.saved_parts import Surface
from hf_ltsam.runs.report.style import GRID, ON_DARK, series_style

FLOOR = 1e-4  # of a loss on a log scale
LINES = 2  # shades from one contour line to the next
TITLE = "Loss surfaces"


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    measured = with_curvature(configurations, lambda c: bool(c.surfaces))
    missing = sharpness_missing(configurations, measured, TITLE, ["--surface", "2d"])
    names = list(dict.fromkeys(name for _, _, _, c in measured for name in c.surfaces))
    figures = [_figure(name, [one for one in measured if name in one[3].surfaces], folder) for name in names]
    return Section(TITLE, figures, [_table(measured)] if measured else [], missing=missing)


def _figure(name: str, measured: Measured, folder: Path) -> Figure:
    subsets = list(dict.fromkeys(s for _, _, _, c in measured for s in c.surfaces[name].loss))
    shown, rows = subsets[:1] + subsets[1:][-(COLUMNS - 1) :], measured[:ROWS]
    file, first = f"surface_{file_name(name)}", measured[0][3].surfaces[name]
    samples, directions = measured_samples(measured), " and ".join(first.directions)
    what = f"Mean {measured[0][3].loss} on training {samples} around the weights: {directions}."
    if len(first.coordinates) == 1:
        return draw(
            folder, file, (WIDTH, 3.2), lambda figure: _paint_lines(figure, measured, name, shown),
            f"Loss along a line ({name})", what, "The loss at the weights and its largest value are in the table below.",
        )  # fmt: skip
    width = min(WIDTH, 2.3 + 2.2 * len(shown))
    panel = (width - 2.3) / len(shown)
    return draw(
        folder, file, (width, 1.0 + (panel + 0.1) * len(rows)),
        lambda figure: _paint_contours(figure, rows, name, shown), f"Loss surface ({name})",
        f"{what} The cross marks the weights; all panels have one logarithmic scale.",
        "The loss at the weights and its largest value are in the table below.",
    )  # fmt: skip


def _paint_lines(figure: Any, measured: Measured, name: str, subsets: Sequence[str]) -> None:
    panels = grid_of_panels(figure, len(subsets), min(len(subsets), 4), sharey=True)
    for axes, subset in zip(panels, subsets):
        for k, _, _, curvature in measured:
            surface = curvature.surfaces[name]
            if subset in surface.loss:
                axes.plot(surface.coordinates[0], np.maximum(surface.loss[subset], FLOOR), **series_style(k).line)
        axes.axvline(0, color=GRID, linewidth=0.8)
        axes.set_yscale("log")
        axes.set_title(panel_title(measured[0][3].labels.get(subset, subset), len(subsets)), fontsize=8.5)
        axes.set_xlabel("step along the direction")
    panels[0].set_ylabel(f"mean loss ({figure_text(measured[0][3].loss)})")
    legend_above(figure, [c.title for _, c, _, _ in measured], [k for k, _, _, _ in measured], lambda style: style.line)


def _paint_contours(figure: Any, measured: Measured, name: str, subsets: Sequence[str]) -> None:
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator

    panels = figure.subplots(len(measured), len(subsets), squeeze=False, sharex=True, sharey=True)
    levels = _levels([curvature.surfaces[name] for _, _, _, curvature in measured], subsets)
    for row, (_, configuration, _, curvature) in enumerate(measured):
        surface = curvature.surfaces[name]
        for axes, subset in zip(panels[row], subsets):
            if subset in surface.loss:
                x, y = surface.coordinates
                values = np.maximum(surface.loss[subset], FLOOR).T
                filled = fill_surface(axes, x, y, values, levels, levels[::LINES])
            axes.plot(0, 0, marker="+", color=ON_DARK, markersize=9)
            axes.set_box_aspect(1)
            axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))  # not as far as the panel beside it
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.grid(visible=False)
            if row == 0:
                axes.set_title(panel_title(curvature.labels.get(subset, subset), len(subsets)), fontsize=8.5)
        panels[row, 0].set_ylabel(row_title(configuration.title))
    label = f"mean loss ({figure_text(measured[0][3].loss)}, log scale)"
    figure.colorbar(filled, ax=panels, ticks=LogLocator(), format=LogFormatterSciNotation(), label=label, aspect=30)
    figure.supxlabel("step along direction 1", fontsize=9)
    figure.supylabel("step along direction 2", fontsize=9)


def _levels(surfaces: Sequence[Surface], subsets: Sequence[str]) -> Any:
    """Whole powers of ten at the ends, some levels between."""
    values = np.concatenate([np.ravel(s.loss[name]) for s in surfaces for name in subsets if name in s.loss])
    finite = np.maximum(values[np.isfinite(values)], FLOOR)
    if not finite.size:
        return np.array([FLOOR, 1.0])
    low, high = (
        np.floor(np.log10(finite.min())),
        max(np.ceil(np.log10(finite.max())), np.floor(np.log10(finite.min())) + 1),
    )
    return 10 ** np.linspace(low, high, LINES * round(high - low) * (6 if high - low < 4 else 4) + 1)


def _table(measured: Measured) -> Table:
    rows = []
    for _, configuration, _, curvature in measured:
        for name, surface in curvature.surfaces.items():
            nearest = tuple(int(np.abs(c).argmin()) for c in surface.coordinates)
            for subset, loss in surface.loss.items():
                words = f"{configuration.title}, {curvature.labels[subset]}, {name}"
                rows.append([words, f"{loss[nearest]:.3g}", f"{np.nanmin(loss):.3g}", f"{np.nanmax(loss):.3g}"])
    columns = [f"configuration, {measured_samples(measured)}, surface", "at the weights", "smallest", "largest"]
    return Table("Mean loss on the surfaces", columns, rows)
