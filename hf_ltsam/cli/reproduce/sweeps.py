"""Sweeps of a table: the figure of accuracy against the values of a setting, and the value that training samples choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_ltsam.cli.reproduce.runs import RowRun
from hf_ltsam.cli.reproduce.tables import OF_FIRST_STAGE, Row, TableOfRuns
from hf_ltsam.cli.train.arguments import read_options
from hf_ltsam.runs.escaping import figure_text
from hf_ltsam.runs.files import mapping, read_json, write_json
from hf_ltsam.runs.recipe_tables import GROUPS, Point
from hf_ltsam.runs.report.configurations import spread
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels, legend_above, percent_ticks
from hf_ltsam.runs.report.saved_parts import Curvature
from hf_ltsam.runs.report.style import INK, series_style

FIGURE = "sweep"
EXTREMES = "lam_min_by_value"
CHOICE = "choice.json"
WIDE = 10  # times the smallest value: from there on the scale is logarithmic
_LABEL = 7  # pixels for each character of a number below an axis
_CROSS: dict[str, Any] = {"color": INK, "linestyle": ":", "marker": "x", "markersize": 8}
_RING: dict[str, Any] = {
    "color": INK, "linestyle": "none", "marker": "o", "markersize": 11, "markerfacecolor": "none",
}  # fmt: skip

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
    of = {name: (_setting(table.sweeps[name]), data_of(table.sweeps[name][0])) for name in names}  # panels
    kinds = list(dict.fromkeys(of.values()))
    scales = {
        kind: _Scale.of([v for name in names if of[name][0] == kind[0] for v, _ in reached[name]]) for kind in kinds
    }
    setting = ", ".join(dict.fromkeys(setting_in_words(setting) for setting, _ in kinds))
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
            if group == groups[0] and len({data for _, data in kinds}) > 1:
                axes.set_title(figure_text(kind[1]))
            axes.set_xlabel(figure_text(setting_in_words(kind[0])))
            axes.set_ylabel(f"{group}, accuracy in %")
            percent_ticks(axes.yaxis)
        more = {"published": _CROSS} if any(table.curves.get(name) for name in names) else {}
        more |= {"chosen on a reserve": _RING} if chosen else {}
        legend_above(figure, names, range(len(names)), more=more)

    caption = (
        "Mean and standard deviation over seeds; crosses: published"
        f"{'; ring: the value that reserved training samples choose' if chosen else ''}."
    )
    size = (WIDTH, 0.4 + 2.6 * -(-len(panels) // columns))
    draw(root, FIGURE, size, paint, f"{table.title}: accuracy against {setting}", caption, caption)


def draw_extremes(folder: Path, table: TableOfRuns, measured: Mapping[str, Sequence[tuple[Any, Curvature]]]) -> None:
    """As Rangwani et al. 2022 Fig. 3C: lam_min of the Hessian against the values, a curve for each class or group.

    Args:
        measured: of every row of `table.sweeps` its values with the curvature of their first seeds; none at all: nothing
            is drawn.
    """
    rows = {name: found for name, found in measured.items() if found}
    if not rows:
        return
    labels = {subset: c.labels[subset] for found in rows.values() for _, c in found for subset in c.spectra}
    setting = setting_in_words(_setting(table.sweeps[next(iter(rows))]))

    def paint(figure: Any) -> None:
        for axes, (name, found) in zip(grid_of_panels(figure, len(rows), min(2, len(rows))), rows.items()):
            scale = _Scale.of([value for value, _ in found])
            for k, subset in enumerate(labels):
                there = [(scale.places[str(v)], c.spectra[subset].lam_min) for v, c in found if subset in c.spectra]
                axes.plot([x for x, _ in there], [low for _, low in there], **series_style(k).marked)
            scale.apply(axes)
            axes.axhline(0, color=INK, linewidth=0.6)
            axes.set_title(figure_text(name) if len(rows) > 1 else "")
            axes.set_xlabel(figure_text(setting))
            axes.set_ylabel("$\\lambda_{\\min}$ of the Hessian")
        legend_above(figure, list(labels.values()), range(len(labels)))

    caption = (
        f"The smallest eigenvalue of the Hessian after training against {setting} (as Rangwani et al. 2022 Fig. 3C): the "
        "nearer to 0, the less negative curvature."
    )
    size = (WIDTH, 0.8 + 2.8 * -(-len(rows) // 2))
    draw(folder, EXTREMES, size, paint, f"{table.title}: lam_min against {setting}", caption, caption)


def data_of(row: Row) -> str:
    """What a row, or its first stage, is trained on; different data have panels of their own."""
    settings = row.stage.expanded if row.stage is not None else row.expanded
    name = Path(str(settings.get("dataset") or settings.get("builder") or "")).name
    ratio = settings.get("imbalance_ratio")
    return name if ratio is None else f"{name}, imbalance ratio {ratio:g}"


def setting_in_words(setting: str) -> str:
    """`method_args.gamma` as gamma, `first_stage.scale` as scale of the first stage."""
    name = setting.rpartition(".")[2]
    return f"{name} of the first stage" if setting.startswith(OF_FIRST_STAGE) else name


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
        x = list(self.places.values())
        if not self.is_scale:
            axes.set_xticks(x, [figure_text(value) for value in self.places])
            return
        if min(x) > 0 and max(x) >= WIDE * min(x):
            axes.set_xscale("log")
        axes.get_xlim()  # scales the axis to its curves now
        shown = _apart(sorted(set(x)), axes.transData.transform)
        axes.set_xticks(shown, [f"{value:g}" for value in shown])
        axes.minorticks_off()


def _apart(values: Sequence[float], place: Any) -> list[float]:
    """Those whose numbers do not touch, the first one among them.

    Args:
        place: gives the pixels of a point.
    """
    shown: list[float] = []
    for value in values:
        if not shown or place((value, 0))[0] - place((shown[-1], 0))[0] >= _LABEL * max(4, len(f"{value:g}")):
            shown.append(value)
    return shown


def _curve(axes: Any, k: int, curve: Sequence[tuple[Any, float, float]], places: Mapping[str, float]) -> None:
    x, means = [places[str(value)] for value, _, _ in curve], [mean for _, mean, _ in curve]
    deviations = [0.0 if deviation != deviation else deviation for _, _, deviation in curve]
    axes.errorbar(x, means, yerr=deviations, capsize=2, **series_style(k).marked)


def _published(axes: Any, k: int, points: Sequence[Point], group: str, places: Mapping[str, float]) -> None:
    there = [point for point in points if group in point.accuracies and str(point.at) in places]
    style = {**_CROSS, "color": series_style(k).colour}
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
        axes.plot([places[str(chosen["value"])]], [mean], **{**_RING, "color": series_style(k).colour})


def choose(table: TableOfRuns, root: Path, runs: Sequence[RowRun], jobs: int) -> None:
    """Let reserved training samples choose the value of each sweep, as `ltsam tune` does; what has ended is not repeated.

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
        raise ValueError(f"{table.name}, row {staged}: a second stage has no choice by a reserve. Leave `choose` out.")
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
        what = f"{100 * of['reserve']:g} % of the training samples by {of['metric']} accuracy"
        lines.append(f"Chosen on {what}: {of['setting']} {of['value']} in {name} ({tried}).")
    return lines
