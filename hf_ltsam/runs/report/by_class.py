"""Precision, recall and F1, as means and class by class; of two classes the choice of a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.metrics.thresholds import ThresholdCurve, threshold_curve
from hf_ltsam.runs.report.by_frequency import class_names
from hf_ltsam.runs.report.configurations import Configuration, known_mean, samples_of_all, spread
from hf_ltsam.runs.report.content import Figure, Section, Table, mean_and_deviation, percent
from hf_ltsam.runs.report.drawing import WIDTH, draw, legend_above
from hf_ltsam.runs.report.saved_parts import TestResult
from hf_ltsam.runs.report.style import INK, series_style

TITLE = "Precision, recall and F1"
MEANS = {
    "macro_precision": "precision", "balanced": "recall", "macro_f1": "F1", "macro_auprc": "AUPRC", "worst": "worst class",
    "top5": "top 5",
}  # fmt: skip
COLUMNS = {"precision": "precision", "per_class": "recall", "f1": "F1", "auprc": "AUPRC"}
MOST = 50  # classes in a table: the rarest


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    scored = [c for c in configurations if any("macro_f1" in test.scores for test in c.tested)]
    curves = [(k, curve) for k, c in enumerate(configurations) if (curve := rarer_class_curve(c)) is not None]
    notes = [f"Not recorded by the release that trained it: {c.title}." for c in configurations if c not in scored]
    if not scored:
        return Section(TITLE, notes=notes)
    notes.insert(
        0,
        "Means are over classes, rare ones as much as frequent ones; recall is the accuracy of a class. AUPRC: average "
        "precision of a class against all others. The precision of a class that is never predicted is 0.",
    )
    figures = [_figure(configurations, curves, folder)] if curves else []
    tables = [_means(scored), *([_thresholds(configurations, curves)] if curves else []), *map(_classes, scored)]
    return Section(TITLE, figures, tables, notes=notes)


def rarer_class_curve(configuration: Configuration) -> ThresholdCurve | None:
    """Of the class with fewer training images, over the test images of all seeds; None where there are not two classes."""
    statistics = configuration.statistics
    predictions = [run.predictions for run in configuration.runs if run.predictions is not None]
    if statistics is None or statistics.num_classes != 2 or not predictions:
        return None
    rarer = int(np.argmin(statistics.counts))
    labels, predicted, confidence = (
        np.concatenate([getattr(p, name) for p in predictions]) for name in ("labels", "predicted", "confidence")
    )
    known = ~np.isnan(confidence)
    probabilities = np.where(predicted == rarer, confidence, 1 - confidence)[known].round(4)
    positive = labels[known] == rarer
    return threshold_curve(probabilities, positive) if 0 < positive.sum() < len(positive) else None


def _means(configurations: Sequence[Configuration]) -> Table:
    shown = [name for name in MEANS if any(name in test.scores for c in configurations for test in c.tested)]
    rows = [
        [c.title, *(mean_and_deviation(*spread(_values(c.tested, name)), 100) for name in shown)]
        for c in configurations
    ]
    caption = "Means over classes in %: mean ± standard deviation over seeds"
    return Table(caption, ["configuration", *(MEANS[name] for name in shown)], rows)


def _values(tests: Sequence[TestResult], name: str) -> list[float]:
    return [test.scores[name] for test in tests if name in test.scores]


def _classes(configuration: Configuration) -> Table:
    names, statistics = class_names(configuration), configuration.statistics
    counts = np.array(statistics.counts if statistics else [0] * len(names))
    tests = [test for test in configuration.tested if "macro_f1" in test.scores]
    shown = [name for name in COLUMNS if all(name in test.of_classes for test in tests)]
    columns = [known_mean(np.stack([test.of_classes[name] for test in tests])) for name in shown]
    order = np.argsort(counts, kind="stable")[:MOST]
    rows = [[names[c], f"{counts[c]:,}", *(percent(float(column[c])) for column in columns)] for c in order]
    which = "the rarest classes" if len(counts) > MOST else "every class"
    caption = f"{configuration.title}: {which}, the rarest first, in %, means over seeds"
    return Table(caption, ["class", f"training {configuration.samples}", *(COLUMNS[name] for name in shown)], rows)


def _thresholds(configurations: Sequence[Configuration], curves: Sequence[tuple[int, ThresholdCurve]]) -> Table:
    rows = []
    for k, curve in curves:
        for title, at in (("at 0.5", _at_half(curve)), ("largest F1", curve.best)):
            threshold = "0.5" if title == "at 0.5" else f"{curve.thresholds[at]:.4g}"
            numbers = (
                (curve.precision[at], curve.recall[at], curve.f1[at]) if at is not None else (float("nan"), 0.0, 0.0)
            )
            rows.append([f"{configurations[k].title}, {title}", threshold, *(percent(float(v)) for v in numbers)])
    caption = (
        "Thresholds of the rarer class's probability, chosen on these test "
        f"{samples_of_all(configurations)}: choose yours on others"
    )
    return Table(caption, ["configuration", "threshold", "precision (%)", "recall (%)", "F1 (%)"], rows)


def _at_half(curve: ThresholdCurve) -> int | None:
    """The place of the lowest threshold from 0.5 on; None where no image has so large a probability."""
    at = int(np.searchsorted(curve.thresholds, 0.5))
    return at if at < len(curve.thresholds) else None


def _figure(
    configurations: Sequence[Configuration], curves: Sequence[tuple[int, ThresholdCurve]], folder: Path
) -> Figure:
    best = "; ".join(
        f"{configurations[k].title} {curve.f1.max():.2f} at {curve.thresholds[curve.best]:.2f}" for k, curve in curves
    )
    return draw(
        folder, "thresholds", (WIDTH, 3.9), lambda figure: _paint(figure, configurations, curves), "Thresholds and costs",
        "Left: precision against recall of the rarer class over all thresholds (dots: 0.5). Right: the least expected cost "
        "at each share x of the rarer class in the costs, x = pi m / (pi m + (1 - pi) f) for its frequency pi, the cost m "
        "of missing one and f of a false alarm; dotted: the cheaper of taking all or none for it. All seeds together.",
        f"Largest F1 of the rarer class: {best}.",
    )  # fmt: skip


def _paint(figure: Any, configurations: Sequence[Configuration], curves: Sequence[tuple[int, ThresholdCurve]]) -> None:
    left, right = figure.subplots(1, 2)
    shares = np.linspace(0, 1, 201)
    for k, curve in curves:
        style = series_style(k)
        left.plot(100 * curve.recall, 100 * curve.precision, **style.line)
        if (at := _at_half(curve)) is not None:
            left.plot(100 * curve.recall[at], 100 * curve.precision[at], **style.mark)
        right.plot(shares, curve.costs(shares), **style.line)
    right.plot(shares, np.minimum(shares, 1 - shares), color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    left.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 102), ylim=(0, 102))
    right.set(
        xlabel="share of the rarer class in the costs", ylabel="normalised expected cost", xlim=(0, 1), ylim=(0, 0.52)
    )
    legend_above(figure, [configurations[k].title for k, _ in curves], [k for k, _ in curves], lambda style: style.line)
