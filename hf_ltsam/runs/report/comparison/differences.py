"""Every configuration against the first one, by group, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.runs.escaping import figure_text
from hf_ltsam.runs.report.by_group import NAMES, drawn_groups
from hf_ltsam.runs.report.comparison.paired_bootstrap import (
    LEVEL,
    REPLICATES,
    ByGroup,
    Interval,
    differences_of_means,
    interval,
    resample_classes,
    resample_images,
)
from hf_ltsam.runs.report.configurations import Configuration, samples_of_all
from hf_ltsam.runs.report.content import Figure, Missing, Section, Table, points
from hf_ltsam.runs.report.drawing import WIDTH, draw, legend_above
from hf_ltsam.runs.report.reading import ReportedRun, completion
from hf_ltsam.runs.report.saved_parts import all_groups
from hf_ltsam.runs.report.style import INK, PAPER, series_style

TITLE = "Larger than chance?"
_GAP = 0.006  # of the width: what an eye sees between a line and zero


@dataclass(frozen=True)
class Compared:
    """A configuration beside the first one.

    Args:
        position: of the configuration in the report.
        intervals: group -> its difference to the first configuration.
        over_images: whether test images were resampled; otherwise classes.
    """

    position: int
    configuration: Configuration
    intervals: dict[str, Interval]
    over_images: bool


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    base, others = configurations[0], configurations[1:]
    if not others:
        return Section(TITLE, notes=["One configuration: there is nothing to compare it with."])
    compared = compare(configurations)
    missing = [
        Missing(f"Predictions of {c.title}, without which classes are resampled, not {c.samples}", completion(run))
        for c in configurations
        if (run := c.first(lambda run: run.metrics is not None and run.predictions is None)) is not None
    ]  # fmt: skip
    shown = {id(c.configuration) for c in compared}
    left_out = [c.title for c in others if id(c) not in shown]
    notes = [f"Not compared, for lack of test results on the same classes: {', '.join(left_out)}."] if left_out else []
    if not compared:
        return Section(TITLE, notes=notes, missing=missing)
    notes = [_explained(compared), *notes]
    return Section(TITLE, [_figure(base, compared, folder)], [_table(base, compared)], notes=notes, missing=missing)


def compare(configurations: Sequence[Configuration], seed: int = 0, level: float = LEVEL) -> list[Compared]:
    """Every configuration with the first one: over test images where both have predictions, else over classes.

    Args:
        level: of the intervals.
    """
    base = configurations[0]
    if base.statistics is None:
        return []
    groups = {"balanced": tuple(range(base.statistics.num_classes)), **all_groups(base.statistics)}
    comparable = [
        c for c in configurations if c.statistics is not None and c.statistics.counts == base.statistics.counts
    ]
    paired = [c for c in comparable if _same_images(base, c)]
    over_images = _replicates_of_images(paired, groups, seed) if len(paired) > 1 else {}
    over_classes = _replicates_of_classes(comparable, groups, seed)
    compared = []
    for position, configuration in enumerate(configurations[1:], start=1):
        if not any(configuration is c for c in comparable):
            continue
        images = any(configuration is c for c in paired) and bool(over_images)
        replicates = over_images if images else over_classes
        intervals = _intervals(base, configuration, replicates, seed, level)
        compared.append(Compared(position, configuration, intervals, images))
    return compared


def _intervals(
    base: Configuration, other: Configuration, replicates: Mapping[int, ByGroup], seed: int, level: float
) -> dict[str, Interval]:
    first, second, intervals = replicates[id(base)], replicates[id(other)], {}
    for name in first:
        generator = np.random.default_rng([seed, 1])
        drawn = differences_of_means(first[name], second[name], generator, level)
        difference = float(np.mean(other.accuracies(name)) - np.mean(base.accuracies(name)))
        intervals[name] = interval(difference, drawn, level)
    return intervals


def _replicates_of_images(
    configurations: Sequence[Configuration], groups: Mapping[str, Sequence[int]], seed: int
) -> dict[int, ByGroup]:
    runs = [run.predictions for c in configurations for run in _with_predictions(c) if run.predictions is not None]
    right = np.stack([p.right for p in runs], axis=1)  # (N, R)
    together = resample_images(right, runs[0].labels, groups, np.random.default_rng(seed))
    return _shared_out(configurations, together)


def _replicates_of_classes(
    configurations: Sequence[Configuration], groups: Mapping[str, Sequence[int]], seed: int
) -> dict[int, ByGroup]:
    per_class = np.stack([test.per_class for c in configurations for test in c.tested])  # (R, C)
    return _shared_out(configurations, resample_classes(per_class, groups, np.random.default_rng(seed)))


def _shared_out(configurations: Sequence[Configuration], together: ByGroup) -> dict[int, ByGroup]:
    """Each configuration's columns, by its identity."""
    ends = np.cumsum([len(c.tested) for c in configurations])[:-1]
    parts = {name: np.split(values, ends, axis=1) for name, values in together.items()}
    return {id(c): {name: parts[name][k] for name in parts} for k, c in enumerate(configurations)}


