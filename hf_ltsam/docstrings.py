"""What the docstring of a method or loss states, for lists and cards: its name, its equation, its entries."""

from __future__ import annotations

import inspect


def first_line(documented: object) -> str:
    """One line of what it is."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def title(documented: object) -> str:
    """The name before the colon of the first line, such as "Focal-SAM"."""
    return first_line(documented).partition(":")[0].rstrip(".")


def equation(documented: object) -> str:
    """What follows that colon, with the lines up to the next paragraph; empty where there is no colon."""
    paragraph = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    return paragraph.partition(": ")[2].rstrip(".")


def entry(documented: object, name: str) -> str:
    """The text behind "Cost:" or "Source:", to the end of its paragraph or to the next entry; empty where there is none."""
    _, _, text = (inspect.getdoc(documented) or "").partition(f"\n{name}: ")
    lines: list[str] = []
    for line in text.splitlines():
        if lines and not line.startswith(" "):
            break
        lines.append(line.strip())
    return " ".join(lines)
