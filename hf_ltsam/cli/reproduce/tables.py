"""Tables: YAML files that name the recipes of a published table, row by row.

title: what is compared on what
source: of the published numbers
settings: {...}              laid over every row that is trained from its start, and over first stages; may be left out
rows:
  - NAME                     a recipe of ours, or a file beside the table
  - NAME: {setting: value}   with settings of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hf_ltsam.cli.reproduce.recipes import RECIPES, find_recipe, load_mapping, read_recipe
from hf_ltsam.hyperparameters import nearest

TABLES = RECIPES / "tables"
_KEYS = frozenset(["title", "source", "settings", "rows"])


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        recipe: its name or file, as `--config` takes it.
        settings: laid over the recipe; None takes a setting back to its default.
    """

    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its folder."""
        return Path(self.recipe).stem

    def is_named(self, name: str) -> bool:
        """Whether that is its name or its recipe, or a pattern of its name."""
        return name == self.recipe or fnmatchcase(self.name, name)

    @property
    def first_stage(self) -> str | None:
        """The recipe that it starts from, of a second stage."""
        return read_recipe(find_recipe(self.recipe)).get("first_stage")


@dataclass(frozen=True)
class TableOfRuns:
    """Args:
    name: of its file.
    title: what is compared on what.
    source: of the published numbers, or why there are none.
    rows: in the order of the source.
    settings: of every row that is trained from its start, and of every first stage.
    whole: all rows of the file, of which `rows` may be some.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    whole: tuple[Row, ...] = ()

    def only(self, names: Sequence[str]) -> TableOfRuns:
        """The rows of these names, in the order of the table; * stands for any text.

        Raises:
            ValueError: a row that the table does not have, with the nearest ones.
        """
        for name in names:
            if not any(row.is_named(name) for row in self.rows):
                hint = nearest(name, [row.name for row in self.rows]).partition(" Valid:")[0]
                raise ValueError(f"--rows {name}: {self.name} has no such row.{hint}")
        return replace(self, rows=tuple(row for row in self.rows if any(row.is_named(name) for name in names)))

    def first_stages(self) -> tuple[Row, ...]:
        """What has to be trained before the rows and is none of them, each once; as the table has it, if it has it."""
        needed = {Path(name).stem: name for row in self.rows if (name := row.first_stage) is not None}
        chosen, known = [row.name for row in self.rows], {row.name: row for row in self.whole}
        return tuple(known.get(n, Row(name, self.settings)) for n, name in needed.items() if n not in chosen)


def table_names() -> list[str]:
    """Of the tables that come with the recipes."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def read_table(name: str) -> TableOfRuns:
    """One of our tables by its name, or a file of yours.

    Raises:
        FileNotFoundError: neither, or a row whose recipe does not exist.
        ValueError: a file that does not hold a table.
    """
    path = _find(name)
    values = load_mapping(path)
    unknown = sorted(set(values) - _KEYS)
    if unknown:
        raise ValueError(f"{path} sets {unknown[0]!r}, which no table has.{nearest(unknown[0], sorted(_KEYS))}")
    missing = [key for key in ("title", "source", "rows") if not values.get(key)]
    if missing:
        raise ValueError(f"{path} has no {missing[0]!r}: a table has a title, a source and a list of rows.")
    settings = _settings(path, values.get("settings"))
    rows = tuple(_row(path, row, settings) for row in values["rows"])
    names = [row.name for row in rows]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has the row {twice} twice.")
    return TableOfRuns(path.stem, values["title"], values["source"], rows, settings, rows)


def _find(name: str) -> Path:
    for path in (Path(name), TABLES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name}: there is no such file, and no table of that name.{nearest(name, table_names())}")


def _row(path: Path, row: Any, settings: dict[str, Any]) -> Row:
    """`NAME`, or `NAME: {setting: value}`."""
    if isinstance(row, dict) and len(row) == 1:
        ((recipe, own),) = row.items()
    else:
        recipe, own = row, None
    if not isinstance(recipe, str):
        raise ValueError(f"{path} has the row {row!r}; a row is the name of a recipe, or `NAME: {{setting: value}}`.")
    beside = path.parent / recipe
    row = Row(str(beside) if beside.is_file() else recipe, {**settings, **_settings(path, own)})
    return row if row.first_stage is None else Row(row.recipe, _settings(path, own))


def _settings(path: Path, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict | None):
        raise ValueError(f"{path} has settings {values!r}; they must be `name: value` on lines of their own.")
    return values or {}
