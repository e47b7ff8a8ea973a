"""Accuracy by group, with deviations over seeds; the table that the report opens with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.runs.class_frequencies import describe_groups
from hf_ltsam.runs.record import shortcomings, untested
from hf_ltsam.runs.report.configurations import Configuration, chance_of, spread
from hf_ltsam.runs.report.content import Figure, Section, Table, are_equal, mean_and_deviation
from hf_ltsam.runs.report.drawing import WIDTH, draw, legend_above, percent_ticks, within_percent
from hf_ltsam.runs.report.saved_parts import Bounds, all_groups, head_and_tail
from hf_ltsam.runs.report.style import GRID, series_style

NAMES = {"balanced": "all classes", "many": "many", "medium": "medium", "few": "few", "head": "head", "tail": "tail"}


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    if not any(c.tested for c in configurations):
        return Section("Accuracy by group", notes=["There are no test results."])
    notes = [
        "Accuracy of a group: the mean of its per-class accuracies.",
        *group_bounds(configurations),
        *other_bounds(configurations),
        *lacking_classes(configurations),
        *chance(configurations),
    ]
    return Section("Accuracy by group", [_figure(configurations, folder)], [table(configurations)], notes=notes)


def table(configurations: Sequence[Configuration]) -> Table:
    """Overall, by group, and calibration."""
    groups = shown_groups(configurations)
    rows = [
        [
            c.title,
            ", ".join(run.seed for run in c.runs),
            *(mean_and_deviation(*spread(c.accuracies(group)), 100) for group in ("overall", *groups)),
            mean_and_deviation(*spread(test.ece for test in c.tested), 100),
        ]
        for c in configurations
    ]
    columns = ["configuration", "seeds", "overall", *(NAMES[group] for group in groups), "ECE"]
    caption = "Test accuracy and expected calibration error (ECE) in %: mean ± standard deviation over seeds"
    return Table(caption, columns, rows)


def shown_groups(configurations: Sequence[Configuration]) -> list[str]:
    """Those for which any configuration has a number."""
    return [group for group in NAMES if any(c.accuracies(group) for c in configurations)]


def drawn_groups(configurations: Sequence[Configuration]) -> list[str]:
    """The same, and once where two have the same classes, as few and tail may."""
    statistics = {c.statistics for c in configurations if c.statistics is not None}
    drawn: dict[object, str] = {}  # classes in every training set -> the first group of them
    for group in shown_groups(configurations):
        drawn.setdefault(tuple(all_groups(s).get(group, group) for s in statistics) or group, group)
    return list(drawn.values())


def group_bounds(configurations: Sequence[Configuration]) -> list[str]:
    """What many, medium and few, head and tail are; one sentence for each training set."""
    sentences: dict[str, None] = {}
    for statistics, samples in ((c.statistics, c.samples) for c in configurations if c.statistics is not None):
        text = describe_groups(statistics, sizes=True, samples=samples)
        if head_and_tail(statistics):
            tail = len(statistics.tail_classes)
            text += f" The tail that methods split off: at most {statistics.tail_threshold:,} ({tail})."
        sentences[text] = None
    if len({c.statistics for c in configurations if c.statistics is not None}) > 1:
        sentences["Not all runs have the same training set: their accuracies are not to be compared."] = None
    return list(sentences)


def other_bounds(configurations: Sequence[Configuration]) -> list[str]:
    """Of runs that were recorded by other bounds than those of the report."""
    sentences: dict[str, None] = {}
    for c in configurations:
        for metrics in (run.metrics for run in c.runs if run.metrics is not None):
            stated = ClassStatistics.from_dict(metrics.record.class_statistics)
            if Bounds.of(stated).groups != Bounds.of(metrics.statistics).groups:
                recorded = (
                    f"many above {stated.many_above:,} and few below {stated.few_below:,}"
                    if stated.group_sizes is None
                    else f"groups of {', '.join(map(str, stated.group_sizes))} classes"
                )
                text = (
                    f"{c.title} was recorded with {recorded}: its groups are computed anew from its accuracies by class. "
                    "Groups in its log and in its evaluations are left out, and those of its curvature are its own."
                )
                sentences[text] = None
    return list(sentences)


def lacking_classes(configurations: Sequence[Configuration]) -> list[str]:
    """What the means leave out, of each configuration once."""
    remarks = [
        f"{c.title}: {remark}"
        for c in configurations for run in c.runs if run.metrics is not None for remark in untested(run.metrics.record)
    ]  # fmt: skip
    return list(dict.fromkeys(remarks))


def chance(configurations: Sequence[Configuration]) -> list[str]:
    """The level of chance, and the runs that are no better or have diverged."""
    levels = {chance_of(c) for c in configurations if c.tested}
    level = ", ".join(f"{100 * value:.3g} %" for value in sorted(levels))
    remarks = [
        f"{c.title}, seed {run.seed}: {remark}"
        for c in configurations for run in c.runs if run.metrics is not None
        for remark in shortcomings(run.metrics.record, [entry["loss"] for entry in run.history if "loss" in entry])
    ]  # fmt: skip
    return (
        [f"Chance, one of the classes that the test has, gives {level} in all of these columns but the ECE.", *remarks]
        if levels
        else []
    )


def _figure(configurations: Sequence[Configuration], folder: Path) -> Figure:
    groups = drawn_groups(configurations)
    reached = {c.title: spread(c.accuracies("balanced"))[0] for c in configurations if c.tested}
    best = [title for title, accuracy in reached.items() if are_equal(accuracy, max(reached.values()))]
    highest = (
        f"{best[0]} is highest" if len(best) == 1 else f"{', '.join(best[:-1])} and {best[-1]} are level at the top"
    )
    return draw(
        folder, "accuracy_by_group", (WIDTH, 3.9), lambda figure: _paint(figure, configurations, groups),
        "Test accuracy by group of classes",
        "Test accuracy by group: mean (mark) and standard deviation (bar) over seeds; small dots are the single runs.",
        f"Over all classes {highest}. All numbers are in the table below.",
    )  # fmt: skip


def _paint(figure: Any, configurations: Sequence[Configuration], groups: Sequence[str]) -> None:
    axes = figure.subplots()
    tested = [(k, c) for k, c in enumerate(configurations) if c.tested]
    step = 0.8 / max(len(tested), 3)
    for place, (k, configuration) in enumerate(tested):
        style = series_style(k)
        for x, group in enumerate(groups):
            values = 100 * np.array(configuration.accuracies(group))
            if values.size:
                mean, deviation = spread(values)
                at = x + step * (place - (len(tested) - 1) / 2)
                bar = None if np.isnan(deviation) else within_percent(mean, deviation)
                axes.errorbar(at, mean, bar, **style.mark, capsize=2.5, elinewidth=1.2)
                if len(values) > 1:
                    aside = np.full(len(values), at + 0.3 * step)
                    axes.plot(aside, values, ".", color=style.colour, markersize=3, alpha=0.7)
    for x in range(len(groups) - 1):
        axes.axvline(x + 0.5, color=GRID, linewidth=0.6)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_xticks(range(len(groups)), [NAMES[group] for group in groups])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("test accuracy (%)")
    percent_ticks(axes.yaxis)
    axes.set_xlabel("group of classes")
    legend_above(figure, [c.title for _, c in tested], [k for k, _ in tested], lambda style: style.mark)
