"""Recipes: YAML files of settings that may inherit from one another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hf_ltsam.registry import nearest

RECIPES = Path(__file__).parent / "recipes"


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: YAML 1.1, PyYAML's language, takes 1e-3 for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_recipe(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a recipe, laid over those it inherits.

    `inherits` names one file or several, relative to the recipe; a later one overrides an earlier one. A mapping such
    as `method_args` replaces the inherited one as a whole, and null takes a setting back to its default.

    Args:
        path: of the YAML file.
        below: the files that inherit from this one.

    Raises:
        ValueError: not a YAML mapping, or files that inherit from each other.
        FileNotFoundError: an inherited file does not exist.
    """
    path = path.resolve()
    if path in below:
        raise ValueError(f"{path} inherits from itself: {' <- '.join(p.name for p in (*below, path))}.")
    values = load_mapping(path)
    inherited = values.pop("inherits", None) or []
    if not isinstance(inherited, str | list):
        raise ValueError(f"{path} sets inherits to {inherited!r}; it must name one file or a list of files.")
    settings: dict[str, Any] = {}
    for name in [inherited] if isinstance(inherited, str) else inherited:
        if not (path.parent / name).is_file():
            raise FileNotFoundError(f"{path} inherits from {name}, which is not at {path.parent / name}.")
        settings.update(read_recipe(path.parent / name, (*below, path)))
    return {**settings, **values}


def find_recipe(name: str) -> Path:
    """A path as it is, or one of our recipes by its name.

    Raises:
        FileNotFoundError: neither, with the nearest ones.
    """
    for path in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    hint = nearest(Path(name).stem, recipe_names()).partition(" Valid:")[0]        # hundreds would hide it
    raise FileNotFoundError(
        f"--config {name}: there is no such file, and no recipe of that name in {RECIPES}, where "
        f"cifar100_lt_ir100_la_focal_sam is, for example.{hint}"
    )


def recipe_names() -> list[str]:
    """Names of the recipes that stand for one row of a table each."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_mapping(path: Path) -> dict[str, Any]:
    """What a YAML file sets, without what it inherits.

    Raises:
        ValueError: not a YAML mapping.
    """
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold settings, `name: value` on each line, got a {type(values).__name__}.")
    return values
