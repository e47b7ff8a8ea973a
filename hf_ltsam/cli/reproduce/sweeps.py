"""Sweeps of a table: the figure of accuracy against the values of a setting, and the value that training images choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_ltsam.cli.reproduce.runs import RowRun
from hf_ltsam.cli.reproduce.tables import Row, TableOfRuns
from hf_ltsam.cli.train.arguments import read_options
from hf_ltsam.runs.escaping import figure_text
from hf_ltsam.runs.files import mapping, read_json, write_json
from hf_ltsam.runs.recipe_tables import GROUPS, Point
from hf_ltsam.runs.report.configurations import spread
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels, legend_above
from hf_ltsam.runs.report.style import series_style

FIGURE = "sweep"
CHOICE = "choice.json"
WIDE = 10  # times the smallest value: from there on the scale is logarithmic

Spreads = Mapping[
    str, Sequence[tuple[Any, Mapping[str, Sequence[float]]]]
]  # row -> (value, group -> one number a seed)


def draw_sweeps(root: Path, table: TableOfRuns, reached: Spreads) -> None:
    """A panel for each group: mean and deviation over seeds against the values, beside what was published.

    Args:
        reached: accuracies in percent of every row of `table.sweeps`, by value; none at all: nothing is drawn.
    """
    groups = [group for group in GROUPS if any(numbers[group] for values in reached.values() for _, numbers in values)]
    if not groups:
        return
    names, chosen = list(reached), read_choice(root)
    of = {name: (_setting(table.sweeps[name]), _data(table.sweeps[name][0])) for name in names}  # panels
    kinds = list(dict.fromkeys(of.values()))
    scales = {
        kind: _Scale.of([v for name in names if of[name][0] == kind[0] for v, _ in reached[name]]) for kind in kinds
    }
    setting = ", ".join(dict.fromkeys(setting for setting, _ in kinds))
    panels = [(group, kind) for group in groups for kind in kinds]
    columns = len(kinds) if len(kinds) > 1 else min(len(groups), 2)

    def paint(figure: Any) -> None:
        for (group, kind), axes in zip(panels, grid_of_panels(figure, len(panels), columns)):
            scale = scales[kind]
            for k, name in [(k, name) for k, name in enumerate(names) if of[name] == kind]:
                curve = [(value, *spread(numbers[group])) for value, numbers in reached[name] if numbers[group]]
                _curve(axes, k, curve, scale.places)
                _published(axes, k, table.curves.get(name, ()), group, scale.places)
                _ring(axes, k, chosen.get(name), curve, scale.places)
            scale.apply(axes)
            axes.set_title(figure_text(kind[1]) if len({data for _, data in kinds}) > 1 else "", loc="left")
            axes.set_xlabel(figure_text(kind[0]))
            axes.set_ylabel(f"{group}, accuracy in %")
        legend_above(figure, names, range(len(names)))

    caption = (
        "Mean and standard deviation over seeds; crosses: published"
        f"{'; ring: the value that reserved training images choose' if chosen else ''}."
    )
    size = (WIDTH, 0.4 + 2.6 * -(-len(panels) // columns))
    draw(root, FIGURE, size, paint, f"{table.title}: accuracy against {setting}", caption, caption)


def _data(row: Row) -> str:
    """What a row, or its first stage, is trained on; different data have panels of their own."""
    settings = row.stage.expanded if row.stage is not None else row.expanded
    return " ".join(str(settings[name]) for name in ("dataset", "builder", "imbalance_ratio") if name in settings)


def _setting(rows: Sequence[Row]) -> str:
    return next(row.value[0] for row in rows if row.value is not None)


@dataclass(frozen=True)
class _Scale:
    """Where the values of a setting stand: numbers on a scale, logarithmic where they reach far; others side by side.

    Args:
        places: a value as text -> x.
    """

    places: Mapping[str, float]
    is_scale: bool

    @classmethod
    def of(cls, values: Sequence[Any]) -> _Scale:
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return cls({str(value): float(value) for value in values}, True)
        return cls({name: float(k) for k, name in enumerate(dict.fromkeys(map(str, values)))}, False)

    def apply(self, axes: Any) -> None:
        x = self.places.values()
        if not self.is_scale:
            axes.set_xticks(list(x), [figure_text(value) for value in self.places])
        elif min(x) > 0 and max(x) >= WIDE * min(x):
            axes.set_xscale("log")


def _curve(axes: Any, k: int, curve: Sequence[tuple[Any, float, float]], places: Mapping[str, float]) -> None:
    x, means = [places[str(value)] for value, _, _ in curve], [mean for _, mean, _ in curve]
    deviations = [0.0 if deviation != deviation else deviation for _, _, deviation in curve]
    axes.errorbar(x, means, yerr=deviations, capsize=2, **series_style(k).marked)


def _published(axes: Any, k: int, points: Sequence[Point], group: str, places: Mapping[str, float]) -> None:
    there = [point for point in points if group in point.accuracies and str(point.at) in places]
    style = {"color": series_style(k).colour, "linestyle": ":", "marker": "x", "markersize": 8}
    axes.plot([places[str(point.at)] for point in there], [point.accuracies[group] for point in there], **style)


def _ring(
    axes: Any,
    k: int,
    chosen: Mapping[str, Any] | None,
    curve: Sequence[tuple[Any, float, float]],
    places: Mapping[str, float],
) -> None:
    mean = next((mean for value, mean, _ in curve if chosen is not None and value == chosen["value"]), None)
    if chosen is not None and mean is not None:
        ring = {
            "color": series_style(k).colour,
            "linestyle": "none",
            "marker": "o",
            "markersize": 11,
            "markerfacecolor": "none",
        }
        axes.plot([places[str(chosen["value"])]], [mean], **ring)


def choose(table: TableOfRuns, root: Path, runs: Sequence[RowRun], jobs: int) -> None:
    """Let reserved training images choose the value of each sweep, as `ltsam tune` does; what has ended is not repeated.

    Args:
        runs: of the table; a sweep without one of them is left alone.

    Raises:
        ValueError: a sweep of a second stage, or no trial that ended well.
    """
    from hf_ltsam.cli.tune.command import tune  # needs optuna
    from hf_ltsam.cli.tune.study import Study

    options = {Path(run.row.recipe).stem: run.options for run in runs if run.row.value is not None}
    sweeps = {name: rows for name, rows in table.sweeps.items() if name in options}
    staged = next((name for name, rows in sweeps.items() if rows[0].first_stage is not None), None)
    if staged is not None:
        raise ValueError(
            f"{table.name}, row {staged}: a second stage has no choice by reserved images. Leave `choose` out."
        )
    folder, chosen = root / "choice", dict[str, Any](read_choice(root))
    for name, rows in sweeps.items():
        setting = _setting(rows)
        values = [row.value[1] for row in rows if row.value is not None]
        recipe = RowRun(replace(rows[0], value=None), 0, root).recipe()
        tune(
            [recipe], {setting: {"choices": values}}, read_options(options[name])[0],
            metric=table.choose["metric"], reserve=table.choose["reserve"],
            grid=True, prune=False, jobs=jobs, output_dir=folder,
        )  # fmt: skip
        study = Study(folder / Path(recipe).stem)
        if study.best is not None:
            reached = [
                [t.values[setting], 100 * t.accuracies[table.choose["metric"]]] for t in study.ended() if t.accuracies
            ]
            chosen[name] = {"setting": setting, "value": study.best.values[setting], "reached": reached, **table.choose}
        write_json(root / CHOICE, chosen)


def read_choice(root: Path) -> dict[str, dict[str, Any]]:
    """What `choose` has chosen, by row."""
    return read_json(root / CHOICE, mapping, "Remove it: the same command writes it again.") or {}


def choice_lines(root: Path) -> list[str]:
    """In words, for the table."""
    lines = []
    for name, of in read_choice(root).items():
        tried = ", ".join(f"{value}: {accuracy:.2f} %" for value, accuracy in of["reached"])
        what = f"{100 * of['reserve']:g} % of the training images by {of['metric']} accuracy"
        lines.append(f"Chosen on {what}: {of['setting']} {of['value']} in {name} ({tried}).")
    return lines
