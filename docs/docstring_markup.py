"""The docstrings' own markup, which is plain text with `code`, as reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes):$")  # napoleon's
_ENTRY = re.compile(r"(Cost|Source|Differs from the published code): ")
_NAMES_GO_ON = re.compile(r" {4}\w+,( \w+,)*$")
_CODE = re.compile(r"(`+[^`]*`+)")
_SPECIAL = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")  # emphasis, substitutions, references


def as_restructured_text(lines: Sequence[str]) -> list[str]:
    """The same text, marked up.

    Single backticks become literals, everything else stands as it is written; "Cost: ..." and its like become fields; an
    indented paragraph outside Args, Returns and Raises is code.
    """
    marked: list[str] = []
    place = "text"
    for line in _names_on_one_line(lines):
        indented, after_blank = line.startswith(" "), not marked or not marked[-1].strip()
        if line.strip() and not indented:
            place = "section" if _SECTION.match(line) else "entry" if _ENTRY.match(line) else "text"
        elif indented and place == "text" and after_blank:
            place = "code"
            marked += ["::", ""]
        marked.append(line if place == "code" or _SECTION.match(line) else _field(_escaped(line)))
    return marked


def _names_on_one_line(lines: Sequence[str]) -> list[str]:
    """Names of arguments that share a description may go over several lines; napoleon reads only one."""
    joined: list[str] = []
    for line in lines:
        if joined and _NAMES_GO_ON.match(joined[-1]):
            joined[-1] += f" {line.strip()}"
        else:
            joined.append(line)
    return joined


def _field(line: str) -> str:
    return _ENTRY.sub(lambda entry: f":{entry[1]}: ", line)


def _escaped(line: str) -> str:
    """Every other part is code: a literal; the rest loses its special meanings."""
    parts = _CODE.split(line)
    return "".join(f"``{p.strip('`')}``" if k % 2 else _SPECIAL.sub(r"\\\g<0>", p) for k, p in enumerate(parts))
