"""Recipes: which there are, what one sets and why, and the number published for it.

    ltsam recipes                                        all tables, row by row, with the published numbers
    ltsam recipes focal_sam ir100                        the rows that have all of these words
    ltsam recipes li2025_table2                          one table
    ltsam recipes cifar100_lt_ir100_la_focal_sam         all settings of a row, where each number comes from, what is assumed
    ltsam recipes cifar100_lt_ir100_la_focal_sam --json  the settings alone, as one JSON object
    ltsam recipes parts/training_li2025                  one of the parts that rows are made of

In place of a name there may be the file of a recipe of yours.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.hyperparameters import did_you_mean
from hf_ltsam.runs.escaping import visible
from hf_ltsam.runs.recipe_tables import (
    GROUPS,
    Published,
    RecipeRow,
    Table,
    parts,
    published_rows,
    published_tables,
    table_names,
)
from hf_ltsam.runs.recipes import Expanded, expand, recipe_names
from hf_ltsam.runs.secrets import without_secrets

_PART = "parts/"  # before the name of a part, which would hide the rows that have it as a word
_WIDTH = 80
_NAME_WIDTH = 52  # of the longest name
_COLUMNS = ("all", "many", "med", "few")  # of the groups
_UNIT = "Accuracy in %; -: nothing published."
_OTHER_SETTINGS = "(with the table's own settings)"  # so that published numbers are not its


def main(argv: Sequence[str] | None = None) -> None:
    """Print what the words of the command line ask for."""
    with user_errors():
        options = _parser().parse_args(argv)
        recipe = _one(options.words)
        if options.json:
            if recipe is None:
                raise ValueError("--json prints the settings of one recipe: ltsam recipes NAME --json")
            sys.stdout.write(json.dumps(without_secrets(expand(recipe).settings), indent=2) + "\n")
        elif recipe is not None:
            _print_recipe(recipe)
        else:
            _print_tables(options.words)


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="ltsam recipes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="NAME", help="a recipe, a table, or words that a row must have")
    parser.add_argument("--json", action="store_true", help="the settings of one recipe as a JSON object, nothing else")
    return parser


def _one(words: Sequence[str]) -> Path | RecipeRow | str | None:
    """The file, row or part that a single word names."""
    if len(words) != 1:
        return None
    (name,) = words
    if Path(name).is_file():
        return Path(name)
    part = name.removeprefix(_PART)
    return published_rows().get(name) or (part if part in parts() and part != name else None)


# One recipe: what it is, then setting by setting.


def _print_recipe(recipe: Path | RecipeRow | str) -> None:
    expanded = expand(recipe)
    console = Console(highlight=False)
    console.print(_facts(recipe, expanded))
    console.print()
    console.print(_settings(expanded))


def _facts(recipe: Path | RecipeRow | str, expanded: Expanded) -> Grid:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for name, value in _described(recipe) if isinstance(recipe, RecipeRow) else [("recipe", str(recipe))]:
        grid.add_row(name, Text(visible(value)))
    for setting, words in expanded.assumptions.items():
        grid.add_row("assumed", Text(visible(f"{setting}: {words}")))
    return grid


def _described(row: RecipeRow) -> Iterator[tuple[str, str]]:
    yield "recipe", row.name
    yield "what", f"{row.title}: {row.label}"
    yield "published", _numbers(row.published) if row.published else f"none ({row.unpublished})"
    if row.published:
        yield "source", row.published.source
    for name in row.compare:
        if (other := published_rows()[name].published) is not None:
            yield "compare", f"{name}, {_numbers(other)} ({other.source})"
    tables = [
        f"{table.name} {_OTHER_SETTINGS}" if _other_settings(table, other) else table.name
        for table in published_tables() for other in table.rows if other.name == row.name
    ]  # fmt: skip
    yield "tables", ", ".join(tables) or f"{row.table}, as a first stage"
    yield "command", _command(row)


def _command(row: RecipeRow) -> str:
    """Runs as it is, but for the place of images that are nowhere to be downloaded."""
    settings = expand(row).settings
    if "first_stage" in settings:
        return f"ltsam decouple --config {row.name} --seed 0"
    place = "" if "dataset" in settings else " --dataset FOLDER"
    return f"ltsam train --config {row.name}{place} --seed 0"


def _numbers(published: Published) -> str:
    overall, *groups = ((name, value) for name, value in published.accuracies.items() if value is not None)
    return ", ".join([f"{overall[1]} % overall", *(f"{value} {name}" for name, value in groups)])


def _settings(expanded: Expanded) -> Grid:
    grid = Grid("setting", "value", "where it comes from", box=None, pad_edge=False, header_style="")
    for name, value in _flat(without_secrets(expanded.settings)):
        grid.add_row(*(Text(visible(text)) for text in (name, _shown(value), _origin(expanded, name))))
    return grid


def _flat(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by name, the arguments of a method, loss or stage as `method_args.rho`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{argument}", v) for argument, v in value.items())
        else:
            yield name, value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _origin(expanded: Expanded, name: str) -> str:
    assumed = expanded.assumptions.get(name)
    if assumed is not None:
        return f"assumed: {assumed}"
    origin = expanded.origins.get(name)
    if origin is None:
        return ""
    return origin.words if origin.kind == "source" else f"{origin.kind}: {origin.words}"


# Tables, and the rows that have all words.


def _print_tables(words: Sequence[str]) -> None:
    lines = [line for table in published_tables() for line in _lines(table, _chooser(table, words))]
    if not lines:
        names = [*recipe_names(), *table_names(), *(f"{_PART}{part}" for part in parts())]
        hint = did_you_mean(words[0], names) if len(words) == 1 else ""
        raise ValueError(
            f"No recipe has {' and '.join(map(repr, words))} in its name, table or title.{hint} `ltsam recipes` lists all."
        )
    console = Console(highlight=False, markup=False)
    for line in [_UNIT, "", *lines]:
        console.print(line, soft_wrap=True)


def _chooser(table: Table, words: Sequence[str]) -> Callable[[RecipeRow], bool]:
    """Whether a row has all words, each as a whole one: ir10 is not in ir100."""
    patterns = [re.compile(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z0-9])") for word in words]

    def has_all(row: RecipeRow) -> bool:
        text = " ".join([row.name, table.name, table.title, row.title, row.label, table.source]).lower()
        return all(pattern.search(text) for pattern in patterns)

    return has_all


def _lines(table: Table, chosen: Callable[[RecipeRow], bool]) -> Iterator[str]:
    """A table's head, and a line for each chosen row and first stage, of at most 80 characters."""
    rows, stages = ([row for row in kind if chosen(_recipe(row))] for kind in (table.rows, table.first_stages))
    if not rows and not stages:
        return
    yield from textwrap.wrap(f"{table.name}  {table.title} ({table.source})", _WIDTH, subsequent_indent="    ")
    yield f"  {'':{_NAME_WIDTH}}" + "".join(f"{name:>6}" for name in _COLUMNS)
    decimals = _decimals(table)
    for row in rows:
        if _other_settings(table, row):
            yield f"  {row.name}  {_OTHER_SETTINGS:>{_WIDTH - 6 - len(row.name)}}"
        else:
            yield _line(_recipe(row), decimals)
        yield from _below(row)
    if stages:
        yield "    what these start from:"
        yield from (_line(row, decimals) for row in stages)
    yield ""


