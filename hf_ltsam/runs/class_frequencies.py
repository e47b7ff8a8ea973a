"""How often classes occur in a training set: its curve in the terminal and as a figure, its groups in words."""

from __future__ import annotations

import io
from itertools import accumulate
from pathlib import Path

import numpy as np

from hf_ltsam.class_statistics import GROUPS, ClassStatistics
from hf_ltsam.runs.escaping import figure_text
from hf_ltsam.runs.report.style import GROUP_COLOURS, fonts_of_all_scripts

BLOCKS = " ▁▂▃▄▅▆▇█"


def text_curve(statistics: ClassStatistics, width: int = 64, height: int = 6) -> str:
    """Images per class on a logarithmic scale, the largest class first, as lines of block characters.

    Args:
        width: columns at most; several classes share one where there are more.
        height: lines.
    """
    counts = np.sort(statistics.counts)[::-1]
    columns = np.asarray([part.mean() for part in np.array_split(counts, min(width, len(counts)))])
    top = np.log(max(counts[0] + 1, 2))
    eighths = np.maximum(np.round(8 * height * np.log(columns + 1) / top), 1).astype(int)
    lines = ["".join(BLOCKS[min(max(n - 8 * row, 0), 8)] for n in eighths) for row in reversed(range(height))]
    lines[0] += f" {counts[0]:,}"
    lines[-1] += f" {counts[-1]:,}"
    return "\n".join(lines)


def draw_curve(statistics: ClassStatistics, title: str, path: Path) -> None:
    """The same as a PNG, coloured by reporting group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(curve_png(statistics, title))


@fonts_of_all_scripts()
def curve_png(statistics: ClassStatistics, title: str, samples: str = "images") -> bytes:
    """The content of that PNG."""
    from matplotlib.figure import Figure

    counts = np.asarray(statistics.counts)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(counts), dtype=int)
    rank[order] = np.arange(len(counts))
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for group, classes in statistics.groups.items():
        if classes:
            places = np.sort(rank[list(classes)])  # without gaps: the groups follow the counts
            edges = np.append(places, places[-1] + 1)
            axes.stairs(
                counts[order][places], edges, fill=True, color=GROUP_COLOURS[group], label=f"{group} ({len(classes)})"
            )
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(counts.min() / 2, 0.5))
    axes.set_xlabel("classes, the largest first")
    axes.set_ylabel(f"training {samples}")
    axes.set_title(figure_text(title))
    axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def group_ranges(statistics: ClassStatistics) -> dict[str, str]:
    """What puts a class into a group, by group; `group_criterion` says of what they are ranges."""
    if statistics.group_sizes is not None:
        starts = list(accumulate(statistics.group_sizes, initial=1))
        return {name: _range(start, next_start - 1) for name, start, next_start in zip(GROUPS, starts, starts[1:])}
    low, high = statistics.few_below, statistics.many_above
    return {"many": f"more than {high:,}", "medium": _range(low, high), "few": f"fewer than {low:,}"}


def group_criterion(statistics: ClassStatistics, samples: str = "images") -> str:
    """The head of a column of ranges."""
    return f"training {samples} per class" if statistics.group_sizes is None else "rank of the class by frequency"


def describe_groups(statistics: ClassStatistics, sizes: bool = False, samples: str = "images") -> str:
    """One sentence.

    Args:
        samples: what is classified, in the plural.
        sizes: whether it states the number of classes of each group.
    """
    many, medium, few = (f" ({len(classes)})" * sizes for classes in statistics.groups.values())
    if sizes:
        many = f"{many[:-1]} class{'es' * (len(statistics.groups['many']) != 1)})"
    if statistics.group_sizes is not None:
        ranks = group_ranges(statistics)
        ranges = f"many {ranks['many']}{many}, medium {ranks['medium']}{medium}, few {ranks['few']}{few}"
        return f"Groups by rank of a class in order of frequency: {ranges}."
    low, high = statistics.few_below, statistics.many_above
    return (
        f"Groups by training {samples} of a class: many above {high:,}{many}, medium {_range(low, high)}{medium}, few below "
        f"{low:,}{few}."
    )


def remark_on_bounds(statistics: ClassStatistics) -> str | None:
    """One line where the groups do not lie where everybody expects them; None where they do."""
    if not statistics.has_fitted_bounds:
        return None
    groups = describe_groups(statistics, sizes=True, samples="samples")
    return (
        f"{groups} By the usual 100 and 20 many or few would be empty; ClassStatistics(many_above=...) and "
        "ClassStatistics(few_below=...) state others."
    )


def _range(first: int, last: int) -> str:
    return "none" if last < first else f"{first:,}" if last == first else f"{first:,} to {last:,}"
