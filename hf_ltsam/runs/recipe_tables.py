"""Tables of recipes, as their YAML files hold them: what was measured, and row by row the parts and the published numbers.

title: what is compared on what
source: of the published numbers
without: rows of the source that the table leaves out; may be left out, as all that follow but `rows` or `blocks`
measured: {data: [...], metric: ..., evaluation: ..., note: ...}
settings: {...}              laid over every row that is trained from its start, and over first stages
unpublished: why there are no published numbers
assumed: {...}               what a row rests on that no source states
sweep: {rho: [0.05, 0.1]}    every row once with each value of one setting; `first_stage.rho` is one of a row's first stage
choose: {metric: balanced, reserve: 0.2}     the value that training images choose, as `ltsam tune` does
evaluate: [imagenet_c]       other test sets for every run that has ended, as `ltsam evaluate` names them
sharpness: {classes: [0, 9]} options of `ltsam sharpness`, for the first seed of every row
figures: [spectra]           figures of the report that are shown first in `table.md`
train: false                 nothing is trained: the figures need class sizes alone
corruptions: [fog, ...]      the order of the published corruption errors (`ce`)
rows:
  - NAME                     a recipe of ours, or a file beside the table
  - NAME: {...}              the same with settings of its own, or a new row with `parts`
blocks:                      rows that share a title, parts, `unpublished`, `assumed` and the place in the source (`detail`)
  - {title: ..., detail: ..., parts: [...], rows: [...]}
first_stages: [...]          blocks of what the rows start from and the source has no number for

A row has any of `label` (its name in the source), `detail`, `parts`, `published` (in percent), `unpublished`, `compare`
(rows with a number to hold it against), `assumed`, a `sweep` of its own, its published `curve` (`- {at: 0.05, few: 63}`) and
`shifted` (published numbers on other test sets); everything else in it is a setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.recipe_files import load_mapping

T = TypeVar("T")
RECIPES = Path(__file__).parents[1] / "recipes"
TABLES = RECIPES / "tables"
GROUPS = ("overall", "many", "medium", "few")
_TEXT, _LIST, _MAPPING = (str, "text"), (list, "a list"), (dict, "`name: value` on lines of their own")
_OF_A_BLOCK = {
    "title": _TEXT, "detail": _TEXT, "parts": _LIST, "unpublished": _TEXT, "assumed": _MAPPING, "rows": _LIST,
}  # fmt: skip
_OF_A_ROW = {
    "label": _TEXT, "detail": _TEXT, "parts": _LIST, "published": _MAPPING, "unpublished": _TEXT, "compare": _LIST,
    "assumed": _MAPPING, "sweep": _MAPPING, "curve": _LIST, "shifted": _MAPPING,
}  # fmt: skip
_OF_A_TABLE = {
    "title": _TEXT, "source": _TEXT, "without": _TEXT, "measured": _MAPPING, "settings": _MAPPING, "unpublished": _TEXT,
    "assumed": _MAPPING, "sweep": _MAPPING, "choose": _MAPPING, "evaluate": _LIST, "corruptions": _LIST, "rows": _LIST,
    "blocks": _LIST, "first_stages": _LIST, "sharpness": _MAPPING, "figures": _LIST, "train": (bool, "true or false"),
}  # fmt: skip
_MEASURED = {"metric": _TEXT, "evaluation": _TEXT, "note": _TEXT}
_NAMES = ("parts", "compare", "evaluate", "corruptions", "figures")  # lists of them


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
class Point:
    """A published point of a sweep's curve: accuracies in percent, by group, at a value."""

    at: Any
    accuracies: dict[str, float]