def _below(row: RecipeRow) -> Iterator[str]:
    """The values of a sweep, and the published numbers on other test sets."""
    for setting, values in row.sweep.items():
        yield from textwrap.wrap(
            f"{setting}: {', '.join(map(str, values))}", _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 6
        )
    for name, shifted in row.shifted.items():
        cells = "".join("     -" if (v := shifted.accuracies.get(group)) is None else f"{v:6.1f}" for group in GROUPS)
        yield f"    {name:{_NAME_WIDTH - 2}}{cells}" if shifted.accuracies else f"    {name}: mCE {shifted.mce:.1f}"


def _recipe(row: RecipeRow) -> RecipeRow:
    """The recipe that a row is, also where it stands in another table."""
    return published_rows().get(row.name, row)


def _other_settings(table: Table, row: RecipeRow) -> bool:
    """Whether the table lays settings over a recipe, whose published number is then not that of the row."""
    return bool(table.settings or (row.settings and not row.parts))


def _decimals(table: Table) -> dict[str, int]:
    """Those of the most precise number in each column."""
    numbers = [published.accuracies for row in table.rows if (published := _recipe(row).published)]
    return {
        group: max((len(str(row[group]).partition(".")[2]) for row in numbers if row[group] is not None), default=0)
        for group in GROUPS
    }


def _line(row: RecipeRow, decimals: Mapping[str, int]) -> str:
    numbers = row.published.accuracies if row.published else dict.fromkeys(GROUPS)
    cells = ["-" if value is None else f"{value:.{decimals[group]}f}" for group, value in numbers.items()]
    too_long = max(0, len(row.name) - _NAME_WIDTH)  # takes from the space before the first number
    return f"  {row.name:{_NAME_WIDTH}}" + "".join(f"{cell:>6}" for cell in cells)[too_long:]
