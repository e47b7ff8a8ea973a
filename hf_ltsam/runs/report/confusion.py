"""Which classes are taken for which: the confusion matrix among the most confused classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from hf_ltsam.runs.escaping import figure_text, visible
from hf_ltsam.runs.report.by_frequency import class_names
from hf_ltsam.runs.report.configurations import Configuration, known_mean, samples_of_all
from hf_ltsam.runs.report.content import Figure, Missing, Section, Table, percent
from hf_ltsam.runs.report.drawing import WIDTH, draw, grid_of_panels
from hf_ltsam.runs.report.reading import completion
from hf_ltsam.runs.report.saved_parts import Floats
from hf_ltsam.runs.report.style import DARK_FROM, GRID, INK, ON_DARK, shades

TITLE = "Confusion"
MOST = 10  # classes in a matrix
PAIRS = 10  # confusions in the table


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    predicted = [c for c in configurations if any(run.predictions is not None for run in c.runs)]
    missing = [predictions_missing(c) for c in configurations if c not in predicted]
    if not predicted:
        return Section(TITLE, missing=missing)
    names = class_names(predicted[0])
    comparable = [c for c in predicted if class_names(c) == names]
    shares = [confusion_shares(c) for c in comparable]
    left_out = [c.title for c in predicted if c not in comparable]
    notes = [f"Other classes, so not shown here: {', '.join(left_out)}."] if left_out else []
    mean = known_mean(np.stack(shares))
    classes = by_frequency(most_confused(mean), comparable[0])
    return Section(
        TITLE, [_figure(comparable, shares, classes, names, folder)], [_table(comparable, shares, mean, names)],
        notes=notes, missing=missing,
    )  # fmt: skip


def predictions_missing(configuration: Configuration) -> Missing:
    return Missing(f"Predictions of {configuration.title} (predictions.json)", completion(configuration.runs[0]))


def confusion_shares(configuration: Configuration) -> Floats:
    """Share of the images of class c (rows) that are taken for class p (C, C), over all seeds; NaN without images."""
    predictions = [run.predictions for run in configuration.runs if run.predictions is not None]
    C = len(predictions[0].class_names)
    counts = np.zeros(C * C)
    for p in predictions:
        valid = p.predicted >= 0
        counts += np.bincount(p.labels[valid] * C + p.predicted[valid], minlength=C * C)
    images = np.bincount(np.concatenate([p.labels for p in predictions]), minlength=C)
    matrix = counts.reshape(C, C)
    return np.divide(matrix, images[:, None], out=np.full((C, C), np.nan), where=images[:, None] > 0)


def top_confusions(shares: Floats, number: int) -> list[tuple[int, int]]:
    """Pairs (true, predicted) of different classes, the largest share first; pairs that never happen are left out."""
    off = np.nan_to_num(shares.copy())
    np.fill_diagonal(off, 0)
    number = min(number, int((off > 0).sum()))
    flat = np.argsort(-off, axis=None, kind="stable")[:number]
    rows, columns = np.unravel_index(flat, off.shape)
    return list(zip(rows.tolist(), columns.tolist()))


def most_confused(shares: Floats) -> list[int]:
    """Classes of the largest confusions; all classes where there are few."""
    if len(shares) <= MOST:
        return list(range(len(shares)))
    chosen: dict[int, None] = {}
    for pair in top_confusions(shares, MOST * MOST):
        if len(chosen | dict.fromkeys(pair)) > MOST:
            break
        chosen |= dict.fromkeys(pair)
    return list(chosen)


def by_frequency(classes: Sequence[int], configuration: Configuration) -> list[int]:
    """The most frequent first, where frequencies are known."""
    if configuration.statistics is None:
        return sorted(classes)
    counts = configuration.statistics.counts
    return sorted(classes, key=lambda c: (-counts[c], c))


def _figure(
    configurations: Sequence[Configuration],
    shares: Sequence[Floats],
    classes: Sequence[int],
    names: Sequence[str],
    folder: Path,
) -> Figure:
    columns = 2 if len(configurations) == 4 else min(len(configurations), 3)
    rows = -(-len(configurations) // columns)
    width = min(WIDTH, 1.4 + 3.1 * columns)
    size = (width, 0.75 + ((width - 1.3) / columns + 0.15) * rows)
    (true, taken), *_ = [*top_confusions(known_mean(np.stack(shares)), 1), (0, 0)]
    which = "all classes" if len(classes) == len(names) else f"the {len(classes)} most confused classes"
    return draw(
        folder,
        "confusion",
        size,
        lambda figure: _paint(figure, configurations, shares, classes, names, columns),
        f"Confusion among {which}",
        f"Share of the test {samples_of_all(configurations)} of a class (row) that are taken for a class (column), in %, "
        f"among {which}, over all seeds; the most frequent class first. On the diagonal: recognized.",
        f"The largest confusion: {names[true]} taken for {names[taken]}. The largest ones are in the table below.",
    )


def _paint(
    figure: Any,
    configurations: Sequence[Configuration],
    shares: Sequence[Floats],
    classes: Sequence[int],
    names: Sequence[str],
    columns: int,
) -> None:
    panels = grid_of_panels(figure, len(configurations), columns)
    ticks = [figure_text(_shortened(visible(names[c]))) for c in classes]
    rotation = 0 if max(map(len, ticks)) <= 2 else 90
    for place, (axes, c, share) in enumerate(zip(panels, configurations, shares)):
        values = 100 * share[np.ix_(classes, classes)]
        image = axes.imshow(values, cmap=shades(), vmin=0, vmax=100, interpolation="nearest")
        for (row, column), value in np.ndenumerate(values):
            if value > 0.5:
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6.5,
                          color=ON_DARK if value > DARK_FROM else INK)  # fmt: skip
        lowest = place + columns >= len(panels)  # of its column
        axes.set_xticks(range(len(ticks)), ticks if lowest else [""] * len(ticks), rotation=rotation, fontsize=7.5)
        axes.set_yticks(range(len(ticks)), ticks if place % columns == 0 else [""] * len(ticks), fontsize=7.5)
        axes.tick_params(length=0)
        axes.spines[:].set(visible=True, color=GRID)
        axes.grid(visible=False)
        axes.set_title("\n".join(map(figure_text, wrap(visible(c.title), 30))))
    figure.supxlabel("taken for class", fontsize=9)
    figure.supylabel("true class", fontsize=9)
    figure.colorbar(image, ax=panels, label="share of the class (%)", shrink=0.8, aspect=30)


def _table(
    configurations: Sequence[Configuration], shares: Sequence[Floats], mean: Floats, names: Sequence[str]
) -> Table:
    rows = [
        [f"{names[true]} taken for {names[taken]}", *(percent(float(share[true, taken])) for share in shares)]
        for true, taken in top_confusions(mean, PAIRS)
    ]
    samples = samples_of_all(configurations)
    largest = f"{len(rows)} largest confusions" if len(rows) != 1 else "only confusion"
    caption = f"The {largest}, in % of the test {samples} of the true class"
    return Table(caption, ["confusion", *(c.title for c in configurations)], rows)


def _shortened(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:7]}…{name[-6:]}"
