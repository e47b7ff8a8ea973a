"""Per-class accuracy against the number of training images of the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam import ClassStatistics
from hf_ltsam.runs.report.configurations import Configuration, known_mean, samples_of_all
from hf_ltsam.runs.report.content import Figure, Missing, Section, Table, mean_and_deviation
from hf_ltsam.runs.report.drawing import WIDTH, draw, legend_above, percent_ticks, within_percent
from hf_ltsam.runs.report.reading import completion
from hf_ltsam.runs.report.saved_parts import Floats
from hf_ltsam.runs.report.style import INK, series_style

MOST_CLASSES = 60  # drawn one by one; of more, neighbours in frequency are averaged
BINS = 25


@dataclass(frozen=True)
class Points:
    """Accuracy of the K points of a curve.

    Args:
        names: class names, or ranges of ranks.
        counts: training images, means over the classes of a point (K,).
        mean, deviation: accuracy over seeds (K,); NaN without a test image, or with one seed.
    """

    names: list[str]
    counts: Floats
    mean: Floats
    deviation: Floats


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    drawn = [(k, c) for k, c in enumerate(configurations) if c.tested]
    points = [points_of(c) for _, c in drawn]
    missing = [Missing(f"Test results of {c.title}", completion(c.runs[0])) for c in configurations if not c.tested]
    if not drawn:
        return Section("Accuracy by frequency", missing=missing)
    return Section("Accuracy by frequency", [_figure(drawn, points, folder)], _tables(drawn, points), missing=missing)


def points_of(configuration: Configuration) -> Points:
    """The classes of a configuration by frequency, the most frequent first; many classes in bins of equally many."""
    statistics, names = configuration.statistics, class_names(configuration)
    if statistics is None:
        raise ValueError(f"{configuration.title} has no test results")
    counts = np.array(statistics.counts, dtype=np.float64)
    order = np.argsort(-counts, kind="stable")
    one_by_one = len(counts) <= MOST_CLASSES
    parts = np.array_split(order, len(order) if one_by_one else BINS)
    accuracies = np.stack([test.per_class for test in configuration.tested])  # (seeds, C)
    binned = np.stack([known_mean(accuracies[:, part], axis=1) for part in parts], axis=1)  # (seeds, K)
    deviation = binned.std(axis=0, ddof=1) if len(binned) > 1 else np.full(len(parts), np.nan)
    ends = np.cumsum([len(part) for part in parts])
    ranks = [f"{end - len(part) + 1} to {end}" for end, part in zip(ends, parts)]
    titles = [names[part[0]] for part in parts] if one_by_one else ranks
    return Points(titles, np.array([counts[part].mean() for part in parts]), binned.mean(axis=0), deviation)


def class_names(configuration: Configuration) -> list[str]:
    """Those of the predictions, else numbers."""
    run = configuration.first(lambda run: run.predictions is not None)
    if run is not None and run.predictions is not None:
        return list(run.predictions.class_names)
    return [str(c) for c in range(configuration.statistics.num_classes)] if configuration.statistics else []


def _figure(drawn: Sequence[tuple[int, Configuration]], points: Sequence[Points], folder: Path) -> Figure:
    binned = [p for p, (_, c) in zip(points, drawn) if c.statistics and c.statistics.num_classes > MOST_CLASSES]
    samples = samples_of_all(c for _, c in drawn)
    caption = (
        f"Test accuracy of every class against its number of training {samples} (logarithmic, frequent ones on the "
        "left)."
    )
    if binned:
        caption = (
            f"Test accuracy against the number of training {samples} (logarithmic): every point is the mean over one of "
            f"{BINS} groups of equally many classes of similar frequency."
        )
    caption += " Mean and standard deviation over seeds. Dotted lines part many, medium and few."
    return draw(
        folder,
        "accuracy_by_frequency",
        (WIDTH, 4.1),
        lambda figure: _paint(figure, drawn, points),
        "Test accuracy against class frequency",
        caption,
        _described(drawn, points),
    )


def _paint(figure: Any, drawn: Sequence[tuple[int, Configuration]], points: Sequence[Points]) -> None:
    from matplotlib.ticker import LogLocator

    axes = figure.subplots()
    middle = (len(drawn) - 1) / 2
    for place, ((k, _), series) in enumerate(zip(drawn, points)):
        aside = 1.018 ** (place - middle)  # so that error bars do not hide each other
        style = series_style(k)
        axes.errorbar(series.counts * aside, 100 * series.mean, _bars(series), **style.marked, elinewidth=1, capsize=2)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_ylim(max(axes.get_ylim()[0], -3), min(axes.get_ylim()[1], 104))
    axes.set_xlabel(f"training {samples_of_all(c for _, c in drawn)} of the class")
    axes.set_ylabel("test accuracy (%)")
    percent_ticks(axes.yaxis)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter("")
    first = next(c.statistics for _, c in drawn if c.statistics)
    _mark_groups(axes, first)
    legend_above(figure, [c.title for _, c in drawn], [k for k, _ in drawn])


def _bars(series: Points) -> Any:
    return None if np.isnan(series.deviation).all() else within_percent(100 * series.mean, 100 * series.deviation)


def _mark_groups(axes: Any, statistics: ClassStatistics) -> None:
    """Lines where many ends and few begins, and the names of the groups above."""
    counts = np.array(statistics.counts)
    groups = [(name, counts[list(classes)]) for name, classes in statistics.groups.items() if classes]
    for (_, more), (_, fewer) in pairwise(groups):
        axes.axvline(np.sqrt(more.min() * fewer.max()), color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    for name, counts_of_group in groups:
        place = {
            "x": np.sqrt(counts_of_group.min() * counts_of_group.max()),
            "y": 1.01,
            "ha": "center",
            "va": "bottom",
            "style": "italic",
        }
        axes.text(s=name, transform=axes.get_xaxis_transform(), fontsize=8.5, **place)


def _described(drawn: Sequence[tuple[int, Configuration]], points: Sequence[Points]) -> str:
    ends = (f"{c.title} from {100 * p.mean[0]:.0f} to {100 * p.mean[-1]:.0f} %" for (_, c), p in zip(drawn, points))
    return f"From the most frequent to the rarest: {'; '.join(ends)}. All numbers are in the table below."


def _tables(drawn: Sequence[tuple[int, Configuration]], points: Sequence[Points]) -> list[Table]:
    """One for all configurations with the same classes."""
    tables: dict[tuple[Any, ...], list[tuple[Configuration, Points]]] = {}
    for (_, c), series in zip(drawn, points):
        tables.setdefault((tuple(series.names), tuple(series.counts)), []).append((c, series))
    return [_table(list(members)) for members in tables.values()]


def _table(members: Sequence[tuple[Configuration, Points]]) -> Table:
    first = members[0][1]
    rows = [
        [name, f"{count:.4g}", *(mean_and_deviation(p.mean[k], p.deviation[k], 100) for _, p in members)]
        for k, (name, count) in enumerate(zip(first.names, first.counts))
    ]
    binned = len(first.names) == BINS and " to " in first.names[0]
    header = "classes by rank" if binned else "class"
    caption = (
        "Test accuracy in %" + (", means over classes" if binned else "") + ": mean ± standard deviation over seeds"
    )
    return Table(
        caption, [header, f"training {samples_of_all(c for c, _ in members)}", *(c.title for c, _ in members)], rows
    )
