"""Tables of recipes, as their YAML files hold them: what was measured, and row by row the parts and the published numbers.

title: what is compared on what
source: of the published numbers
without: rows of the source that the table leaves out; may be left out, as all that follow but `rows` or `blocks`
measured: {data: [...], metric: ..., evaluation: ..., note: ...}
settings: {...}              laid over every row that is trained from its start, and over first stages
unpublished: why there are no published numbers
assumed: {...}               what a row rests on that no source states
rows:
  - NAME                     a recipe of ours, or a file beside the table
  - NAME: {...}              the same with settings of its own, or a new row with `parts`
blocks:                      rows that share a title, parts, `unpublished`, `assumed` and the place in the source (`detail`)
  - {title: ..., detail: ..., parts: [...], rows: [...]}
first_stages: [...]          blocks of what the rows start from and the source has no number for

A row has any of `label` (its name in the source), `detail`, `parts`, `published` (in percent), `unpublished`, `compare`
(rows with a number to hold it against) and `assumed`; everything else in it is a setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hf_ltsam.hyperparameters import nearest

T = TypeVar("T")
RECIPES = Path(__file__).parents[1] / "recipes"
TABLES = RECIPES / "tables"
GROUPS = ("overall", "many", "medium", "few")
_OF_A_BLOCK = ("title", "detail", "parts", "unpublished", "assumed", "rows")
_OF_A_ROW = ("label", "detail", "parts", "published", "unpublished", "compare", "assumed")
_OF_A_TABLE = (
    "title", "source", "without", "measured", "settings", "unpublished", "assumed", "rows", "blocks", "first_stages",
)  # fmt: skip


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the fast one where libyaml is there
    """YAML 1.2 numbers: YAML 1.1, PyYAML's language, takes 1e-3 for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_mapping(path: Path) -> dict[str, Any]:
    """What a YAML file sets, without what it inherits.

    Raises:
        ValueError: not a YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    return mapping_of(text, str(path))


def mapping_of(text: str, origin: str) -> dict[str, Any]:
    """What a YAML text sets.

    Args:
        origin: of the text, for a refusal.

    Raises:
        ValueError: not a YAML mapping.
    """
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin} is not a YAML file: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{origin} must hold settings, `name: value` on each line, got a {type(values).__name__}.")
    return values


@dataclass(frozen=True)
class Published:
    """Published accuracies of a row, in percent.

    Args:
        overall: over all test images.
        many, medium, few: means over the classes of a group; None where the source has none, or groups of its own.
        source: paper, table and row, and how it was measured.
    """

    overall: float
    many: float | None = None
    medium: float | None = None
    few: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name, value in self.accuracies.items():
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise ValueError(f"published: {name} must be a number in percent, got {value!r}.")
            if value is not None and not 0 <= value <= 100:
                raise ValueError(f"published: {name} is {value} %, and an accuracy has 0 to 100.")

    @property
    def accuracies(self) -> dict[str, float | None]:
        """By group, overall first."""
        return {name: getattr(self, name) for name in GROUPS}


@dataclass(frozen=True)
class RecipeRow:
    """One row of a table.

    Args:
        name: of the recipe, as `--config` takes it.
        table: in which it stands.
        title: data and model.
        label: what the source calls it.
        parts: laid over each other in this order; none where the row is a recipe that stands elsewhere.
        settings: laid over parts or recipe; None takes a setting back to its default.
        unpublished: why there is no published number.
        compare: rows with a published number to hold it against.
        assumed: what the row rests on that no source states, in words.
    """

    name: str
    table: str = ""
    title: str = ""
    label: str = ""
    parts: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    published: Published | None = None
    unpublished: str = ""
    compare: tuple[str, ...] = ()
    assumed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Table:
    """Args:
    name: of its file.
    title: what is compared on what.
    source: of the published numbers, or that they are ours.
    without: rows of the source that the table leaves out.
    measured: data, metric, evaluation, note.
    settings: laid over every row that is trained from its start, and over every first stage.
    rows: in the order of the source.
    first_stages: what the rows start from, where no table has it as a row.
    """

    name: str
    title: str
    source: str
    without: str
    measured: dict[str, Any]
    settings: dict[str, Any]
    rows: tuple[RecipeRow, ...]
    first_stages: tuple[RecipeRow, ...]


def table_names() -> list[str]:
    """Of the tables that come with the package."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


@cache
def published_rows() -> dict[str, RecipeRow]:
    """The rows of the tables that come with the package, by name; each from the table that holds its parts.

    Raises:
        ValueError: two tables define one row.
    """
    tables = [load_table(TABLES / f"{name}.yaml") for name in table_names()]
    rows = [row for table in tables for row in (*table.rows, *table.first_stages) if row.parts]
    return _each_once((row.name, row, f"the table {row.table}") for row in rows)


