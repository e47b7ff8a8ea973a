"""All settings of a training run: recipe, command line, and the objects they become."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from hf_ltsam import LTSamConfig
from hf_ltsam.cli.train.data_arguments import DataArguments
from hf_ltsam.cli.train.model_arguments import ModelArguments
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.recipes import find_recipe, read_recipe, recipe_names

HELP = "`ltsam train --help` lists all options."
_UNSET = object()


@dataclass(frozen=True)
class Run:
    """A training run, as asked for.

    Args:
        settings: what recipe and command line set, by name; everything else is at its default.
        words: the command line.
        program: the command of `ltsam` that they belong to.
    """

    model: ModelArguments
    data: DataArguments
    stage: SecondStageArguments
    config: LTSamConfig
    settings: dict[str, Any]
    words: tuple[str, ...]
    program: str = "train"


def parse(words: Sequence[str]) -> Run:
    """Settings of the recipe (`--config`), overridden by those of the command line.

    Raises:
        ValueError: an unknown setting, with the nearest valid ones, or a value that cannot be read.
        FileNotFoundError: there is no such recipe.
    """
    settings, recipe = read_settings(words)
    # a folder for each seed, so that the runs of one recipe do not overwrite each other
    settings.setdefault("output_dir", f"runs/{recipe or 'train'}/seed{settings.get('seed', LTSamConfig.seed)}")
    return run_of(settings, words)


def read_settings(words: Sequence[str], program: str = "train") -> tuple[dict[str, Any], str | None]:
    """What recipe and command line set, and the recipe's name where there is one.

    Raises:
        ValueError, FileNotFoundError: as `parse`.
    """
    parser = _parser(program)
    given = _given(parser, words)
    recipe = given.pop("config", None)
    settings: dict[str, Any] = {}
    if recipe is not None:
        path = find_recipe(recipe)
        settings = _given(parser, _as_words(read_recipe(path), _options(parser), str(path)))
    for kind in ("method", "loss", "adapter", "second_stage"):  # a recipe's arguments are not those of another one
        if kind in given and given[kind] != settings.get(kind):
            settings.pop(f"{kind}_args", None)
    settings |= given
    return {name: _without_json(name, value) for name, value in settings.items()}, recipe and Path(recipe).stem


def run_of(settings: dict[str, Any], words: Sequence[str], program: str = "train") -> Run:
    """The objects that settings become; a token for the Hub is from here on nowhere but in the configuration."""
    model, data, stage, config = _parser(program).parse_dict({"hub_token": None, **settings})
    shown = {name: value for name, value in settings.items() if name != "hub_token"}
    return Run(model, data, stage, config, shown, _without_token(words), program)


@cache  # 150 options take longer to declare than to read
def _parser(program: str) -> _Parser:
    of_stages = " The defaults of a second stage are those of `ltsam recipes second_stage`, whatever is shown here."
    parser = _Parser(
        [ModelArguments, DataArguments, SecondStageArguments, LTSamConfig],
        prog=f"ltsam {program}",
        usage=f"%(prog)s{' RUN' if program == 'decouple' else ''} [--config RECIPE] [--option value ...]",
        epilog="The options of model and data stand last; the others are those of LTSamConfig and transformers' Trainer."
        + (of_stages if program == "decouple" else ""),
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="A recipe: a YAML file of these options, or the name of one of ours.")
    return parser


def _without_token(words: Sequence[str]) -> tuple[str, ...]:
    """The command line as it may be shown to anybody: whoever repeats it uses a token of their own."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] != "--hub_token":
            kept.append(word)
        skip = word == "--hub_token"
    return tuple(kept)


