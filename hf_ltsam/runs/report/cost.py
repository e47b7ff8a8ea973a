"""Accuracy against training time, and the configurations that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.runs.report.by_group import NAMES
from hf_ltsam.runs.report.configurations import Configuration, spread
from hf_ltsam.runs.report.content import Figure, Missing, Section, Table, mean_and_deviation
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels, legend_above, percent_ticks
from hf_ltsam.runs.report.reading import training
from hf_ltsam.runs.report.style import INK, series_style

TITLE = "Cost against accuracy"
GROUPS = ("balanced", "few")


@dataclass(frozen=True)
class Cost:
    """Training times of a configuration.

    Args:
        position: of the configuration in the report.
        seconds: of each training.
        step_seconds: of one step, of each training.
        hardware: of its runs.
    """

    position: int
    configuration: Configuration
    seconds: list[float]
    step_seconds: list[float]
    hardware: tuple[str, ...]


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    costs = [cost for k, c in enumerate(configurations) if (cost := cost_of(k, c)) is not None]
    timed = {cost.position for cost in costs}
    missing = [
        Missing(f"Training time of {c.title}", training(c.runs[0]))
        for k, c in enumerate(configurations)
        if k not in timed
    ]
    if not costs:
        return Section(TITLE, missing=missing)
    hardware = dict.fromkeys(words for cost in costs for words in cost.hardware)
    notes = [
        "Measured time of the training. Of a run that was resumed it is that of all parts, without what was done after the "
        "last checkpoint of each; where a checkpoint does not say its time, as in older releases, the run is left out."
    ]
    if len(hardware) > 1:
        notes.append(f"Not all runs had the same hardware, so their times cannot be compared: {'; '.join(hardware)}.")
    figures = [_figure(costs, folder)] if len(costs) > 1 else []  # one point is no relation
    return Section(TITLE, figures, [_table(costs)], notes=notes, missing=missing)


def cost_of(position: int, configuration: Configuration) -> Cost | None:
    """None where no run has a time."""
    records = [run.metrics.record for run in configuration.runs if run.metrics is not None]
    timed = [r for r in records if r.train_seconds is not None]
    if not timed:
        return None
    steps = [r.timing["seconds_per_step"] for r in timed if r.timing.get("seconds_per_step") is not None]
    hardware = tuple(dict.fromkeys(r.hardware for r in timed))
    return Cost(position, configuration, [s for r in timed if (s := r.train_seconds) is not None], steps, hardware)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, accuracy) for which no other is at most as costly and at least as accurate, by cost."""
    front, best = [], -np.inf
    for k in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        if points[k][1] > best:
            front.append(k)
            best = points[k][1]
    return front


def _points(costs: Sequence[Cost], group: str) -> list[tuple[float, float]]:
    return [(spread(cost.seconds)[0], spread(cost.configuration.accuracies(group))[0]) for cost in costs]


def _figure(costs: Sequence[Cost], folder: Path) -> Figure:
    groups = [group for group in GROUPS if all(cost.configuration.accuracies(group) for cost in costs)]
    front = [costs[k].configuration.title for k in pareto_front(_points(costs, groups[0]))]
    return draw(
        folder, "cost", (WIDTH, 3.4), lambda figure: _paint(figure, costs, groups), "Accuracy against training time",
        "Test accuracy against training time: means and standard deviations over seeds. The dotted line joins those that no "
        "other beats in both (Pareto front).",
        f"On the front, over all classes: {', '.join(front)}. All numbers are in the table below.",
    )  # fmt: skip


def _paint(figure: Any, costs: Sequence[Cost], groups: Sequence[str]) -> None:
    panels = grid_of_panels(figure, len(groups), len(groups))
    unit, scale = ("hours", 3600.0) if max(max(cost.seconds) for cost in costs) > 7200 else ("s", 1.0)
    for axes, group in zip(panels, groups):
        points = _points(costs, group)
        front = [points[k] for k in pareto_front(points)]
        axes.plot([x / scale for x, _ in front], [100 * y for _, y in front], color=INK, linewidth=0.9,
                  linestyle=(0, (1, 2)), drawstyle="steps-post")  # fmt: skip
        for cost, (x, y) in zip(costs, points):
            style = series_style(cost.position)
            wide, high = spread(cost.seconds)[1] / scale, 100 * spread(cost.configuration.accuracies(group))[1]
            axes.errorbar(x / scale, 100 * y, high if high == high else None, wide if wide == wide else None,
                          **style.mark, markersize=7, capsize=2, elinewidth=1)  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_title(NAMES[group] if group == "balanced" else f"{group} classes")
        axes.set_xlabel(f"training time ({unit})")
        axes.set_ylabel("test accuracy (%)")
        percent_ticks(axes.yaxis)
    legend_above(figure, [cost.configuration.title for cost in costs], [cost.position for cost in costs],
                 lambda style: style.mark)  # fmt: skip


def _table(costs: Sequence[Cost]) -> Table:
    front = set(pareto_front(_points(costs, "balanced")))
    rows = [
        [
            cost.configuration.title, mean_and_deviation(*spread(cost.seconds)),
            mean_and_deviation(*spread(cost.step_seconds), 1000),
            *(mean_and_deviation(*spread(cost.configuration.accuracies(group)), 100) for group in GROUPS),
            "yes" if k in front else "no", "; ".join(cost.hardware),
        ]
        for k, cost in enumerate(costs)
    ]  # fmt: skip
    columns = ["configuration", "training time (s)", "per step (ms)", "accuracy, all classes (%)", "accuracy, few (%)",
               "on the Pareto front", "hardware"]  # fmt: skip
    return Table("Training time and accuracy: mean ± standard deviation over seeds", columns, rows)
