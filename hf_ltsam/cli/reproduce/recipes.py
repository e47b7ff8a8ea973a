"""Recipes: YAML files of settings that may inherit from one another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_ltsam.hyperparameters import nearest

RECIPES = Path(__file__).parents[2] / "recipes"


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
    hint = nearest(Path(name).stem, recipe_names()).partition(" Valid:")[0]  # hundreds would hide it
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


# ---- what the first lines of a recipe say: the published number that stands for its row ----

_GROUPS = ("many", "medium", "few")
_NUMBER = r"\d+(?:\.\d+)?"
_TARGET = re.compile(rf"({_NUMBER}) % overall" + "".join(rf"(?:, ({_NUMBER}) {group})?" for group in _GROUPS))
_NONE = "none published"


@dataclass(frozen=True)
class Target:
    """Published accuracies of a row, in percent.

    Args:
        overall: over all test images.
        many, medium, few: means over the classes of a group; None where the source has none, or groups of its own.
        source: paper, table and row, as the recipe words them.
    """

    overall: float
    many: float | None
    medium: float | None
    few: float | None
    source: str


def published_target(path: Path) -> Target | None:
    """The `# Target` of a recipe, with the source in the brackets below it.

    Returns:
        None where the recipe says that none is published, or nothing (one of your own).

    Raises:
        ValueError: the recipe has several targets, or one that cannot be read.
    """
    lines = _target_lines(path)
    if not lines or re.match(rf"{_NONE}\b", lines[0]):
        return None
    numbers = _TARGET.fullmatch(lines[0])
    if numbers is None:
        raise ValueError(
            f"{path}: the target {lines[0]!r} cannot be read. It should look like '50.7 % overall, 63.9 many, 53.0 medium, "
            f"32.5 few', groups where there are any, or '{_NONE}'."
        )
    many, medium, few = (None if number is None else _percent(path, number) for number in numbers.groups()[1:])
    return Target(_percent(path, numbers[1]), many, medium, few, _source(path, lines))


def _target_lines(path: Path) -> list[str]:
    """The words behind `# Target`, and those of the indented lines that go on with them."""
    found: list[list[str]] = []
    goes_on = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# Target "):
            found.append([line.removeprefix("# Target ").strip()])
            goes_on = True
        elif goes_on and line.startswith("#  "):
            found[-1].append(line.removeprefix("#").strip())
        else:
            goes_on = False
    if len(found) > 1:
        raise ValueError(
            f"{path} has {len(found)} lines that start with '# Target   ', and a recipe states its published number, or "
            f"'{_NONE}', in one."
        )
    return found[0] if found else []


def _source(path: Path, lines: list[str]) -> str:
    source = " ".join(lines[1:])
    if not re.fullmatch(r"\(.+\)", source):
        raise ValueError(
            f"{path}: the lines below the target should hold its source in brackets, '(AUTHORS YEAR Table N, ROW)', got "
            f"{source!r}."
        )
    return source[1:-1]


def _percent(path: Path, number: str) -> float:
    value = float(number)
    if value > 100:
        raise ValueError(f"{path}: the target states {number} %, and an accuracy has 100 at most.")
    return value
