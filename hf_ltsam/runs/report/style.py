"""Colours, lines and marks that colour-blind readers can distinguish, in grey print too, on white and on black; fonts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from typing import Any

# Name -> on white, on black. Those of the series follow Okabe and Ito, lighter on black.
PALETTE = {
    "ink": ("#1b1b1b", "#e9e9e9"),
    "grid": ("#d9d9d9", "#42464d"),
    "paper": ("#ffffff", "#15171a"),
    "blue": ("#0072b2", "#5db2ea"),
    "vermillion": ("#d55e00", "#ff8f47"),
    "green": ("#009e73", "#35cfa4"),
    "purple": ("#b8629a", "#e6a3cb"),
    "orange": ("#c98b00", "#f4bb3d"),
    "sky": ("#3a9bd5", "#9ad6f9"),
}
INK, GRID, PAPER = (PALETTE[name][0] for name in ("ink", "grid", "paper"))
# of classes by their number of training images, the same in every figure
GROUP_COLOURS = {
    group: PALETTE[name][0]
    for group, name in {
        "all": "ink", "many": "blue", "medium": "green", "few": "vermillion", "head": "sky", "tail": "orange",
    }.items()
}  # fmt: skip
ON_DARK = "#fefefe"  # on a fully coloured cell: the same in light and dark
DARK_FROM = 80  # percent: cells with more take numbers in ON_DARK
_SHADE = (0.10, 0.435, 0.69)

_COLOURS = [PALETTE[name][0] for name in ("ink", "blue", "vermillion", "green", "purple", "orange", "sky")]
# lengths that have no common divisor, so that 7 x 5 x 8 series differ
_DASHES: list[Any] = ["-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (7, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1))]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]

RC: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8.5, "figure.titlesize": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "legend.frameon": False, "lines.linewidth": 1.5, "lines.markersize": 5,
    "figure.facecolor": PAPER, "axes.facecolor": "none", "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
}  # fmt: skip

# For names in other scripts, of common systems, those of many scripts first: each letter comes from the first font with it.
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans"),
    *("Arial Unicode MS", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic"),
    *("Malgun Gothic", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "IPAGothic", "IPAexGothic", "NanumGothic"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil", "FreeSans", "Unifont"),
)
_MISSING = re.compile(r"Glyph (\d+) .*missing from font")
_SHOWN = 5  # letters that the warning shows


@dataclass(frozen=True)
class SeriesStyle:
    """How one configuration is drawn everywhere."""

    colour: str
    dashes: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """For a line without marks."""
        return {"color": self.colour, "linestyle": self.dashes}

    @property
    def mark(self) -> dict[str, Any]:
        """For marks without a line."""
        return {"color": self.colour, "linestyle": "none", "marker": self.marker}

    @property
    def marked(self) -> dict[str, Any]:
        """For a line with marks."""
        return {**self.line, "marker": self.marker}


def shades() -> Any:
    """The colour map of heat maps: from the page itself to blue, so that more is stronger on white and on black."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", [(*_SHADE, 0.0), (*_SHADE, 1.0)])


def subset_colours(names: Sequence[str]) -> dict[str, str]:
    """Of subsets of the classes that are drawn together: groups have theirs, single classes take what is left."""
    groups = {name: GROUP_COLOURS[name] for name in names if name in GROUP_COLOURS}
    others = cycle(colour for colour in _COLOURS if colour not in groups.values())
    return {name: groups.get(name) or next(others) for name in names}


def series_style(position: int) -> SeriesStyle:
    """Of the configuration at this position."""
    return SeriesStyle(
        _COLOURS[position % len(_COLOURS)], _DASHES[position % len(_DASHES)], _MARKERS[position % len(_MARKERS)]
    )


@contextmanager
def fonts_of_all_scripts() -> Iterator[None]:
    """Draw letters that matplotlib's font does not have by another installed one; those that none has are warned of once."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    families = [*matplotlib.rcParams["font.family"], *(name for name in _FONTS if name in installed)]
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings(record=True) as caught:
        yield
    found = {int(match[1]) for w in caught if (match := _MISSING.match(str(w.message)))}
    for other in caught:
        if not _MISSING.match(str(other.message)):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno, source=other.source)
    if found:
        _warn_once("".join(map(chr, sorted(found)[:_SHOWN])) + "..." * (len(found) > _SHOWN))


@cache
def _warn_once(letters: str) -> None:
    """A report draws the same names in many figures."""
    warnings.warn(
        f"No installed font has the letters {letters}: boxes stand for them in figures. Install one that does, such as "
        "Noto Sans CJK, and make the figures again.",
        stacklevel=4,
    )
