"""What a search has found: a table, a figure of the metric against every parameter, and a recipe with the best values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from hf_ltsam.cli.tune.reserve import Reserve
from hf_ltsam.cli.tune.space import Parameter, laid_over
from hf_ltsam.cli.tune.study import BEST, Ended, Study
from hf_ltsam.cli.tune.trial import METRICS
from hf_ltsam.runs.escaping import figure_text, markdown_code, markdown_text
from hf_ltsam.runs.files import plain, write_json, write_whole
from hf_ltsam.runs.record import at_chance, samples_of
from hf_ltsam.runs.report.configurations import title
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels, legend_above
from hf_ltsam.runs.report.style import INK, series_style

FIGURE = "tune"
_MARK = {"color": INK, "linestyle": "none", "marker": "o"}
LEGEND: dict[str, dict[str, Any]] = {
    "complete": _MARK,
    "stopped early": {**_MARK, "markerfacecolor": "none"},
    "the best": {**_MARK, "markersize": 11, "markerfacecolor": "none"},
}
COLUMNS = ("recipe", "training", "trials", "pruned", "failed", "best values", *METRICS)


def write_results(root: Path, studies: Sequence[Study], reserve: Reserve | None = None) -> None:
    """`tune.md` to read, `tune.json` for programs, and a recipe for every study with a complete trial; whole at any time.

    Args:
        root: folder of the studies.
        reserve: in words in the table; None: it has not been loaded.
    """
    ended = [study.ended() for study in studies]
    rows = [_row(study, trials) for study, trials in zip(studies, ended)]
    facts = {"reserve": None if reserve is None else str(reserve)}
    studied = [{"plan": asdict(s.plan), "trials": [asdict(t) for t in trials]} for s, trials in zip(studies, ended)]
    write_json(root / "tune.json", {**facts, "studies": studied})
    figure = (
        [f"![{_metric(studies)} against each parameter]({FIGURE}.png)", ""]
        if draw_results(root, studies, ended)
        else []
    )
    write_whole(
        root / "tune.md", "\n".join([*_markdown(studies, ended, rows, reserve), *figure, *_all(studies, ended)]) + "\n"
    )
    for study in studies:
        write_best(study)


def write_best(study: Study) -> Path | None:
    """The recipe with the values of the best trial, as `ltsam train --config` takes it; None without a complete trial."""
    best, plan = study.best, study.plan
    if best is None:
        return None
    origin = (
        f"{plan.metric} accuracy {_percent(best.accuracies[plan.metric])} % on {100 * plan.reserve:g} % of the training "
        f"samples, best of {len(study.ended())} trials"
    )
    values = {p: {"value": best.values[p.name], "ours": f"{origin}; {p}"} for p in plan.parameters}
    settings = laid_over(plain(plan.settings), values)
    settings.pop("output_dir", None)  # the search's
    head = f"# Chosen by `ltsam tune`. Trains on all training samples: ltsam train --config {BEST}\n"
    return write_whole(study.folder / BEST, head + yaml.safe_dump(settings, sort_keys=False, width=120))


def shown(study: Study, number: int) -> str:
    """A trial that has ended, in a line."""
    trial = next(trial for trial in study.ended() if trial.number == number)
    values = _values(trial.values)
    accuracy = trial.accuracies.get(study.plan.metric)
    reached = {
        "complete": f"{study.plan.metric} {_percent(accuracy)} %",
        "pruned": trial.reason or f"stopped early at {study.plan.metric} {_percent(accuracy)} %",
        "failed": f"failed: {trial.reason}",
    }[trial.state]
    best = study.best
    so_far = f", best of the complete ones {_percent(best.accuracies[study.plan.metric])} %" if best is not None else ""
    return f"{study.plan.name} trial {number} ({_done(study, study.ended())}): {values}: {reached}{so_far}"


def remarks(study: Study, reserve: Reserve) -> list[str]:
    """What says that the best trial has learned nothing."""
    if study.best is None:
        return []
    kind, present = samples_of(reserve.splits.task), len(reserve.splits.class_names) - len(reserve.unmeasured)
    at = at_chance(study.best.accuracies.get("balanced"), 1 / present, len(reserve.splits.test), f"reserved {kind}")
    return [f"{study.plan.name}, best trial {study.best.number}: {remark}" for remark in at]


def draw_results(root: Path, studies: Sequence[Study], ended: Sequence[Sequence[Ended]]) -> bool:
    """A panel for every parameter of every study; whether there was anything to draw."""
    panels = [(k, parameter) for k, study in enumerate(studies) for parameter in study.plan.parameters]
    if not any(trial.accuracies for trials in ended for trial in trials):
        return False
    columns = min(len(panels), 3)

    def paint(figure: Any) -> None:
        for (k, parameter), axes in zip(panels, grid_of_panels(figure, len(panels), columns)):
            _panel(axes, k, parameter, studies[k], ended[k])
        legend_above(figure, [], [], more=LEGEND)

    height = 0.3 + 2.6 * -(-len(panels) // columns)
    metric = _metric(studies)
    caption = (
        f"{metric} on the reserve in %, one mark for each trial; hollow: stopped, at its last value; ring: the best."
    )
    draw(root, FIGURE, (WIDTH, height), paint, f"{metric} against the parameters", caption, caption)
    return True


def _panel(axes: Any, position: int, parameter: Parameter, study: Study, trials: Sequence[Ended]) -> None:
    style, metric, best = series_style(position), study.plan.metric, study.best
    places = {str(choice): float(k) for k, choice in enumerate(parameter.choices)}

    def place(trial: Ended) -> float:
        value = trial.values[parameter.name]
        return float(value) if parameter.is_range else places[str(value)]

    for state, fill in (("complete", style.colour), ("pruned", "none")):
        of_state = [t for t in trials if t.state == state and metric in t.accuracies]
        percent = [100 * t.accuracies[metric] for t in of_state]
        axes.plot([place(t) for t in of_state], percent, **style.mark, markerfacecolor=fill, label=state)
    if best is not None:
        axes.plot([place(best)], [100 * best.accuracies[metric]], **{**LEGEND["the best"], "color": style.colour})
    if parameter.log:
        axes.set_xscale("log")
    if not parameter.is_range:
        axes.set_xticks(list(places.values()), list(map(figure_text, places)))
    axes.set_title(figure_text(study.plan.name), loc="left")
    axes.set_xlabel(figure_text(parameter.name))
    axes.set_ylabel(f"{metric} accuracy in %")


def _asked(study: Study, trials: Sequence[Ended]) -> int:
    """How many trials a study is to have: a later command may ask for fewer than there are."""
    return max(study.plan.trials, len(trials))


def _done(study: Study, trials: Sequence[Ended]) -> str:
    return f"{len(trials)} of {_asked(study, trials)}"


def _row(study: Study, trials: Sequence[Ended]) -> list[str]:
    best = study.best
    states = [trial.state for trial in trials]
    reached = {} if best is None else best.accuracies
    numbers = [_percent(reached.get(name)) for name in METRICS]
    method = markdown_text(title(study.plan.first))
    values = "-" if best is None else _values(best.values)
    counts = [_done(study, trials), str(states.count("pruned")), str(states.count("failed"))]
    return [markdown_code(study.plan.name, cell=True), method, *counts, markdown_text(values), *numbers]


def _markdown(
    studies: Sequence[Study], ended: Sequence[Sequence[Ended]], rows: Sequence[Sequence[str]], reserve: Reserve | None
) -> list[str]:
    plan = studies[0].plan
    numbers = {_asked(study, trials) for study, trials in zip(studies, ended)}
    of_each = (
        f"{min(numbers)} trials of each recipe" if len(numbers) == 1 else "several trials, not as many of each recipe"
    )
    lines = [f"# Settings chosen by {plan.metric} accuracy", ""]
    lines += [
        f"Accuracy in % on {reserve or 'reserved training samples'} ({100 * plan.reserve:g} % of every class), of the best "
        f"of {of_each}. It is the highest of several, so a test set will show less; "
        f"`ltsam train --config RECIPE/{BEST}` trains on all training samples and tests.",
        "",
    ]
    lines += [
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    searched = dict.fromkeys(str(parameter) for study in studies for parameter in study.plan.parameters)
    return [*lines, f"Searched: {markdown_text('; '.join(searched))}.", ""]


def _all(studies: Sequence[Study], ended: Sequence[Sequence[Ended]]) -> list[str]:
    lines: list[str] = []
    for study, trials in zip(studies, ended):
        names = [parameter.name for parameter in study.plan.parameters]
        head = ["trial", *names, "", study.plan.metric, "seconds"]
        lines += [f"## {markdown_text(study.plan.name)}", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for trial in trials:
            seconds = "-" if trial.seconds is None else f"{trial.seconds:.0f}"
            what = trial.reason.splitlines()[0] if trial.reason else trial.state
            values = [markdown_text(_value(trial.values.get(name, "-"))) for name in names]
            accuracy = _percent(trial.accuracies.get(study.plan.metric))
            lines.append(f"| {' | '.join([str(trial.number), *values, markdown_text(what), accuracy, seconds])} |")
        lines.append("")
    return lines


def _metric(studies: Sequence[Study]) -> str:
    return f"{studies[0].plan.metric} accuracy".capitalize()


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.2f}"
