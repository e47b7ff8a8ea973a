"""A table as runs: its rows with the table's settings laid over them, and what has to be trained before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hf_ltsam import LTSamConfig
from hf_ltsam.cli.train.arguments import make_run, option_names
from hf_ltsam.hyperparameters import did_you_mean, nearest
from hf_ltsam.runs.recipe_tables import (
    GROUPS,
    TABLES,
    Point,
    Published,
    PublishedShift,
    RecipeRow,
    load_table,
    published_rows,
    table_names,
)
from hf_ltsam.runs.recipes import find_recipe, read_recipe
from hf_ltsam.training.refusals.settings import check_arguments
from hf_ltsam.training.trials import place_of

_CHOICE = {"metric": "balanced", "reserve": 0.2}
_METRICS = ("balanced", *GROUPS)
OF_FIRST_STAGE = "first_stage."  # before the name of a setting that a sweep changes there


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        recipe: its name or file, as `--config` takes it.
        settings: laid over the recipe; None takes a setting back to its default.
        parts: of a row that no recipe stands for, in a table of one's own: what it is laid over instead.
        published: as the table states it; None: as the recipe does.
        value: of a sweep, the setting and its value.
        stage: of a second stage, what it starts from, where that is no recipe as it stands.
        shifted: published numbers on other test sets, by their names.
    """

    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    published: Published | None = None
    value: tuple[str, Any] | None = None
    stage: Row | None = None
    shifted: dict[str, PublishedShift] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its folder; with a value, below that of the row."""
        stem = Path(self.recipe).stem
        return stem if self.value is None else f"{stem}/{folder_of(*self.value)}"

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
        if self.published is not None or self.settings or self.parts or self.value is not None:
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
    evaluate: other test sets, on which every run that has ended is tested.
    choose: metric and reserve by which the values of sweeps are chosen; empty: they are not.
    curves: published points of sweeps, by the name of the row.
    sharpness: options of `ltsam sharpness`, for the first seed of every row; empty: no curvature is measured.
    figures: of the report, shown first.
    train: False: nothing is; its figures need the class sizes alone.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    whole: tuple[Row, ...] = ()
    stages: tuple[Row, ...] = ()
    evaluate: tuple[str, ...] = ()
    choose: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    sharpness: dict[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    train: bool = True

    @property
    def sweeps(self) -> dict[str, tuple[Row, ...]]:
        """The rows that have values, by the name of what they are values of."""
        names = dict.fromkeys(Path(row.recipe).stem for row in self.whole if row.value is not None)
        return {name: tuple(row for row in self.whole if Path(row.recipe).stem == name and row.value) for name in names}

    def only(self, names: Sequence[str]) -> TableOfRuns:
        """The rows of these names, in the order of the table; * stands for any text.

        Raises:
            ValueError: a row that the table does not have, with the nearest ones.
        """
        for name in names:
            if not any(row.is_named(name) for row in self.rows):
                hint = did_you_mean(name, [row.name for row in self.rows])
                raise ValueError(f"--rows {name}: {self.name} has no such row.{hint}")
        return replace(self, rows=tuple(row for row in self.rows if any(row.is_named(name) for name in names)))

    def first_stages(self) -> tuple[Row, ...]:
        """What has to be trained before the rows and is none of them, each once; as the table has it, if it has it."""
        chosen, rows = [row.name for row in self.rows], {row.name: row for row in (*self.stages, *self.whole)}
        needed: dict[str, Row] = {}
        for row in self.rows:
            if row.stage is not None:
                needed[row.stage.name] = row.stage
            elif (name := row.first_stage) is not None:
                needed[Path(name).stem] = rows.get(Path(name).stem, Row(name, self.settings))
        return tuple(row for name, row in needed.items() if name not in chosen)


def read_table(name: str) -> TableOfRuns:
    """One of our tables by its name, or a file of yours.

    Raises:
        FileNotFoundError: neither, or a row whose recipe does not exist.
        ValueError: a file that does not hold a table.
    """
    path = _find(name)
    table = load_table(path)
    rows = tuple(each for row in table.rows for each in swept(_row(row, table.settings), row.sweep, str(path)))
    stages = tuple(_row(row, table.settings) for row in table.first_stages)
    source = f"{table.source} (without {table.without})" if table.without else table.source
    return TableOfRuns(
        table.name,
        table.title,
        source,
        rows,
        table.settings,
        rows,
        stages,
        table.evaluate,
        _choice(path, table.choose, rows),
        curves={Path(row.name).stem: row.curve for row in table.rows if row.curve},
        sharpness=table.sharpness,
        figures=table.figures,
        train=table.train,
    )


def _choice(path: Path, choose: Mapping[str, Any] | None, rows: Sequence[Row]) -> dict[str, Any]:
    if choose is None:
        return {}
    unknown = sorted(set(choose) - set(_CHOICE))
    if unknown:
        raise ValueError(f"{path}, choose: there is no {unknown[0]!r}.{nearest(unknown[0], _CHOICE)}")
    choice = {**_CHOICE, **choose}
    if choice["metric"] not in _METRICS:
        raise ValueError(
            f"{path}, choose: metric {choice['metric']!r} does not exist.{nearest(choice['metric'], _METRICS)}"
        )
    reserve = choice["reserve"]
    if isinstance(reserve, bool) or not isinstance(reserve, int | float) or not 0 < reserve < 1:
        raise ValueError(
            f"{path}, choose: reserve must be a share of the training samples between 0 and 1, got {reserve!r}."
        )
    if not any(row.value is not None for row in rows):
        raise ValueError(f"{path}, choose: no row has a sweep, so there is nothing to choose. Leave it out.")
    return choice


def swept(row: Row, sweep: Mapping[str, list[Any]], place: str) -> tuple[Row, ...]:
    """A row once for each value of its sweep; as it is where it has none.

    Raises:
        ValueError: there is no such setting, with the nearest ones.
    """
    if not sweep:
        return (row,)
    ((name, values),) = sweep.items()
    try:
        rows = tuple(_with_value(row, name, value) for value in values)
    except ValueError as error:
        raise ValueError(f"{place}, row {row.recipe}, sweep of {name}: {error}") from error
    folders = [each.name for each in rows]
    twice = next((value for value, folder in zip(values, folders) if folders.count(folder) > 1), None)
    if twice is not None:
        raise ValueError(f"{place}, row {row.recipe}, sweep of {name}: another value has the folder of {twice!r}.")
    return rows


def folder_of(name: str, value: Any) -> str:
    """`rho=0.05`: a value as the name of a folder."""
    return re.sub(r"[^\w.=+-]+", "_", f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")


def _with_value(row: Row, name: str, value: Any) -> Row:
    if name.startswith(OF_FIRST_STAGE):
        if row.first_stage is None:
            raise ValueError("the row has no first stage.")
        stage = _with_value(Row(row.first_stage), name.removeprefix(OF_FIRST_STAGE), value)
        return replace(row, value=(name, value), stage=stage)
    settings = row.expanded
    chosen = {kind: str(settings.get(kind, getattr(LTSamConfig, kind))) for kind in ("method", "loss")}
    setting, argument = place_of(name, chosen, option_names())
    laid = value if argument is None else {**(settings.get(setting) or {}), argument: value}
    if row.first_stage is None:  # refuse now what a training would
        config = make_run({**settings, setting: laid}).config
        config.make_choices()
        check_arguments(config)
    return replace(row, settings={**row.settings, setting: laid}, value=(name, value))


def _find(name: str) -> Path:
    for path in (Path(name), TABLES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name}: there is no such file, and no table of that name.{nearest(name, table_names())}")


def _row(row: RecipeRow, settings: dict[str, Any]) -> Row:
    """With the table's settings, which are none of a second stage's."""
    is_ours = published_rows().get(row.name) == row
    made = Row(row.name) if is_ours else Row(row.name, row.settings, row.parts, row.published, shifted=row.shifted)
    return replace(made, settings={**settings, **made.settings}) if made.first_stage is None else made
