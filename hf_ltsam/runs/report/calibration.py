"""Does a confidence of 80 % mean 80 % right? Reliability diagram and ECE, overall and by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.class_statistics import GROUPS
from hf_ltsam.metrics.reliability import ConfidenceBins, confidence_bins
from hf_ltsam.runs.report.by_group import NAMES
from hf_ltsam.runs.report.configurations import Configuration, samples_of_all, spread
from hf_ltsam.runs.report.confusion import predictions_missing
from hf_ltsam.runs.report.content import Figure, Section, Table, mean_and_deviation
from hf_ltsam.runs.report.drawing import WIDTH, draw, legend_above
from hf_ltsam.runs.report.reading import ReportedRun
from hf_ltsam.runs.report.saved_parts import all_groups
from hf_ltsam.runs.report.style import INK, series_style

TITLE = "Calibration"
SPLITS = {
    "test": "as trained",
    "balanced_prior": "classes equally frequent",
    "training_prior": "as frequent as in training",
}
ADJUSTED = (
    "p = softmax((z - tau log pi) / T), with pi the frequencies of the training set. tau (by accuracy) and the temperature "
    "T (by log-loss) were chosen on {held_out}, once for classes that are equally frequent and once for the frequencies of "
    "the training set; test {samples} of other frequencies are not what a row is for. Conformal sets: class by class; "
    "classes with too few of these {samples} are pooled. `ltsam predict` gives both."
)


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    predicted = [(k, c) for k, c in enumerate(configurations) if any(run.predictions is not None for run in c.runs)]
    missing = [predictions_missing(c) for k, c in enumerate(configurations) if k not in dict(predicted)]
    figures = [_figure(predicted, folder)] if predicted else []
    tables = [_table(configurations)] if any(c.tested for c in configurations) else []
    chosen = _chosen(configurations)
    return Section(
        TITLE, figures, [*tables, *chosen], notes=[_explained(configurations)] if chosen else [], missing=missing
    )


def _explained(configurations: Sequence[Configuration]) -> str:
    samples = samples_of_all(configurations)
    sources = dict.fromkeys(source for c in configurations for source in _sources(c))
    named = [f"held-out {samples} ({source})" for source in sources if source]
    reserve = [f"training {samples} that the training left out"] if "" in sources else []
    return ADJUSTED.format(held_out=" or ".join([*reserve, *named]), samples=samples)


def _sources(configuration: Configuration) -> list[str]:
    """What the calibrations of its runs were chosen on; empty: the reserve."""
    results = [run.metrics.record.results for run in configuration.runs if run.metrics is not None]
    return [result["conformal_sets"].get("source", "") for result in results if "conformal_sets" in result]


def _chosen(configurations: Sequence[Configuration]) -> list[Table]:
    """What was chosen on held-out samples, and what it makes of the test; none where no run has a calibration."""
    rows, covered = [], []
    for c in configurations:
        results = [run.metrics.record.results for run in c.runs if run.metrics is not None]
        results = [result for result in results if "conformal_sets" in result]
        if not results:
            continue
        for split, title in SPLITS.items():
            of_split = [result[split] for result in results]
            rows.append(
                [
                    f"{c.title}, {title}",
                    *(_mean(of_split, name, 100, 1) for name in ("overall", "balanced")),
                    *(_mean([r["groups"] for r in of_split], name, 100, 1) for name in GROUPS),
                    _mean(of_split, "ece", 100, 1),
                    *(_mean(of_split, name, 1, 2) for name in ("tau", "temperature")),
                ]
            )
        sets = [result["conformal_sets"] for result in results]
        of_groups = (_mean([r["groups"] for r in sets], name, 100, 1) for name in GROUPS)
        numbers = (_mean(sets, "level", 100, 0), _mean(sets, "coverage", 100, 1), *of_groups, _mean(sets, "size", 1, 2))
        covered.append([c.title, *numbers, _mean(sets, "pooled", 1, 0)])
    if not rows:
        return []
    columns = ["configuration", "overall", "all classes", *GROUPS, "ECE", "tau", "T"]
    samples = samples_of_all(configurations)
    adjusted = Table(f"As trained, and as its calibration makes it: test {samples}, in %", columns, rows)
    columns = ["configuration", "promised", "all classes", *GROUPS, "classes in a set", "classes pooled"]
    return [adjusted, Table(f"Test {samples} whose conformal set holds their class, in %", columns, covered)]


def _mean(results: Sequence[Mapping[str, Any]], name: str, scale: float, digits: int) -> str:
    values = [result[name] for result in results if result.get(name) is not None]
    return mean_and_deviation(*spread(values), scale, digits)


def bins_of(configuration: Configuration) -> ConfidenceBins:
    """Over the test images of all seeds; images without a confidence (NaN logits) are left out."""
    predictions = [run.predictions for run in configuration.runs if run.predictions is not None]
    confidence, right = (
        np.concatenate([p.confidence for p in predictions]),
        np.concatenate([p.right for p in predictions]),
    )
    finite = ~np.isnan(confidence)
    return confidence_bins(confidence[finite], right[finite])


def group_gaps(run: ReportedRun) -> Mapping[str, float]:
    """ECE of the test images of each group of classes."""
    if run.metrics is None or run.predictions is None:
        return {}
    predictions, gaps = run.predictions, {}
    for name, classes in all_groups(run.metrics.statistics).items():
        rows = np.isin(predictions.labels, classes) & ~np.isnan(predictions.confidence)
        gaps[name] = confidence_bins(predictions.confidence[rows], predictions.right[rows]).error
    return gaps


def _table(configurations: Sequence[Configuration]) -> Table:
    gaps = {id(c): [eces for run in c.runs if (eces := group_gaps(run))] for c in configurations}
    groups = [name for name in NAMES if any(name in eces for by_run in gaps.values() for eces in by_run)]
    rows = [
        [
            c.title,
            mean_and_deviation(*spread(test.ece for test in c.tested), 100),
            *(mean_and_deviation(*spread(eces[g] for eces in gaps[id(c)] if g in eces), 100) for g in groups),
        ]
        for c in configurations
    ]
    caption = "Expected calibration error in % (15 bins; lower is better): mean ± standard deviation over seeds"
    return Table(
        caption,
        ["configuration", f"all test {samples_of_all(configurations)}", *(f"those of {g} classes" for g in groups)],
        rows,
    )


def _figure(predicted: Sequence[tuple[int, Configuration]], folder: Path) -> Figure:
    samples = samples_of_all(c for _, c in predicted)
    errors = ", ".join(f"{c.title} {100 * bins_of(c).error:.1f} %" for _, c in predicted)
    return draw(
        folder, "calibration", (WIDTH, 4.3), lambda figure: _paint(figure, predicted), "Reliability diagram",
        f"Accuracy of the test {samples} whose confidence falls into a bin, against their mean confidence (15 bins, all "
        f"seeds together; bins of fewer than 10 are left out); below, how many {samples} are in each bin. Below the "
        "diagonal: overconfident.",
        f"Calibration error of all seeds together: {errors}.",
    )  # fmt: skip


def _paint(figure: Any, predicted: Sequence[tuple[int, Configuration]]) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    for k, configuration in predicted:
        style, bins = series_style(k), bins_of(configuration)
        shown = bins.samples >= 10
        samples = bins.samples[shown] / 100
        upper.plot(bins.confidence[shown] / samples, bins.right[shown] / samples, **style.marked)
        edges, shares = np.linspace(0, 100, len(bins.samples) + 1), 100 * bins.samples / max(bins.samples.sum(), 1)
        lower.stairs(shares, edges, color=style.colour, linestyle=style.dashes, linewidth=1.3)
    upper.set_ylabel("accuracy (%)")
    upper.set_ylim(0, 103)
    lower.set_ylabel(f"{samples_of_all(c for _, c in predicted)} (%)")
    lower.set_xlabel("confidence, the largest probability (%)")
    lower.set_xlim(0, 101)
    legend_above(figure, [c.title for _, c in predicted], [k for k, _ in predicted])
