"""Names of classes, data sets and runs as plain text of a format: a name shows as it is, and forges nothing.

One function for each format. HTML is escaped by its template, JSON and YAML by their writers; control characters alone are
left to do (`visible`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

_HEAD = 18  # characters before a cut that are kept where names differ far behind
LONGEST = 60  # characters of a name in a figure: a longer one would leave no room for the curves

# Control characters, separators of lines, marks that turn the direction of what follows, halves of characters.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_MARKDOWN = re.compile(
    r"[\\`*~<$|]"  # code, emphasis, HTML, formulas, cells
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; within a word it is none
    r"|\](?=[(\[:])"  # a link
    r"|&(?=#?\w+;)"  # an entity
    r"|^[#>=]|^[+-](?=[\s+-]|$)|(?<=^\d)[.)](?=\s|$)"  # headings, quotations, lists
)
_TERMINAL = re.compile(r"(\\*)\[(?=[a-zA-Z#/@])")  # `[red]` is markup for rich


def visible(text: str, lines: bool = False) -> str:
    """A text whose control characters are written out: a line break as \\n, ESC as \\x1b.

    Args:
        lines: keep line breaks and tabs.
    """
    return _INVISIBLE.sub(lambda found: found[0] if lines and found[0] in "\n\t" else _written(found[0]), text)


def visible_value(value: Any) -> Any:
    """A value in a template of HTML: texts `visible`, all but those that are markup already."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def markdown_text(text: str) -> str:
    """Text of a paragraph, heading or cell."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", visible(text))


def markdown_code(text: str, cell: bool = False) -> str:
    """Code within a line.

    Args:
        cell: of a table, where a bar would end the cell.
    """
    if not text:
        return ""
    shown = visible(text)
    fence = "`" * (_longest_run(shown) + 1)
    space = " " if shown[:1] in "` " or shown[-1:] in "` " else ""
    code = f"{fence}{space}{shown}{space}{fence}"
    return code.replace("|", "\\|") if cell else code


def markdown_docstring(text: str) -> str:
    """Text as docstrings have it, where backquotes mark code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return markdown_text(text)
    return "".join(markdown_code(part) if i % 2 else markdown_text(part) for i, part in enumerate(parts))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells that are escaped already, as a table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def markdown_block(text: str, language: str = "") -> str:
    """Code on lines of its own."""
    shown = visible(text, lines=True)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def figure_text(text: str) -> str:
    """Text of a matplotlib figure, where `$` would start a formula and `_` hide an entry of a legend."""
    shown = visible(text)
    shown = shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 20]}…{shown[-19:]}"
    return shown.replace("$", "\\$") if not shown.startswith("_") else f" {shown}".replace("$", "\\$")


def figure_texts(texts: Sequence[str]) -> list[str]:
    """`figure_text` of names that stand together: those that differ stay different, cut where all are alike."""
    shown = list(map(figure_text, texts))
    for text in set(shown):
        alike = [k for k, other in enumerate(shown) if other == text]
        whole = [visible(texts[k]) for k in alike]
        if len(set(whole)) == 1:
            continue
        same = next((i for i, signs in enumerate(zip(*whole)) if len(set(signs)) > 1), min(map(len, whole)))
        start = max(whole[0].rfind(" ", 0, same) + 1, _HEAD)  # of the word that differs
        cut = [figure_text(f"{name[:_HEAD]}…{name[start:]}") for name in whole]
        places = {name: k for k, name in enumerate(dict.fromkeys(whole), 1)}
        for k, name, part in zip(alike, whole, cut):
            shown[k] = part if len(set(cut)) == len(places) else f"{part} ({places[name]})"
    return shown


def terminal(text: str) -> str:
    """Text that `rich` prints, where `[red]` would be markup."""
    return _TERMINAL.sub(lambda found: f"{found[1] * 2}\\[", visible(text))


def file_name(text: str, longest: int = 100) -> str:
    """Part of a file's name. Names that differ give names that differ: what is left out leaves a few digits of a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text)
    name = plain[-longest:].strip("_")
    if len(plain) <= longest and re.fullmatch(r"[A-Za-z0-9._ /-]*", text):
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name}_{digest}".strip("_")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
