"""Other test sets and corruptions, as `ltsam evaluate` measured them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.class_statistics import GROUPS
from hf_ltsam.runs.escaping import figure_text, figure_texts, file_name
from hf_ltsam.runs.report.configurations import Configuration, known_mean, samples_of_all, spread
from hf_ltsam.runs.report.content import Figure, Missing, Section, Table, mean_and_deviation, percent
from hf_ltsam.runs.report.drawing import WIDTH, draw
from hf_ltsam.runs.report.reading import ReportedRun, corruptions
from hf_ltsam.runs.report.saved_parts import Floats, ShiftedSet
from hf_ltsam.runs.report.style import DARK_FROM, INK, ON_DARK, shades
from hf_ltsam.runs.shift.report import short
from hf_ltsam.runs.shift.results import other_images

TITLE = "Under shift and corruption"
_SOME_SHARED = (
    "{}, {}: the corruptions or severities of its runs differ; its numbers are over those that all of them share."
)
_NONE_SHARED = (
    "{}, {}: its runs were tested, but share no corruption and severity, so there is no mean over them. Evaluate them with "
    "the same --corruptions and --severities."
)
_DIFFERENT_MEANS = "{}: tested under different corruptions or severities, so mean errors do not compare: {}."


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    figures, tables, notes = [], [], _remarks(configurations)
    corrupted = _names(configurations, corrupted=True)
    missing = [
        _missing(c) for c in configurations if c.samples == "images" and not any(_sets(c, name) for name in corrupted)
    ]
    for name in corrupted:
        notes += _about_cells(configurations, name)
        configurations = [of_shared_cells(c, name) for c in configurations]
    plain = _names(configurations, corrupted=False)
    if plain:
        tables.append(_accuracies(configurations, plain))
    for name in _names(configurations, corrupted=True):
        rows, columns, errors = error_map(configurations, name)
        figures.append(_figure(name, rows, columns, errors, configurations, folder))
        tables.append(_errors(name, rows, columns, errors))
        tables.append(_means(configurations, name))
    return Section(TITLE, figures, tables, notes=notes, missing=missing)


def _remarks(configurations: Sequence[Configuration]) -> list[str]:
    """What the evaluations note, once for the seeds that share it."""
    sets = [(c.title, name, s) for c in configurations for run in c.runs for name, s in run.shifted.items()]
    remarks = [f"{short(name)}, {title}: {s.remarks}." for title, name, s in sets if s.remarks]
    first = {name: s for _, name, s in reversed(sets)}
    remarks += [
        f"{short(name)}: runs were tested {difference}, so their numbers do not compare."
        for _, name, s in sets
        if (difference := _difference(s, first[name]))
    ]
    return list(dict.fromkeys(remarks))


def _difference(one: ShiftedSet, other: ShiftedSet) -> str:
    """How two runs were tested on the same set, in words; empty where it was alike, as far as the results say."""
    shared = [(result, other.results[cell]) for cell, result in one.results.items() if cell in other.results]
    views = [[result.get("identity", {}).get("test_time") for result in pair] for pair in shared]
    known = [pair for pair in views if None not in pair]  # older results do not say it
    differing = [f"with other views (--test_time {that} and {this})" for this, that in known if this != that]
    return next(iter([*differing, *filter(None, (other_images(*pair) for pair in shared))]), "")


def _shared_cells(configuration: Configuration, name: str) -> frozenset[Any]:
    """The corruptions and severities that all its runs were tested under, as far as they were tested on the set."""
    of_runs = [frozenset(filter(None, of_set.results)) for of_set in _sets(configuration, name)]
    return frozenset.intersection(*of_runs) if of_runs else frozenset()


def of_shared_cells(configuration: Configuration, name: str) -> Configuration:
    """Its runs with the corruptions and severities that all of them were tested under."""
    shared = _shared_cells(configuration, name)
    return replace(configuration, runs=tuple(_only(run, name, shared) for run in configuration.runs))


def _about_cells(configurations: Sequence[Configuration], name: str) -> list[str]:
    """Where runs were tested under different corruptions or severities, in words."""
    notes: list[str] = []
    alike: dict[frozenset[Any], list[str]] = {}
    for c in configurations:
        shared = _shared_cells(c, name)
        if any(set(of_set.results) != shared for of_set in _sets(c, name)):
            notes.append((_SOME_SHARED if shared else _NONE_SHARED).format(short(name), c.title))
        if shared:
            alike.setdefault(shared, []).append(c.title)
    if len(alike) > 1:
        notes.append(_DIFFERENT_MEANS.format(short(name), " against ".join(map(" and ".join, alike.values()))))
    return notes


def _only(run: ReportedRun, name: str, cells: frozenset[Any]) -> ReportedRun:
    """A run that has none of them is as one that was not tested."""
    kept = {other: s.only(cells) if other == name else s for other, s in run.shifted.items() if other != name or cells}
    return replace(run, shifted=kept)


def error_map(configurations: Sequence[Configuration], name: str) -> tuple[list[str], list[str], Floats]:
    """Mean errors over seeds: corruptions x configurations, or x severities where there is one configuration.

    Returns:
        Corruptions, column titles, errors (rows, columns), NaN where one is missing; the last row has means of those that
        are there.
    """
    tested = [c for c in configurations if _sets(c, name)]
    corruptions = list(dict.fromkeys(row for c in tested for of_set in _sets(c, name) for row in of_set.errors))
    if len(tested) == 1:
        severities = sorted({s for of_set in _sets(tested[0], name) for row in of_set.errors.values() for s in row})
        columns = [f"severity {s}" for s in severities]
        cells = [[_mean_error(tested[0], name, row, (s,)) for s in severities] for row in corruptions]
    else:
        columns = [c.title for c in tested]
        cells = [[_mean_error(c, name, row) for c in tested] for row in corruptions]
    errors = np.array(cells, dtype=np.float64)
    return [*corruptions, "mean"], columns, np.vstack([errors, known_mean(errors)])


def _mean_error(configuration: Configuration, name: str, corruption: str, severities: Sequence[int] = ()) -> float:
    """Over seeds and severities; all of them where none is named."""
    errors = [
        error
        for of_set in _sets(configuration, name)
        for severity, error in of_set.errors.get(corruption, {}).items()
        if not severities or severity in severities
    ]
    return float(np.mean(errors)) if errors else float("nan")


def _sets(configuration: Configuration, name: str) -> list[ShiftedSet]:
    return [run.shifted[name] for run in configuration.runs if name in run.shifted]


def _names(configurations: Sequence[Configuration], corrupted: bool) -> list[str]:
    sets = ((name, s) for c in configurations for run in c.runs for name, s in run.shifted.items())
    return list(dict.fromkeys(name for name, of_set in sets if bool(of_set.errors) == corrupted))


def _accuracies(configurations: Sequence[Configuration], names: Sequence[str]) -> Table:
    rows = [
        [f"{short(name)}, {c.title}", f"{sets[0].samples:,}", *(_spread(sets, group) for group in ("overall", *GROUPS))]
        for name in names for c in configurations if (sets := _sets(c, name))
    ]  # fmt: skip
    columns = ["test set, configuration", samples_of_all(configurations), "overall", *GROUPS]
    return Table("Accuracy on other test sets in %: mean ± standard deviation over seeds", columns, rows)


def _spread(sets: Sequence[ShiftedSet], group: str) -> str:
    return mean_and_deviation(*spread(s.accuracy[group] for s in sets if group in s.accuracy), 100)


def _means(configurations: Sequence[Configuration], name: str) -> Table:
    rows = []
    for c in configurations:
        if sets := _sets(c, name):
            error = mean_and_deviation(*spread(1 - s.accuracy["overall"] for s in sets), 100)
            severities = sorted({s for of_set in sets for row in of_set.errors.values() for s in row})
            of_groups = (_spread(sets, group) for group in GROUPS)
            rows.append([c.title, f"{len(sets)}", ", ".join(map(str, severities)), error, _mce(sets), *of_groups])
    columns = ["configuration", "runs", "severities", "mean error", "mCE", *(f"accuracy, {g}" for g in GROUPS)]
    return Table(f"{short(name)}: means over all corruptions, in %, ± standard deviation over seeds", columns, rows)


def _mce(sets: Sequence[ShiftedSet]) -> str:
    """With what it is relative to; a dash where a run has none, or one relative to another model: no mean is of all runs."""
    if any(s.mce != s.mce for s in sets):
        return "-"
    models = list(dict.fromkeys(s.relative_to for s in sets))
    relative = f" (relative to {', '.join(models)})" if any(models) else ""
    return mean_and_deviation(*spread(s.mce for s in sets if len(models) == 1)) + relative


def _errors(name: str, rows: Sequence[str], columns: Sequence[str], errors: Floats) -> Table:
    cells = [[row.replace("_", " "), *map(percent, values)] for row, values in zip(rows, errors)]
    return Table(f"{short(name)}: error under each corruption in %, means over seeds", ["corruption", *columns], cells)


def _figure(
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    errors: Floats,
    configurations: Sequence[Configuration],
    folder: Path,
) -> Figure:
    worst = rows[int(np.nanargmax(known_mean(errors[:-1], axis=1)))]
    file = f"corruptions_{file_name(name, 60)}"
    over = "by severity" if columns[0].startswith("severity ") else "means over severities and seeds"
    return draw(
        folder, file, (min(WIDTH, 2.9 + 1.15 * len(columns)), 1.5 + 0.24 * len(rows)),
        lambda figure: _paint(figure, rows, columns, 100 * errors),
        f"Error under corruption on {short(name)}",
        f"{short(name)}: error under each corruption in %, {over} (lower is better).",
        f"The largest error is under {worst.replace('_', ' ')}. All numbers are in the tables below.",
    )  # fmt: skip


def _paint(figure: Any, rows: Sequence[str], columns: Sequence[str], errors: Floats) -> None:
    axes = figure.subplots()
    image = axes.imshow(errors, cmap=shades(), vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    for (row, column), error in np.ndenumerate(errors):
        if error == error:
            weight = "bold" if row == len(rows) - 1 else "normal"
            axes.text(column, row, f"{error:.1f}", ha="center", va="center", fontsize=8, fontweight=weight,
                      color=ON_DARK if error > DARK_FROM else INK)  # fmt: skip
    axes.axhline(len(rows) - 1.5, color=INK, linewidth=0.8)
    shown = figure_texts(columns)
    long = max(map(len, shown)) * len(shown) > 60
    axes.set_xticks(range(len(columns)), shown, rotation=30 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(rows)), [figure_text(row.replace("_", " ")) for row in rows])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="error (%)", aspect=30)


def _missing(configuration: Configuration) -> Missing:
    return Missing(f"Errors under corruption of {configuration.title}", corruptions(configuration.runs[0]))