def _with_predictions(configuration: Configuration) -> list[ReportedRun]:
    return [run for run in configuration.runs if run.metrics is not None and run.predictions is not None]


def _same_images(base: Configuration, other: Configuration) -> bool:
    """Whether all runs of both have predictions, on images of the same labels in the same order."""
    runs = [*base.runs, *other.runs]
    tested = [run for run in runs if run.metrics is not None]
    predictions = [run.predictions for run in tested if run.predictions is not None]
    return len(predictions) == len(tested) > 0 and all(
        np.array_equal(p.labels, predictions[0].labels) for p in predictions
    )


def _explained(compared: Sequence[Compared]) -> str:
    tests = sum(len(c.intervals) for c in compared)
    kinds, samples = {c.over_images for c in compared}, samples_of_all(c.configuration for c in compared)
    what = {
        frozenset({True}): f"the test {samples} of every class",
        frozenset({False}): "the classes of every group",
        frozenset(
            {True, False}
        ): f"the test {samples} of every class (without predictions, the classes of every group)",
    }[frozenset(kinds)]
    return (
        f"95 % intervals from {REPLICATES:,} paired bootstrap replicates: {what} are drawn anew, the same for both "
        "sides. Where there are several seeds, what other seeds would change is in them too (Student's t: the fewer seeds, "
        "the wider); with one each they compare these two models only, not "
        f"the methods. Even without a true difference, one interval in twenty excludes zero; there are {tests} here."
    )


def _table(base: Configuration, compared: Sequence[Compared]) -> Table:
    rows = [
        [
            c.configuration.title, NAMES[name], points(i.difference, i.digits),
            f"{points(i.low, i.digits)} to {points(i.high, i.digits)}",
            c.configuration.samples if c.over_images else "classes",
            ("yes, better" if i.difference > 0 else "yes, worse") if i.beyond_chance else "no",
        ]
        for c in compared for name, i in c.intervals.items()
    ]  # fmt: skip
    columns = ["configuration", "group", "difference", "95 % interval", "paired over", "larger than chance"]
    return Table(f"Difference of test accuracy to {base.title}, in percentage points", columns, rows)


def _figure(base: Configuration, compared: Sequence[Compared], folder: Path) -> Figure:
    differences = (
        (c.configuration.title, name, difference) for c in compared for name, difference in c.intervals.items()
    )
    marked = [f"{title} in {NAMES[name]}" for title, name, difference in differences if difference.beyond_chance]
    drawn = drawn_groups([c.configuration for c in compared])
    names = [name for name in drawn if any(name in c.intervals for c in compared)]
    height = 1.1 + len(names) * (0.12 + 0.16 * len(compared))
    return draw(
        folder, "comparison", (WIDTH, max(height, 2.6)), lambda figure: _paint(figure, base, compared, names),
        f"Difference of test accuracy to {base.title}",
        f"Difference of test accuracy to {base.title} with 95 % intervals. Filled marks: larger than chance; "
        "their lines end visibly before zero, however near it the interval ends.",
        f"Larger than chance: {', '.join(marked) or 'none'}. All numbers are in the table below.",
    )  # fmt: skip


def drawn_ends(interval: Interval, gap: float) -> tuple[float, float]:
    """Ends of its line, which stays away from zero by the gap where the interval leaves zero out."""
    if interval.low > 0:
        return max(interval.low, gap), max(interval.high, gap)
    if interval.high < 0:
        return min(interval.low, -gap), min(interval.high, -gap)
    return interval.low, interval.high


def _reach(compared: Sequence[Compared], names: Sequence[str]) -> float:
    """From the lowest end of all lines to the highest, zero among them."""
    intervals = [c.intervals[name] for c in compared for name in names if name in c.intervals]
    return max(0.0, *(i.high for i in intervals)) - min(0.0, *(i.low for i in intervals))


def _paint(figure: Any, base: Configuration, compared: Sequence[Compared], names: Sequence[str]) -> None:
    axes = figure.subplots()
    gap = _GAP * _reach(compared, names)
    step = 0.75 / max(len(compared), 2)
    for place, c in enumerate(compared):
        style = series_style(c.position)
        for row, name in enumerate(names):
            if name in c.intervals:
                difference = c.intervals[name]
                y = row + step * (place - (len(compared) - 1) / 2)
                ends = 100 * np.array(drawn_ends(difference, gap))
                axes.plot(ends, [y, y], color=style.colour, linewidth=1.4, solid_capstyle="butt")
                fill = style.colour if difference.beyond_chance else PAPER
                axes.plot(100 * difference.difference, y, **style.mark, markerfacecolor=fill, markersize=6)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(names)), [NAMES[name] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"accuracy minus that of {figure_text(base.title)} (percentage points)")
    legend_above(figure, [c.configuration.title for c in compared], [c.position for c in compared])