@dataclass(frozen=True)
class PublishedShift:
    """Published numbers on another test set, in percent.

    Args:
        accuracies: by group, of those that are published; under corruptions means over all of them.
        mce: mean corruption error.
        ce: corruption -> its error relative to AlexNet's.
    """

    accuracies: dict[str, float]
    mce: float | None = None
    ce: dict[str, float] = field(default_factory=dict)


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
        sweep: a setting and its values; empty: the row is run as it is.
        curve: published points of the sweep.
        shifted: test set -> published numbers.
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
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    curve: tuple[Point, ...] = ()
    shifted: dict[str, PublishedShift] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Table:
    """Args:
    name: of its file.
    title, source, without, measured, sharpness, figures, train: as the file states them.
    settings: laid over every row that is trained from its start, and over every first stage.
    rows: in the order of the source.
    first_stages: what the rows start from, where no table has it as a row.
    evaluate: names of other test sets.
    choose: metric and reserve by which the value of a sweep is chosen, as the file states them; None: none is.
    """

    name: str
    title: str
    source: str
    without: str
    measured: dict[str, Any]
    settings: dict[str, Any]
    rows: tuple[RecipeRow, ...]
    first_stages: tuple[RecipeRow, ...]
    evaluate: tuple[str, ...] = ()
    choose: dict[str, Any] | None = None
    sharpness: dict[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    train: bool = True


def table_names() -> list[str]:
    """Of the tables that come with the package."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


@cache
def published_tables() -> tuple[Table, ...]:
    """Those that come with the package, in the order of their names."""
    return tuple(load_table(TABLES / f"{name}.yaml") for name in table_names())


@cache
def published_rows() -> dict[str, RecipeRow]:
    """The rows of the tables that come with the package, by name; each from the table that holds its parts.

    Raises:
        ValueError: two tables define one row.
    """
    rows = [row for table in published_tables() for row in (*table.rows, *table.first_stages) if row.parts]
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
    _check_types(str(path), values, _OF_A_TABLE)
    _check_types(f"{path}, measured", values.get("measured") or {}, _MEASURED)
    if "rows" in values and "blocks" in values:
        raise ValueError(
            f"{path} sets both 'rows' and 'blocks': put the rows into a block, `- {{rows: [...]}}`, or take the blocks away."
        )
    blocks = values.get("blocks") or ([{"rows": values["rows"]}] if values.get("rows") else None)
    missing = [key for key in ("title", "source", "rows") if not {**values, "rows": blocks}.get(key)]
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
        without=values.get("without") or "",
        measured=values.get("measured") or {},
        settings=_settings(path, values.get("settings")),
        rows=rows,
        first_stages=tuple(_rows(path, {**values, "sweep": None}, values.get("first_stages") or [])),
        evaluate=tuple(values.get("evaluate") or ()),
        choose=values.get("choose"),
        sharpness=values.get("sharpness") or {},
        figures=tuple(values.get("figures") or ()),
        train=values.get("train", True),
    )


def _rows(path: Path, table: Mapping[str, Any], blocks: list[dict[str, Any]]) -> Iterator[RecipeRow]:
    for block in blocks:
        if not isinstance(block, dict) or "rows" not in block:
            raise ValueError(f"{path} has the block {block!r}; a block has rows: `- {{title: ..., rows: [...]}}`.")
        _check_types(f"{path}, a block", block, _OF_A_BLOCK)
        unknown = sorted(set(block) - set(_OF_A_BLOCK))
        if unknown:
            raise ValueError(f"{path} sets {unknown[0]!r}, which no block has.{nearest(unknown[0], _OF_A_BLOCK)}")
        for row in block["rows"] or []:
            yield _row(path, table, block, *_named(path, row))


def _named(path: Path, row: Any) -> tuple[str, dict[str, Any]]:
    """Name and values of `NAME`, or of `NAME: {...}`."""
    name, values = next(iter(row.items())) if isinstance(row, dict) and len(row) == 1 else (row, None)
    if not isinstance(name, str):
        raise ValueError(f"{path} has the row {row!r}; a row is the name of a recipe, or `NAME: {{setting: value}}`.")
    settings = _settings(path, values)
    _check_types(f"{path}, row {name}", settings, {key: kind for key, kind in _OF_A_ROW.items() if key != "published"})
    return name, settings


def _check_types(place: str, values: Mapping[str, Any], kinds: Mapping[str, tuple[type, str]]) -> None:
    """Refuse what a table cannot mean.

    Raises:
        ValueError: naming the place, the key and the value.
    """
    for name, (kind, words) in kinds.items():
        value = values.get(name)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{place} sets {name} to {value!r}; it must be {words}.")
        if name in _NAMES and isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise ValueError(f"{place} sets {name} to {value!r}; it must list names.")


def _row(
    path: Path, table: Mapping[str, Any], block: Mapping[str, Any], name: str, values: dict[str, Any]
) -> RecipeRow:
    above = {**table, **block}
    is_new = "parts" in values
    return RecipeRow(
        name=next((str(file) for end in ("", ".yaml") if (file := path.parent / f"{name}{end}").is_file()), name),
        table=path.stem,
        title=block.get("title") or "",
        label=values.get("label") or "",
        parts=(*(block.get("parts") or ()), *(values["parts"] or ())) if is_new else (),
        settings={setting: value for setting, value in values.items() if setting not in _OF_A_ROW},
        published=_published(path, table, block, name, values),
        unpublished=values.get("unpublished") or above.get("unpublished") or "",
        compare=tuple(values.get("compare") or ()),
        assumed={
            name: words for place in (table, block, values) for name, words in (place.get("assumed") or {}).items()
        },
        sweep=_sweep(path, name, values.get("sweep") or above.get("sweep") or {}),
        curve=tuple(_point(path, name, point) for point in values.get("curve") or ()),
        shifted={
            of_set: _shift(f"{path}, row {name}, shifted {of_set}", numbers, table.get("corruptions") or ())
            for of_set, numbers in (values.get("shifted") or {}).items()
        },
    )


def _sweep(path: Path, row: str, sweep: Mapping[str, Any]) -> dict[str, list[Any]]:
    if not sweep:
        return {}
    values = next(iter(sweep.values()))
    if len(sweep) > 1 or not isinstance(values, list) or len(values) < 2:
        raise ValueError(
            f"{path}, row {row} has the sweep {dict(sweep)!r}; it names one setting and two values or more: "
            "`sweep: {rho: [0.05, 0.1]}`."
        )
    twice = next((value for k, value in enumerate(values) if value in values[:k]), None)
    if twice is not None:
        raise ValueError(f"{path}, row {row}: the sweep has the value {twice!r} twice.")
    return dict(sweep)


def _point(path: Path, row: str, point: Any) -> Point:
    if not isinstance(point, dict) or "at" not in point or len(point) < 2:
        raise ValueError(
            f"{path}, row {row} has the point {point!r} in its curve; it should look like {{at: 0.05, few: 63.0}}."
        )
    numbers = {name: number for name, number in point.items() if name != "at"}
    return Point(point["at"], _accuracies(f"{path}, row {row}, curve at {point['at']}", numbers))


def _shift(place: str, numbers: Any, corruptions: Sequence[str]) -> PublishedShift:
    if not isinstance(numbers, dict) or not numbers:
        raise ValueError(
            f"{place} is {numbers!r}; it should look like {{overall: 36.4, many: 42.9, medium: 35.5, few: 21.4}}."
        )
    errors = numbers.get("ce") or []
    if len(errors) not in (0, len(corruptions)):
        raise ValueError(
            f"{place} has {len(errors)} corruption errors, and the table names {len(corruptions)} corruptions."
        )
    groups = {name: number for name, number in numbers.items() if name not in ("ce", "mce")}
    return PublishedShift(_accuracies(place, groups), numbers.get("mce"), dict(zip(corruptions, errors)))


def _accuracies(place: str, numbers: Mapping[str, Any]) -> dict[str, float]:
    unknown = sorted(set(numbers) - set(GROUPS))
    if unknown:
        raise ValueError(f"{place} has no {unknown[0]!r}.{nearest(unknown[0], GROUPS)}")
    try:
        Published(**{"overall": 0.0, **numbers})
    except ValueError as error:
        raise ValueError(f"{place}: {str(error).removeprefix('published: ')}") from error
    return dict(numbers)


def _published(
    path: Path, table: Mapping[str, Any], block: Mapping[str, Any], name: str, row: Mapping[str, Any]
) -> Published | None:
    if "published" not in row:
        return None
    place = [table["source"], f'"{row["label"]}"' if "label" in row else "", row.get("detail"), block.get("detail")]
    measured = table.get("measured") or {}
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
