"""Figures: as PNG and SVG in the folder of the report, and inside its page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from hf_ltsam.runs.escaping import figure_texts, visible
from hf_ltsam.runs.report.content import Figure
from hf_ltsam.runs.report.style import ON_DARK, PALETTE, RC, SeriesStyle, fonts_of_all_scripts, series_style

FINE = 15  # steps along a direction: with fewer, lines between them would show shapes that nobody computed
WIDTH = 7.6  # inches, that of the page's text
_ROW = 0.18  # inches of a row of a legend
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

# "currentColor" is the colour of the page's text; the others are variables in the page's style sheet.
_VARIABLES = {light: "currentColor" if name == "ink" else f"var(--{name})" for name, (light, _) in PALETTE.items()}
_REFERENCE = re.compile(r"(url\(#|^#)([^)]+)")
_COLOUR = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_LONG = re.compile(r"-?\d+\.\d{3,}")  # coordinates, in points


def draw(
    folder: Path,
    name: str,
    size: tuple[float, float],
    paint: Callable[[Any], None],
    title: str,
    caption: str,
    description: str,
) -> Figure:
    """Draw a figure, as files and for the page.

    Args:
        folder: exists.
        name: of the files, and of ids on the page.
        size: width and height in inches.
        paint: draws on an empty matplotlib figure.
        title, description: for screen readers: what it is, and what it shows.
        caption: under the figure.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    style: Any = {**RC, "svg.hashsalt": name}
    with matplotlib.rc_context(style), fonts_of_all_scripts(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*constrained_layout not applied.*")
        figure = Canvas(figsize=size, layout="constrained")
        paint(figure)
        figure.savefig(folder / f"{name}.svg", metadata=_NO_METADATA)
        figure.set_layout_engine("none")  # what was laid out stays: laying it out takes longer than drawing
        figure.savefig(folder / f"{name}.png", dpi=150)
    text = (folder / f"{name}.svg").read_text(encoding="utf-8")
    return Figure(name, inline_svg(text, name, title, description), caption)


def grid_of_panels(figure: Any, number: int, columns: int, **kwargs: Any) -> list[Any]:
    """Axes in rows of `columns`; those left over are hidden."""
    rows = -(-number // columns)
    panels = figure.subplots(rows, columns, squeeze=False, **kwargs)
    for axes in panels.flat[number:]:
        axes.set_visible(False)
    return list(panels.flat[:number])


def fill_surface(axes: Any, x: Any, y: Any, values: Any, levels: Any, lines: Any) -> Any:
    """Values (y, x) in shades of a log scale: contours, or cells on a grid that is too coarse for them.

    Args:
        levels: ends of the shades, ascending.
        lines: those of them that are drawn as lines.
    """
    from matplotlib.colors import LogNorm

    look: dict[str, Any] = {"norm": LogNorm(levels[0], levels[-1]), "cmap": "viridis"}
    if min(len(x), len(y)) < FINE:
        return axes.pcolormesh(x, y, values, shading="nearest", **look)
    axes.contour(x, y, values, levels=lines, colors=ON_DARK, linewidths=0.4)
    return axes.contourf(x, y, values, levels=levels, **look)


def within_percent(mean: Any, deviation: Any) -> Any:
    """Error bars down and up (2, ...), cut off at 0 and 100."""
    return np.array([np.minimum(deviation, mean), np.minimum(deviation, 100 - mean)]).reshape(2, -1).clip(0)


def percent_ticks(axis: Any) -> None:
    """No tick of an axis of shares lies below 0 or above 100, where only the margins of the panel can reach."""
    from matplotlib.ticker import AutoLocator

    class Percent(AutoLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            return [tick for tick in super().tick_values(vmin, vmax) if -1e-9 <= tick <= 100 + 1e-9]

    axis.set_major_locator(Percent())


def legend_above(
    figure: Any,
    titles: Sequence[str],
    positions: Sequence[int],
    look: Callable[[SeriesStyle], dict[str, Any]] = lambda style: style.marked,
    more: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """One entry for each configuration, above all panels.

    Args:
        titles: of the configurations.
        positions: of the configurations in the report, which decide their style.
        look: lines, marks, or both.
        more: entries of their own behind those, by label, as matplotlib's lines take them.
    """
    from matplotlib.lines import Line2D

    styles = [series_style(k) for k in positions]
    labels = figure_texts(titles)
    handles = [Line2D([], [], label=label, **look(s)) for label, s in zip(labels, styles)]
    handles += [Line2D([], [], label=label, **style) for label, style in more.items()]
    longest = max(map(len, (*labels, *more)))
    columns = max(1, min(len(handles), int(100 / (longest + 9))))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + _ROW * max(0, rows - 2))  # so that panels stay as high as they are
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=3.2)


def inline_svg(text: str, name: str, title: str, description: str) -> str:
    """An SVG file of matplotlib as a part of a page: named for screen readers, in the page's colours, without addresses.

    Args:
        text: the file.
        name: put before every id, so that ids are unique on the page.
        title, description: what a screen reader says.
    """
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _value(_local(key), value, name) for key, value in element.attrib.items()}
    for figure in root.findall("g"):  # the page itself is the paper
        for background in figure.findall(f"g[@id='{name}-patch_1']"):
            figure.remove(background)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-description"}
    for tag, content in (("desc", description), ("title", title)):
        words = ET.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        words.text = visible(content)
        root.insert(0, words)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "d" or key == "points":
        return _LONG.sub(lambda number: f"{float(number[0]):.2f}", re.sub(r"\s+", " ", value))
    if value.startswith("data:"):
        return re.sub(r"\s+", "", value)
    value = _REFERENCE.sub(rf"\g<1>{name}-\g<2>", value)
    return _COLOUR.sub(lambda colour: _VARIABLES[colour[0].lower()], value)
