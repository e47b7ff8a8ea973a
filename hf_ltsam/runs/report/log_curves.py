"""Curves of the log, as means over seeds: accuracy by group, and telemetry of the perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.runs.escaping import figure_text, visible
from hf_ltsam.runs.report.configurations import Configuration
from hf_ltsam.runs.report.content import Figure, Missing, Section, Table, mean_and_deviation
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels, legend_above, percent_ticks
from hf_ltsam.runs.report.reading import ReportedRun, has_steps, training
from hf_ltsam.runs.report.saved_parts import Floats
from hf_ltsam.runs.report.style import series_style

ACCURACIES = {
    "eval_overall": "overall",
    "eval_many": "many classes",
    "eval_medium": "medium classes",
    "eval_few": "few classes",
}
TELEMETRY = {
    "sam_eps_norm": "norm of the perturbation\n(units of the weights)",
    "sam_sharpness_gap": "sharpness gap\nL(w + eps) - L(w) (loss)",
    "sam_gradient_cosine": "cosine between eps and\nthe gradient at w + eps",
    "sam_step_share": "share of perturbed steps",
}
PREFIX = "sam_"
LOGS = {"eval_strategy": "epoch", "logging_strategy": "epoch"}  # one training makes all curves
_NARROWEST = 0.05  # of all accuracies: a smaller part of the axis would show noise


@dataclass(frozen=True)
class Curve:
    """A number of the log over the training.

    Args:
        x: epochs, or steps where the log has no epochs (T,).
        mean, deviation: over seeds (T,).
    """

    x: Floats
    mean: Floats
    deviation: Floats


def accuracy_section(configurations: Sequence[Configuration], folder: Path) -> Section:
    """As in Lyu et al. 2025 Fig. 3."""
    title, keys = "Accuracy over the training", [k for k in ACCURACIES if any(curve(c, k) for c in configurations)]
    missing = _missing(configurations, list(ACCURACIES), "Accuracies over the epochs", **LOGS)
    if not keys:
        return Section(title, missing=missing)
    caption = f"Test accuracy over the training (as Lyu et al. 2025 Fig. 3): mean over seeds, shaded {_DEVIATION}."
    curves = _Curves(configurations, keys, ACCURACIES, 100, "test accuracy (%)")
    return Section(
        title, [curves.figure(folder, "accuracy_over_training", title, caption)],
        [curves.table("Test accuracy in % at the last moment of the log")], missing=missing,
    )  # fmt: skip


def telemetry_section(configurations: Sequence[Configuration], folder: Path) -> Section:
    """All numbers of the logs whose names begin with `sam_`."""
    title, keys = "The perturbation (SAM telemetry)", telemetry_keys(configurations)
    missing = _missing(configurations, keys or [PREFIX], "Telemetry", **LOGS)
    if not keys:
        return Section(title, missing=missing)
    labels = {key: TELEMETRY.get(key, visible(key.removeprefix(PREFIX).replace("_", " "))) for key in keys}
    caption = (
        "The perturbation of the weights in training: means over the steps since the last log, and over seeds; shaded "
        f"{_DEVIATION}."
    )
    curves = _Curves(configurations, keys, labels, 1, None)
    return Section(
        title, [curves.figure(folder, "telemetry", title, caption)],
        [curves.table("Telemetry at the last moment of the log")], missing=missing,
    )  # fmt: skip


def telemetry_keys(configurations: Sequence[Configuration]) -> list[str]:
    """Those with a label first, then the others by name."""
    logged = {
        k for c in configurations for run in c.runs for entry in run.history for k in entry if k.startswith(PREFIX)
    }
    return [*(k for k in TELEMETRY if k in logged), *sorted(logged - set(TELEMETRY))]


def curve(configuration: Configuration, key: str) -> Curve | None:
    """At the moments when all seeds that log the number have logged it; None where there is none."""
    logged = [values_of_run for run in configuration.runs if (values_of_run := _logged(run, key))]
    if not logged:
        return None
    x = sorted(set(logged[0]).intersection(*logged))
    values = np.array([[values_of_run[at] for at in x] for values_of_run in logged])  # (seeds, T)
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(x), np.nan)
    return Curve(np.array(x), values.mean(axis=0), deviation) if x else None


_DEVIATION = "one standard deviation to either side"


@dataclass(frozen=True)
class _Curves:
    """One panel for each key, one line for each configuration."""

    configurations: Sequence[Configuration]
    keys: Sequence[str]
    labels: dict[str, str]
    scale: float
    unit: str | None  # of all panels, which then have the labels as titles

    def figure(self, folder: Path, name: str, title: str, caption: str) -> Figure:
        rows = -(-len(self.keys) // 2)
        shown = [(k, c) for k, c in enumerate(self.configurations) if any(curve(c, key) for key in self.keys)]
        described = f"{len(shown)} configurations in {len(self.keys)} panels; the last values are in the table below."
        size = (WIDTH, 0.5 + 2.2 * rows)
        return draw(folder, name, size, lambda figure: self._paint(figure, shown), title, caption, described)

    def _paint(self, figure: Any, shown: Sequence[tuple[int, Configuration]]) -> None:
        from matplotlib.ticker import MaxNLocator

        panels = grid_of_panels(figure, len(self.keys), 2, sharex=True)
        for axes, key in zip(panels, self.keys):
            for k, configuration in shown:
                line = curve(configuration, key)
                if line is not None:
                    self._line(axes, line, k)
            if self.unit is None:
                axes.set_ylabel(self._label(key))
            else:
                axes.set_title(self._label(key))
                axes.set_ylabel(self.unit)
            axes.tick_params(labelbottom=True)
            _widen(axes, 100 if self.scale == 100 else None)
        for axes in panels[-2:]:
            axes.set_xlabel(self._time())
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        legend_above(figure, [c.title for _, c in shown], [k for k, _ in shown])

    def _label(self, key: str) -> str:
        return "\n".join(map(figure_text, self.labels[key].split("\n")))

    def _line(self, axes: Any, line: Curve, position: int) -> None:
        style, mean, deviation = series_style(position), self.scale * line.mean, self.scale * line.deviation
        every = (position % 5, max(1, len(line.x) // 8)) if len(line.x) > 12 else None
        axes.plot(line.x, mean, **style.marked, markersize=4, markevery=every)
        if not np.isnan(deviation).all():
            axes.fill_between(line.x, mean - deviation, mean + deviation, color=style.colour, alpha=0.15, linewidth=0)

    def table(self, caption: str) -> Table:
        rows = []
        for configuration in self.configurations:
            curves = [curve(configuration, key) for key in self.keys]
            last = [line.x[-1] for line in curves if line is not None]
            if last:
                rows.append([configuration.title, f"{max(last):.4g}", *map(self._last, curves)])
        return Table(
            caption, ["configuration", self._time(), *(self.labels[k].replace("\n", " ") for k in self.keys)], rows
        )

    def _last(self, line: Curve | None) -> str:
        if line is None:
            return "-"
        mean, deviation = self.scale * line.mean[-1], self.scale * line.deviation[-1]
        if self.unit is not None:
            return mean_and_deviation(mean, deviation)
        return f"{mean:.3g}" if np.isnan(deviation) else f"{mean:.3g} ± {deviation:.1g}"

    def _time(self) -> str:
        entries = (entry for c in self.configurations for run in c.runs for entry in run.history)
        return "epoch" if any("epoch" in entry for entry in entries) else "training step"


def _widen(axes: Any, most: float | None) -> None:
    """Limits that show a constant as one, not the noise of its last digits, and no accuracy above 100 % or below 0."""
    low, high = axes.get_ylim()
    if high - low < 0.02 * abs(high + low) / 2:
        axes.set_ylim(0.9 * low, 1.1 * high)
    if most is not None:
        slack = max(0.0, (_NARROWEST * most - (high - low)) / 2)
        axes.set_ylim(max(low - slack, -0.02 * most), min(high + slack, 1.03 * most))
        percent_ticks(axes.yaxis)


def _logged(run: ReportedRun, key: str) -> dict[float, float]:
    """Epoch (or step) -> value."""
    moments = (entry for entry in run.history if key in entry and ("epoch" in entry or "step" in entry))
    return {entry["epoch" if "epoch" in entry else "step"]: entry[key] for entry in moments}


def _missing(configurations: Sequence[Configuration], keys: Sequence[str], what: str, **options: str) -> list[Missing]:
    without = [c for c in configurations if not any(curve(c, key) for key in keys)]
    return [
        Missing(f"{what} of {c.title}", training(c.runs[0], "with_curves", **options))
        for c in without
        if has_steps(c.runs[0])
    ]
