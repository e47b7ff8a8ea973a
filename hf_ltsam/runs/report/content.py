"""The parts of a report as values, whatever they are drawn or written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A figure that lies beside the page as PNG and SVG.

    Args:
        name: of both files, without their endings.
        svg: the same for inside the page, in the page's colours.
        caption: what is seen, with units.
    """

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        caption: what the numbers are, with units.
        columns: headers; the first is that of the row names.
        rows: cells; the first one names the row.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Listing:
    """Text to be read as it is, such as commands.

    Args:
        title: whose.
        text: with its line breaks.
    """

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Args:
        title: unique on the page.
        figures, tables, listings: in this order.
        notes: sentences below them.
        missing: what could not be drawn, and which command makes it.
        summary: a sentence above everything else; empty: none.
    """

    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    listings: Sequence[Listing] = ()
    notes: Sequence[str] = ()
    missing: Sequence[Missing] = field(default=())
    summary: str = ""

    @property
    def anchor(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Missing:
    """Something a run lacks.

    Args:
        what: in words, with the configuration.
        way: what makes it.
    """

    what: str
    way: Way

    @property
    def command(self) -> str:
        return self.way.command


@dataclass(frozen=True)
class Way:
    """How something is made that a run lacks.

    Args:
        command: works as it stands; empty where there is none.
        remark: where it lies then, such as "in a run of its own"; without a command the sentence that says what to do.
    """

    command: str
    remark: str = ""


_LEAST, _MOST = 1, 4  # digits after the point of a percentage
_EQUAL = 1e-9  # of fractions: nearer ones differ by rounding alone


def percent(fraction: float, digits: int = _LEAST) -> str:
    """12.3; a dash for a number that does not exist; more digits where it would else pass for 0 or 100."""
    if fraction != fraction:
        return "-"
    return f"{100 * fraction:z.{max(digits_apart(fraction, whole, digits) for whole in (0, 1))}f}"


def mean_and_deviation(mean: float, deviation: float, scale: float = 1, digits: int = 1) -> str:
    """12.3 ± 0.4; without the deviation where there is none (NaN), a dash without a mean."""
    if mean != mean:
        return "-"
    spread = "" if deviation != deviation else f" ± {scale * deviation:.{digits}f}"
    return f"{percent(mean, digits) if scale == 100 else f'{scale * mean:.{digits}f}'}{spread}"


def are_equal(first: float, second: float) -> bool:
    """Whether two fractions are the same but for rounding."""
    return abs(first - second) < _EQUAL


def digits_apart(first: float, second: float, least: int = _LEAST) -> int:
    """How many digits after the point show that two percentages differ, where they do."""
    enough = (d for d in range(least, _MOST) if round(100 * first, d) != round(100 * second, d))
    return least if are_equal(first, second) else next(enough, _MOST)


def points(difference: float, digits: int = _LEAST) -> str:
    """A difference of fractions in percentage points: +1.2, -0.3, and 0.0 without a sign."""
    text = f"{100 * difference:+.{digits}f}"
    return text if float(text) else text[1:]
