"""Recipes: settings in files, in parts and in the rows of tables, laid over each other, and where each number comes from.

A recipe of your own is a YAML file of settings. `inherits` names what it is laid over: files beside it, rows of the
published tables, parts.

    inherits: cifar100_lt_ir100_la_focal_sam
    method_args: {rho: 0.4, gamma: 3.2, lam: 0.8}

In place of a value there may be `{value: 0.4, source: ...}`, with `assumed` or `ours` in place of `source`; which is
which says `recipes/parts/data.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hf_ltsam.hyperparameters import did_you_mean
from hf_ltsam.runs.recipe_files import load_mapping
from hf_ltsam.runs.recipe_tables import RecipeRow, parts, published_rows

__all__ = [
    "Expanded", "Origin", "RecipeRow", "assumptions", "expand", "find_recipe", "load_mapping", "nearest_recipes",
    "read_recipe", "recipe_names", "row_of",
]  # fmt: skip

DEEPEST = 20  # recipes that inherit from each other
_KINDS = ("source", "assumed", "ours")
_CONDITIONS = ("stated_with", "used_by")
_IDENTITY = ("builder", "model", "adapter", "loss", "method", "second_stage")  # what settings must share with their row


@dataclass(frozen=True)
class Origin:
    """Where a number comes from.

    Args:
        kind: "source" (who states it), "assumed" (nobody does, and a published row rests on it) or "ours" (a choice that
            no result of a source hangs on).
        words: the source, or what stands in for one.
        stated_with: parts that a recipe must have for the source to state it; in others it is assumed.
        used_by: methods that read the setting; empty: all.
    """

    kind: str
    words: str
    stated_with: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()

    def assumption(self, names: frozenset[str], method: str | None) -> str | None:
        """In words, of a recipe with these parts and this method; None where there is none to make."""
        return self._unstated(names) if not self.used_by or method in self.used_by else None

    def _unstated(self, names: frozenset[str]) -> str | None:
        if self.kind == "assumed":
            return self.words
        if self.kind == "source" and not names.issuperset(self.stated_with):
            return f"stated for other recipes only: {self.words}"
        return None


@dataclass(frozen=True)
class Expanded:
    """A recipe with all that it inherits.

    Args:
        settings: by name.
        origins: of the numbers, by name; `method_args.rho` of an argument.
        names: of the parts, rows and files that it is made of.
        assumed: of rows, what they rest on besides single numbers.
    """

    settings: dict[str, Any]
    origins: dict[str, Origin]
    names: frozenset[str]
    assumed: dict[str, str] = field(default_factory=dict)

    @property
    def assumptions(self) -> dict[str, str]:
        """Setting -> what it rests on."""
        method = self.settings.get("method")
        words = {name: origin.assumption(self.names, method) for name, origin in self.origins.items()}
        return {**self.assumed, **{name: said for name, said in words.items() if said is not None}}


@dataclass(frozen=True)
class _Layer:
    """Settings in one place: `folder` is where the files lie that it may inherit."""

    name: str
    values: Mapping[str, Any]
    folder: Path | None = None
    assumed: Mapping[str, str] = field(default_factory=dict)


def read_recipe(recipe: Path | RecipeRow | str) -> dict[str, Any]:
    """The settings of a recipe, laid over those it inherits.

    A later one of `inherits` overrides an earlier one. A mapping such as `method_args` replaces the inherited one as a
    whole, and null takes a setting back to its default.

    Args:
        recipe: a file, a row, or the name of a row or part.

    Raises:
        ValueError: not a YAML mapping, or recipes that inherit from each other.
        FileNotFoundError: what it inherits does not exist.
    """
    return expand(recipe).settings


def expand(recipe: Path | RecipeRow | str) -> Expanded:
    """Settings and where they come from.

    Raises:
        ValueError, FileNotFoundError: as `read_recipe`.
    """
    if isinstance(recipe, Path):
        return _expand(_file(recipe), (), {})
    layer = _row(recipe) if isinstance(recipe, RecipeRow) else _of_ours(recipe)
    if layer is None:
        raise FileNotFoundError(f"{recipe}: there is no recipe or part of that name.{nearest_recipes(str(recipe))}")
    return _expand(layer, (), {})


def find_recipe(name: str) -> Path | RecipeRow:
    """A path as it is, or one of our rows by its name.

    Raises:
        FileNotFoundError: neither, with the nearest ones.
    """
    if Path(name).is_file():
        return Path(name)
    if name in published_rows():
        return published_rows()[name]
    raise FileNotFoundError(
        f"--config {name}: no such file or recipe; recipe names look like cifar100_lt_ir100_la_focal_sam."
        f"{nearest_recipes(name)} `ltsam recipes` lists all."
    )


def recipe_names() -> list[str]:
    """Names of the rows of all tables that come with the package."""
    return sorted(published_rows())


def nearest_recipes(name: str) -> str:
    """The end of an error message: the names that come closest; hundreds would hide them."""
    names = recipe_names()
    is_ours = any(known.startswith(f"{Path(name).parent}/") for known in names)
    return did_you_mean(name if is_ours else Path(name).stem, names)


def assumptions(recipe: Path | RecipeRow | str | Mapping[str, Any]) -> dict[str, str]:
    """What a recipe rests on that no source states: setting -> words.

    Args:
        recipe: a file, a row, its name, or the settings of a run, which are looked up by `row_of`.

    Returns:
        Empty where all is stated, and for settings that are those of no row. Of a run, only what it has as the row has it.
    """
    if not isinstance(recipe, Mapping):
        return expand(recipe).assumptions
    row = row_of(recipe)
    if row is None:
        return {}
    expanded = expand(row)
    return {
        name: words
        for name, words in expanded.assumptions.items()
        if name in expanded.assumed or _argument(recipe, name) == _argument(expanded.settings, name)
    }


def row_of(settings: Mapping[str, Any]) -> RecipeRow | None:
    """The row that a run's settings come nearest to: data, model, loss and method are the same, and most other settings.

    Of several, the one that sets least besides: a training with spectral normalisation contains the one without it.
    """
    candidates = [
        ((sum(settings.get(name) == value for name, value in values.items()), -len(values)), row)
        for row, values in _settings_of_rows()
        if all(values.get(name) == settings.get(name) for name in _IDENTITY)
    ]
    return max(candidates, key=lambda candidate: candidate[0], default=((0, 0), None))[1]


@cache
def _settings_of_rows() -> list[tuple[RecipeRow, dict[str, Any]]]:
    return [(row, read_recipe(row)) for row in published_rows().values()]


def _argument(settings: Mapping[str, Any], name: str) -> Any:
    """`method_args.rho`, or a setting itself."""
    setting, _, argument = name.partition(".")
    value = settings.get(setting)
    return value.get(argument) if argument and isinstance(value, Mapping) else value


def _expand(layer: _Layer, below: tuple[str, ...], expanded: dict[tuple[Path | None, str], Expanded]) -> Expanded:
    """A recipe over what it inherits.

    Args:
        below: names of those that inherit it.
        expanded: (folder, name) -> what has been read before, so that a file that many inherit is read once.
    """
    if len(below) > DEEPEST:
        raise ValueError(
            f"{layer.name} is inherited through more than {DEEPEST} recipes: {Path(below[0]).name} <- ...."
        )
    if layer.name in below:
        raise ValueError(
            f"{layer.name} inherits from itself: {' <- '.join(Path(name).name for name in (*below, layer.name))}."
        )
    inherited = layer.values.get("inherits") or []
    names_of = [inherited] if isinstance(inherited, str) else inherited
    if not isinstance(names_of, list) or not all(isinstance(name, str) for name in names_of):
        raise ValueError(f"{layer.name} sets inherits to {inherited!r}; it must name one recipe or a list of them.")
    settings: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    names, assumed = frozenset([layer.name]), dict[str, str]()
    for name in names_of:
        key = (layer.folder, name)
        if key not in expanded:
            expanded[key] = _expand(_inherited(layer, name), (*below, layer.name), expanded)
        above = expanded[key]
        _lay(settings, origins, above.settings, above.origins)
        names, assumed = names | above.names, {**assumed, **above.assumed}
    _lay(settings, origins, *_read({name: value for name, value in layer.values.items() if name != "inherits"}))
    return Expanded(settings, origins, names, {**assumed, **layer.assumed})


def _lay(
    settings: dict[str, Any], origins: dict[str, Origin], upper: Mapping[str, Any], sources: Mapping[str, Origin]
) -> None:
    """Settings and their origins over others; what is replaced loses its origin."""
    for name in [name for name in origins if name.partition(".")[0] in upper]:
        del origins[name]
    settings.update(upper)
    origins.update(sources)


def _inherited(layer: _Layer, name: str) -> _Layer:
    if layer.folder is not None and (layer.folder / name).is_file():
        return _file(layer.folder / name)
    if (ours := _of_ours(name)) is not None:
        return ours
    place = "" if layer.folder is None else f" at {layer.folder / name}"
    raise FileNotFoundError(
        f"{layer.name} inherits from {name}, which is no file{place}, no recipe and no part of one.{nearest_recipes(name)}"
    )


def _file(path: Path) -> _Layer:
    path = path.resolve()
    return _Layer(str(path), load_mapping(path), path.parent)


def _of_ours(name: str) -> _Layer | None:
    """A row or a part by its name."""
    if name in published_rows():
        return _row(published_rows()[name])
    return _Layer(name, parts()[name]) if name in parts() else None


def _row(row: RecipeRow) -> _Layer:
    return _Layer(row.name, {"inherits": list(row.parts), **row.settings}, None, row.assumed)


def _read(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Values, and the origins of those that state one."""
    settings: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for name, value in values.items():
        if _has_origin(value):
            settings[name], origins[name] = deepcopy(value["value"]), _origin(value)
        elif isinstance(value, dict):
            settings[name], arguments = _read(value)
            origins.update({f"{name}.{argument}": origin for argument, origin in arguments.items()})
        else:
            settings[name] = deepcopy(value)
    return settings, origins


def _has_origin(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value and any(kind in value for kind in _KINDS)


def _origin(value: Mapping[str, Any]) -> Origin:
    kind = next(kind for kind in _KINDS if kind in value)
    return Origin(kind, str(value[kind]), **{name: _names(value[name]) for name in _CONDITIONS if name in value})


def _names(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