class _Parser(HfArgumentParser):
    """Raises where argparse prints its whole usage, which has some 150 options, and exits."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[0].upper()}{message[1:]}. {HELP}")


def _given(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """The values that the words set, without defaults."""
    options = _options(parser)
    namespace, unknown = parser.parse_known_args(list(words), argparse.Namespace(**dict.fromkeys(options, _UNSET)))
    if unknown:
        _refuse(unknown[0], options)
    return {name: value for name, value in vars(namespace).items() if value is not _UNSET}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    defaults = vars(parser.parse_known_args([])[0])
    return list(defaults)


def _refuse(word: str, options: Iterable[str]) -> NoReturn:
    if not word.startswith("--"):
        raise ValueError(f"{word!r} is not an option: every value follows an option's name. {HELP}")
    name = word.removeprefix("--").partition("=")[0]
    raise ValueError(f"Unknown option --{name}.{_closest(name, options)} {HELP}")


def _as_words(settings: dict[str, Any], options: Sequence[str], path: str) -> list[str]:
    """Settings of a recipe as the command line that says the same, so that both are read by the same rules."""
    words: list[str] = []
    for name, value in settings.items():
        if name not in options:
            raise ValueError(f"{path} sets {name!r}, which does not exist.{_closest(name, options)} {HELP}")
        if name in {"method_args", "loss_args", "adapter_args", "second_stage_args"} and not isinstance(
            value, dict | None
        ):
            raise ValueError(f"{path} sets {name} to {value!r}; it must hold `name: value` on lines of its own.")
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return words


def _closest(name: str, options: Iterable[str]) -> str:
    """The suggestion alone; all 150 names would hide it."""
    return nearest(name, options).partition(" Valid:")[0]


def _without_json(name: str, value: Any) -> Any:
    """A setting whose value is JSON text as the mapping that it stands for."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} {value} is not JSON ({error}). It should look like '{{\"rho\": 0.1}}'.") from error


# ---- the settings of a second stage: its own, those of its first stage, and the defaults of all second st ----

_MOVABLE = {"dataset", "lists", "own_lists", "check_images"}  # where the data lie, not what they are
DEFAULTS = "second_stage"  # a part of recipes


@dataclass
class SecondStageArguments:
    """What becomes of the classifier of a finished run."""

    _argument_group_name = "second stage"

    second_stage: str | None = field(
        default=None,
        metadata={"help": "`ltsam decouple`: what becomes of a run's classifier: crt, lws, tau_norm or cc_sam."},
    )
    second_stage_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its hyper-parameters as JSON, for example '{\"cap\": 0.3}' for cc_sam."}
    )
    first_stage: str | None = field(
        default=None,
        metadata={
            "help": "The run it starts from: a folder, a checkpoint in it, or a recipe, whose run runs/RECIPE/seedN with "
            "this run's seed is meant."
        },
    )
    cache_features: bool = field(
        default=False,
        metadata={
            "help": "Second stages: compute what the classifier is given once, from images without augmentation. Far "
            "faster; the sources augment."
        },
    )


def first_stage_folder(value: str | None, seed: int) -> Path:
    """Where the weights of the first stage are.

    Raises:
        ValueError: none was named.
        FileNotFoundError: it is not there, or the recipe has not been run with this seed.
    """
    if value is None:
        raise ValueError("Which run? `ltsam decouple RUN --second_stage crt` names the folder of a finished one.")
    folder = Path(value)
    if folder.is_dir():
        return folder
    runs = Path("runs") / folder.name / f"seed{seed}"
    if runs.is_dir():
        return runs
    hint = (
        f" The recipe has not been run: ltsam train --config {value} --seed {seed} writes {runs}."
        if value in recipe_names()
        else ""
    )
    raise FileNotFoundError(f"--first_stage {value}: there is no such folder.{hint}")


def layered(given: dict[str, Any], first: dict[str, Any], decided: dict[str, Any]) -> dict[str, Any]:
    """All settings of a second stage: the first stage's model and data, the defaults of second stages, then what is given.

    Args:
        given: by recipe and command line.
        first: what the first stage's recipe set.
        decided: all settings of its model and data, defaults too.

    Raises:
        ValueError: a setting of model or data that is not the first stage's.
    """
    for name in sorted((set(decided) & set(given)) - _MOVABLE):
        if given[name] != decided[name]:
            raise ValueError(
                f"--{name} {given[name]}: the first stage was trained with {decided[name]}, and a second stage keeps its "
                f"model and data. Leave --{name} out."
            )
    return {**{name: first[name] for name in first if name in decided}, **read_recipe(DEFAULTS), **given}