@cache
def parts() -> dict[str, dict[str, Any]]:
    """The parts that rows are made of, by name.

    Raises:
        ValueError: two files define one part.
    """
    files = sorted(RECIPES.glob("parts/*.yaml"))
    return _each_once((name, values, file.name) for file in files for name, values in load_mapping(file).items())


def _each_once(defined: Iterable[tuple[str, T, str]]) -> dict[str, T]:
    """name -> value, of names, values and the places that define them."""
    values: dict[str, T] = {}
    places: dict[str, str] = {}
    for name, value, place in defined:
        if name in values:
            raise ValueError(f"{places[name]} and {place} both define {name}: give one of them another name.")
        values[name], places[name] = value, place
    return values


def load_table(path: Path) -> Table:
    """A table of ours, or of yours.

    Raises:
        ValueError: the file holds no table.
    """
    values = load_mapping(path)
    unknown = sorted(set(values) - set(_OF_A_TABLE))
    if unknown:
        raise ValueError(f"{path} sets {unknown[0]!r}, which no table has.{nearest(unknown[0], _OF_A_TABLE)}")
    if "rows" in values and "blocks" in values:
        raise ValueError(
            f"{path} sets both 'rows' and 'blocks': put the rows into a block, `- {{rows: [...]}}`, or take the blocks away."
        )
    blocks = values.get("blocks") or ([{"rows": values["rows"]}] if values.get("rows") else None)
    missing = [
        key for key, value in {**values, "rows": blocks}.items() if key in ("title", "source", "rows") and not value
    ]
    missing += [key for key in ("title", "source") if key not in values]
    if missing:
        raise ValueError(f"{path} has no {missing[0]!r}: a table has a title, a source and a list of rows.")
    rows = tuple(_rows(path, values, blocks or []))
    names = [Path(row.name).stem for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has the row {twice} twice.")
    return Table(
        name=path.stem,
        title=values["title"],
        source=values["source"],
        without=values.get("without", ""),
        measured=values.get("measured", {}),
        settings=_settings(path, values.get("settings")),
        rows=rows,
        first_stages=tuple(_rows(path, values, values.get("first_stages", []))),
    )


def _rows(path: Path, table: Mapping[str, Any], blocks: list[dict[str, Any]]) -> Iterator[RecipeRow]:
    for block in blocks:
        unknown = sorted(set(block) - set(_OF_A_BLOCK))
        if unknown:
            raise ValueError(f"{path} sets {unknown[0]!r}, which no block has.{nearest(unknown[0], _OF_A_BLOCK)}")
        for row in block["rows"]:
            yield _row(path, table, block, *_named(path, row))


def _named(path: Path, row: Any) -> tuple[str, dict[str, Any]]:
    """Name and values of `NAME`, or of `NAME: {...}`."""
    name, values = next(iter(row.items())) if isinstance(row, dict) and len(row) == 1 else (row, None)
    if not isinstance(name, str):
        raise ValueError(f"{path} has the row {row!r}; a row is the name of a recipe, or `NAME: {{setting: value}}`.")
    return name, _settings(path, values)


def _row(
    path: Path, table: Mapping[str, Any], block: Mapping[str, Any], name: str, values: dict[str, Any]
) -> RecipeRow:
    above = {**table, **block}
    is_new = "parts" in values
    beside = path.parent / name
    return RecipeRow(
        name=str(beside) if beside.is_file() else name,
        table=path.stem,
        title=block.get("title", ""),
        label=values.get("label", ""),
        parts=(*block.get("parts", ()), *values["parts"]) if is_new else (),
        settings={setting: value for setting, value in values.items() if setting not in _OF_A_ROW},
        published=_published(path, table, block, name, values),
        unpublished=values.get("unpublished", above.get("unpublished", "")),
        compare=tuple(values.get("compare", ())),
        assumed={**table.get("assumed", {}), **block.get("assumed", {}), **values.get("assumed", {})},
    )


def _published(
    path: Path, table: Mapping[str, Any], block: Mapping[str, Any], name: str, row: Mapping[str, Any]
) -> Published | None:
    if "published" not in row:
        return None
    place = [table["source"], f'"{row["label"]}"' if "label" in row else "", row.get("detail"), block.get("detail")]
    measured = table.get("measured", {})
    remarks = [", ".join(filter(None, place)), measured.get("evaluation"), measured.get("note")]
    numbers = row["published"]
    if not isinstance(numbers, dict) or "overall" not in numbers or set(numbers) - set(GROUPS):
        raise ValueError(
            f"{path} has published {numbers!r} in the row {name}; it should look like "
            "{overall: 50.7, many: 63.9, medium: 53.0, few: 32.5}, groups where there are any."
        )
    try:
        return Published(**numbers, source="; ".join(filter(None, remarks)))
    except ValueError as error:
        raise ValueError(f"{path}, row {name}: {error}") from error


def _settings(path: Path, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict | None):
        raise ValueError(f"{path} has settings {values!r}; they must be `name: value` on lines of their own.")
    return values or {}
