"""What the first lines of a recipe say: the published number that stands for its row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_GROUPS = ("many", "medium", "few")
_NUMBER = r"\d+(?:\.\d+)?"
_TARGET = re.compile(rf"({_NUMBER}) % overall" + "".join(rf"(?:, ({_NUMBER}) {group})?" for group in _GROUPS))
_NONE = "none published"


@dataclass(frozen=True)
class Target:
    """Published accuracies of a row, in percent.

    Args:
        overall: over all test images.
        many, medium, few: means over the classes of a group; None where the source has none, or groups of its own.
        source: paper, table and row, as the recipe words them.
    """

    overall: float
    many: float | None
    medium: float | None
    few: float | None
    source: str


def published_target(path: Path) -> Target | None:
    """The `# Target` of a recipe, with the source in the brackets below it.

    Returns:
        None where the recipe says that none is published, or nothing (one of your own).

    Raises:
        ValueError: the recipe has several targets, or one that cannot be read.
    """
    lines = _target_lines(path)
    if not lines or re.match(rf"{_NONE}\b", lines[0]):
        return None
    numbers = _TARGET.fullmatch(lines[0])
    if numbers is None:
        raise ValueError(
            f"{path}: the target {lines[0]!r} cannot be read. It should look like '50.7 % overall, 63.9 many, 53.0 medium, "
            f"32.5 few', groups where there are any, or '{_NONE}'."
        )
    many, medium, few = (None if number is None else _percent(path, number) for number in numbers.groups()[1:])
    return Target(_percent(path, numbers[1]), many, medium, few, _source(path, lines))


def _target_lines(path: Path) -> list[str]:
    """The words behind `# Target`, and those of the indented lines that go on with them."""
    found: list[list[str]] = []
    goes_on = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# Target "):
            found.append([line.removeprefix("# Target ").strip()])
            goes_on = True
        elif goes_on and line.startswith("#  "):
            found[-1].append(line.removeprefix("#").strip())
        else:
            goes_on = False
    if len(found) > 1:
        raise ValueError(
            f"{path} has {len(found)} lines that start with '# Target   ', and a recipe states its published number, or "
            f"'{_NONE}', in one."
        )
    return found[0] if found else []


def _source(path: Path, lines: list[str]) -> str:
    source = " ".join(lines[1:])
    if not re.fullmatch(r"\(.+\)", source):
        raise ValueError(
            f"{path}: the lines below the target should hold its source in brackets, '(AUTHORS YEAR Table N, ROW)', got "
            f"{source!r}."
        )
    return source[1:-1]


def _percent(path: Path, number: str) -> float:
    value = float(number)
    if value > 100:
        raise ValueError(f"{path}: the target states {number} %, and an accuracy has 100 at most.")
    return value
