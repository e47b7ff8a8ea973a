"""A table as runs: its rows with the table's settings laid over them, and what has to be trained before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.recipe_tables import TABLES, Published, RecipeRow, load_table, published_rows, table_names
from hf_ltsam.runs.recipes import find_recipe, read_recipe


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        recipe: its name or file, as `--config` takes it.
        settings: laid over the recipe; None takes a setting back to its default.
        parts: of a row that no recipe stands for, in a table of one's own: what it is laid over instead.
        published: as the table states it; None: as the recipe does.
    """

    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    published: Published | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return Path(self.recipe).stem

    @property
    def expanded(self) -> dict[str, Any]:
        """All its settings."""
        recipe = RecipeRow(self.recipe, parts=self.parts) if self.parts else find_recipe(self.recipe)
        return {**read_recipe(recipe), **self.settings}

    @property
    def first_stage(self) -> str | None:
        """The recipe that it starts from, of a second stage."""
        return self.expanded.get("first_stage")

    @property
    def target(self) -> Published | None:
        """The published number; None where there is none, or settings were laid over the recipe that it is of."""
        if self.published is not None or self.settings or self.parts:
            return self.published
        recipe = find_recipe(self.recipe)
        return None if isinstance(recipe, Path) else recipe.published

    def is_named(self, name: str) -> bool:
        """Whether that is its name or its recipe, or a pattern of its name."""
        return name == self.recipe or fnmatchcase(self.name, name)


@dataclass(frozen=True)
class TableOfRuns:
    """Args:
    name: of its file.
    title: what is compared on what.
    source: of the published numbers, or that they are ours.
    rows: in the order of the source.
    settings: of every row that is trained from its start, and of every first stage.
    whole: all rows of the file, of which `rows` may be some.
    stages: the `first_stages` of the file, whether or not a row starts from them.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    whole: tuple[Row, ...] = ()
    stages: tuple[Row, ...] = ()

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
        chosen, rows = [row.name for row in self.rows], {row.name: row for row in (*self.stages, *self.whole)}
        return tuple(rows.get(n, Row(name, self.settings)) for n, name in needed.items() if n not in chosen)


def read_table(name: str) -> TableOfRuns:
    """One of our tables by its name, or a file of yours.

    Raises:
        FileNotFoundError: neither, or a row whose recipe does not exist.
        ValueError: a file that does not hold a table.
    """
    table = load_table(_find(name))
    rows, stages = (tuple(_row(row, table.settings) for row in kind) for kind in (table.rows, table.first_stages))
    source = f"{table.source} (without {table.without})" if table.without else table.source
    return TableOfRuns(table.name, table.title, source, rows, table.settings, rows, stages)


def _find(name: str) -> Path:
    for path in (Path(name), TABLES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name}: there is no such file, and no table of that name.{nearest(name, table_names())}")


def _row(row: RecipeRow, settings: dict[str, Any]) -> Row:
    """With the table's settings, which are none of a second stage's."""
    is_ours = published_rows().get(row.name) == row
    made = Row(row.name) if is_ours else Row(row.name, row.settings, row.parts, row.published)
    return replace(made, settings={**settings, **made.settings}) if made.first_stage is None else made
