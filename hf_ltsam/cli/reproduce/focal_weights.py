"""The figure of Focal-SAM's weights over classes, for which nothing is trained: the sizes of the classes decide it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_ltsam import ClassStatistics
from hf_ltsam.cli.reproduce.sweeps import data_of
from hf_ltsam.cli.reproduce.tables import Row, TableOfRuns
from hf_ltsam.runs.escaping import figure_text
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels, legend_above
from hf_ltsam.runs.report.style import series_style

FIGURE = "focal_weights"
POINTS = 400  # of a curve
_LEAST = 0.05  # share of the classes, the most frequent ones, whose weights may lie left of a panel
Floats = NDArray[np.float64]


def draw_focal_weights(folder: Path, table: TableOfRuns) -> None:
    """As Li et al. 2025 Fig. 3: a panel for each data set, the density of (1 - pi_c)^gamma over its classes for every gamma.

    Args:
        table: whose rows are swept over gamma.
    """
    sweeps = list(table.sweeps.values())
    gammas = [row.value[1] for row in sweeps[0] if row.value is not None]

    def paint(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for axes, rows in zip(grid_of_panels(figure, len(sweeps), 2), sweeps):
            statistics = statistics_of(rows[0])
            pi = np.asarray(statistics.counts) / sum(statistics.counts)  # (C,)
            weights = [(1 - pi) ** gamma for gamma in gammas]
            x = np.linspace(min(np.quantile(w, _LEAST) for w in weights), 1, POINTS)
            curves = [kernel_density(w, x) for w in weights]
            for k, curve in enumerate(curves):
                axes.plot(x, curve, **series_style(k).line)
            axes.set_title(figure_text(f"{data_of(rows[0])} ({statistics.num_classes:,} classes)"))
            axes.set_xlabel("$(1 - \\pi_c)^\\gamma$")
            axes.set_ylabel("density over classes")
            axes.set_yscale("log")
            highest = max(curve.max() for curve in curves)
            axes.set_ylim(1e-3 * highest, 2 * highest)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        legend_above(figure, [f"gamma {gamma:g}" for gamma in gammas], range(len(gammas)), lambda style: style.line)

    caption = (
        "Density over the classes of the focal weights (1 - pi_c)^gamma, pi_c the share of class c in the training set, by "
        "a Gaussian kernel of Scott's width (as Li et al. 2025 Fig. 3). The most frequent classes lie left of the panels."
    )
    size = (WIDTH, 0.5 + 2.4 * -(-len(sweeps) // 2))
    draw(folder, FIGURE, size, paint, f"Focal weights: {table.title}", caption, caption)


def statistics_of(row: Row) -> ClassStatistics:
    """Of the data that a row is trained on, without an image."""
    from dataset_builders import long_tail_statistics

    settings = row.expanded
    builder = str(settings["builder"])
    name = f"{Path(settings['dataset']).name}_lt" if builder == "cifar_lt" else builder
    tail = {key: settings[key] for key in ("imbalance_ratio", "profile") if key in settings}
    return long_tail_statistics(name, **tail)


def kernel_density(values: Floats, x: Floats) -> Floats:
    """At x (T,) the density of values (C,): the mean of normal densities around them, of the width n^(-1/5) deviation.

    Source: Scott 1992, the rule that scipy's and pandas' densities have.
    """
    width = max(len(values) ** -0.2 * values.std(ddof=1), np.finfo(np.float64).eps)
    z = (x[:, None] - values) / width  # (T, C)
    return np.asarray(np.exp(-(z**2) / 2).mean(axis=1) / (width * np.sqrt(2 * np.pi)))
