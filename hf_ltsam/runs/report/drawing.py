"""A figure as PNG and SVG in the report's folder, and as a part of its page."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_ltsam.runs.report.content import Figure
from hf_ltsam.runs.report.inline_svg import inline_svg
from hf_ltsam.runs.report.style import RC, SeriesStyle, series_style

WIDTH = 7.6  # inches, that of the page's text
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def draw(
    folder: Path,
    name: str,
    size: tuple[float, float],
    paint: Callable[[Any], None],
    title: str,
    caption: str,
    description: str,
) -> Figure:
    """Args:
    folder: exists.
    name: of the files, and of ids on the page.
    size: width and height in inches.
    paint: draws on an empty matplotlib figure.
    title, description: for screen readers: what it is, and what is to be seen.
    caption: under the figure.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    style: Any = {**RC, "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*constrained_layout not applied.*")
        figure = Canvas(figsize=size, layout="constrained")
        paint(figure)
        figure.savefig(folder / f"{name}.png", dpi=150)
        figure.savefig(folder / f"{name}.svg", metadata=_NO_METADATA)
    text = (folder / f"{name}.svg").read_text(encoding="utf-8")
    return Figure(name, inline_svg(text, name, title, description), caption)


def grid_of_panels(figure: Any, number: int, columns: int, **kwargs: Any) -> list[Any]:
    """Axes in rows of so many columns; those left over are hidden."""
    rows = -(-number // columns)
    panels = figure.subplots(rows, columns, squeeze=False, **kwargs)
    for axes in panels.flat[number:]:
        axes.set_visible(False)
    return list(panels.flat[:number])


def legend_above(
    figure: Any,
    titles: Sequence[str],
    positions: Sequence[int],
    look: Callable[[SeriesStyle], dict[str, Any]] = lambda style: style.marked,
) -> None:
    """One entry for each configuration, above all panels.

    Args:
        titles: of the configurations.
        positions: theirs in the report, which decide on their style.
    look: lines, marks, or both.
    """
    from matplotlib.lines import Line2D

    styles = [series_style(k) for k in positions]
    handles = [Line2D([], [], label=t, **look(s)) for t, s in zip(titles, styles)]
    longest = max(map(len, titles))
    columns = max(1, min(len(titles), int(100 / (longest + 9))))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=3.2)
