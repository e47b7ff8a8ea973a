"""Tables and heat maps of an evaluation, from its JSON file alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.class_statistics import GROUPS, ClassStatistics
from hf_ltsam.runs.class_frequencies import describe_groups
from hf_ltsam.runs.escaping import figure_text, file_name, markdown_table, markdown_text
from hf_ltsam.runs.files import write_whole
from hf_ltsam.runs.folder import EVALUATION_PAGE
from hf_ltsam.runs.record import samples_of
from hf_ltsam.runs.report.style import DARK_FROM, INK, ON_DARK, fonts_of_all_scripts, shades
from hf_ltsam.runs.shift.results import SCORES, measurements, percent, remarks, spread_of


def markdown(results: Mapping[str, Any]) -> str:
    """Everything as a Markdown page.

    Args:
        results: as `Results.to_dict` gives them.
    """
    checkpoint, samples = results["checkpoint"], samples_of(results["checkpoint"].get("task"))
    lines = [
        f"# {markdown_text(checkpoint['name'])} on other test sets",
        "",
        f"Weights `{checkpoint['fingerprint'][:12]}`, {checkpoint['num_classes']} classes. Accuracies and errors in %.",
        _about_groups(results["class_statistics"], samples),
        "",
    ]
    plain = {name: of_set["result"] for name, of_set in results["sets"].items() if "result" in of_set}
    corrupted = {name: of_set for name, of_set in results["sets"].items() if "summary" in of_set}
    if plain:
        lines += [_accuracy_table(plain, samples), ""]
    for name, of_set in corrupted.items():
        lines += [f"## {markdown_text(name)}", "", _corruption_table(of_set), "", *_corruption_notes(of_set), ""]
    return "\n".join(lines)


def write_report(folder: Path, results: Mapping[str, Any]) -> list[Path]:
    """Write the page, and a heat map for every set of corruptions, into a folder.

    Returns:
        The files.
    """
    page = write_whole(folder / EVALUATION_PAGE, markdown(results))
    corrupted = {name: of_set for name, of_set in results["sets"].items() if "summary" in of_set}
    maps = [
        save_heat_map(folder / f"heat_map_{file_name(name)}.png", name, of_set) for name, of_set in corrupted.items()
    ]
    return [page, *maps]


@fonts_of_all_scripts()
def save_heat_map(path: Path, name: str, of_set: Mapping[str, Any]) -> Path:
    """Error of every corruption at every severity, and their mean, as a PNG.

    Args:
        of_set: an entry of `sets` with `cells` and `summary`.
    """
    from matplotlib.figure import Figure

    summary = of_set["summary"]
    corruptions, severities = list(summary["errors"]), summary["severities"]
    errors = 100 * np.array([[_error(of_set, c, s) for s in severities] for c in corruptions])  # (rows, S)
    shown = np.column_stack([errors, errors.mean(axis=1)])
    size = (max(2.6 + 0.75 * shown.shape[1], 5.5), 1.2 + 0.36 * len(corruptions))  # inches
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shown, cmap=shades(), vmin=0, vmax=100, aspect="auto")
    for (row, column), error in np.ndenumerate(shown):
        colour = ON_DARK if error > DARK_FROM else INK
        weight = "bold" if column == len(severities) else "normal"
        axes.text(column, row, f"{error:.1f}", ha="center", va="center", color=colour, fontsize=9, fontweight=weight)
    axes.axvline(len(severities) - 0.5, color="white", linewidth=3)
    axes.set_xticks(range(shown.shape[1]), [*map(str, severities), "mean"])
    axes.set_yticks(range(len(corruptions)), [figure_text(c.replace("_", " ")) for c in corruptions])
    axes.set_xlabel("severity")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="error (%)", shrink=0.9)
    mce = summary.get("mce")
    beside = f", mCE {mce:.1f}" if mce is not None else ""
    axes.set_title(
        f"{figure_text(short(name))}: mean error {100 * summary['mean_error']:.1f} %{beside}", fontsize=11, loc="left"
    )
    figure.savefig(path, dpi=150)
    return path


def short(name: str) -> str:
    """The end of a long path."""
    return name if len(name) <= 40 else "..." + name[-37:]


def _accuracy_table(results: Mapping[str, Mapping[str, Any]], samples: str) -> str:
    rows = [
        [
            markdown_text(name),
            f"{r['samples']:,}",
            percent(r["overall"]),
            percent(r["balanced"]),
            *_of_groups(r["groups"]),
            *(percent(r.get(score)) for score in SCORES),
            _remark({"result": r}),
        ]
        for name, r in results.items()
    ]
    return markdown_table(["set", samples, "overall", "balanced", *GROUPS, *SCORES.values(), "remarks"], rows)


def _corruption_table(of_set: Mapping[str, Any]) -> str:
    summary = of_set["summary"]
    relative = "ce" in summary
    rows = [
        [
            markdown_text(corruption.replace("_", " ")),
            *(percent(_error(of_set, corruption, severity)) for severity in summary["severities"]),
            percent(mean),
            *([f"{summary['ce'][corruption]:.1f}" if corruption in summary["ce"] else "-"] if relative else []),
        ]
        for corruption, mean in summary["errors"].items()
    ]
    header = ["error under", *(f"severity {s}" for s in summary["severities"]), "mean", *(["CE"] if relative else [])]
    return markdown_table(header, rows)


def _corruption_notes(of_set: Mapping[str, Any]) -> list[str]:
    summary = of_set["summary"]
    images = spread_of([cell["samples"] for cell in measurements(of_set)])
    mean = percent(summary["mean_error"])
    notes = [f"Mean error: {mean} %, on {images} images each. {_remark(of_set)}".rstrip()]
    if summary.get("mce") is not None:
        notes.append(f"mCE: {summary['mce']:.1f} %.")
    if summary["relative_to"]:
        notes.append(
            f"CE: error relative to {markdown_text(summary['relative_to'])}'s under the same corruption, in %."
        )
    else:
        notes.append("No CE: it needs `--baseline`, or for ImageNet's classes all five severities (AlexNet's errors).")
    if summary["groups"]:
        groups = ", ".join(f"{name} {percent(accuracy)}" for name, accuracy in summary["groups"].items())
        notes.append(f"Mean accuracy under corruption: {groups}.")
    return notes


def _remark(of_set: Mapping[str, Any]) -> str:
    views = measurements(of_set)[0]["identity"]["test_time"]
    test_time = "" if views == "none" else f"test time: {views}"
    return "; ".join(part for part in (test_time, markdown_text(remarks(of_set))) if part)


def _about_groups(statistics: Mapping[str, Any] | None, samples: str) -> str:
    if statistics is None:
        return "No class statistics lie beside the model, so there are no accuracies by group."
    return describe_groups(ClassStatistics.from_dict(statistics), samples=samples)


def _error(of_set: Mapping[str, Any], corruption: str, severity: int) -> float:
    return 1 - float(of_set["cells"][corruption][str(severity)]["overall"])


def _of_groups(groups: Mapping[str, float]) -> list[str]:
    return [percent(groups.get(name)) for name in GROUPS]
