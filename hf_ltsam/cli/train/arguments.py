"""From a recipe and the options on top of it, of the command line or of a caller in Python, to a `Run`.

    run = make_run({"seed": 3, "dataset": "runs/demo/digits"}, recipe="demo/digits")     # in Python
    run = parse(["--config", "demo/digits", "--seed", "3", "--dataset", "runs/demo/digits"])

Both give the same run. A value is converted to the type of its option wherever it comes from.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool
from transformers.utils import logging

from dataset_builders.catalogue import SETS
from hf_ltsam import LOSSES, METHODS, LTSamConfig
from hf_ltsam.cli.model_names import OURS
from hf_ltsam.cli.options.names import underscored
from hf_ltsam.cli.options.parser import KINDS, OptionParser
from hf_ltsam.cli.train.defaults import FULL_BATCH, STARTS, SourceConfig
from hf_ltsam.cli.train.help import ShortHelp
from hf_ltsam.cli.train.resuming import interrupted_settings, with_resume_point
from hf_ltsam.cli.train.settings import DataArguments, ModelArguments, Run, SecondStageArguments
from hf_ltsam.data.sampling.class_sampling import UNIFORM
from hf_ltsam.hyperparameters import canonical, did_you_mean, nearest
from hf_ltsam.losses import MODEL
from hf_ltsam.runs.folder import default_folder
from hf_ltsam.runs.recipes import find_recipe, read_recipe
from hf_ltsam.runs.record import hub_name
from hf_ltsam.runs.secrets import without_secrets
from hf_ltsam.training.interruption import launched_processes
from hf_ltsam.training.second_stage import SECOND_STAGES

HELP = "`ltsam train --help all` lists all options."
CHOSEN_BY_NAME = ("method", "loss", "adapter", "second_stage")
REGISTRIES: Mapping[str, Mapping[str, Any]] = {
    "method": METHODS,
    "loss": LOSSES,
    "second_stage": SECOND_STAGES,
    "builder": SETS,
}
EXAMPLES = {  # of the hyper-parameters of what is chosen by name
    "method_args": '{"rho": 0.1}',
    "loss_args": '{"tau": 2}',
    "adapter_args": '{"r": 8}',
    "second_stage_args": '{"tau": 1}',
    "lr_scheduler_kwargs": '{"num_cycles": 1}',
}
# The loss where nothing states one, nor balances the classes already: ahead in the rare ones in every table of RESULTS.md
FIRST_LOSS = "logit_adjustment"
_DECIDED = {  # by `make_run` and `make_second_stage_run`, where nothing sets them: for the help
    "train": {
        "output_dir": "Folder of the run. Not set: runs/RECIPE/seedN, or runs/train/seedN without a recipe.",
        "learning_rate": "The initial learning rate. Not set: "
        + "; ".join(f"{start['learning_rate']:g} for {kind}" for kind, start in STARTS.items())
        + f" (from scratch with batches of {FULL_BATCH}, of smaller ones in proportion); 5e-05 where an optimizer is named.",
        "num_train_epochs": "Times that the training set is gone through, unless --max_steps is set. Not set: "
        + "; ".join(f"{start['num_train_epochs']:g} for {kind}" for kind, start in STARTS.items())
        + ".",
        "optim": "The optimizer, by transformers' names. Not set: SGD with momentum 0.9, as in all the sources; "
        "adamw_torch for fine-tuning and adapters whose learning rate is not set either.",
        "loss": f"The training loss: {', '.join(LOSSES)}, or as papers write it: LA, CE, LDAM-DRW. Not set: {FIRST_LOSS}; "
        "cross_entropy beside --reweighting or --sampling.",
        "method": f"The update rule: {', '.join(METHODS)} (see `ltsam methods`), or as papers write it. Not set: sgd, which "
        "perturbs nothing, for fine-tuning and adapters; from scratch sam in the last fifth of the training; sam beside "
        "--method_args.",
    },
    "decouple": {
        "output_dir": "Folder of the run. Not set: the first stage's, the name of the second behind it, as runs/mine_crt "
        "or runs/mine_crt/seed1; with a recipe runs/RECIPE/seedN.",
    },
}
_STEPPING = ("learning_rate", "optim", "optim_args", "lr_milestones")
PERTURBING = ("method", "method_args")
LENGTH = ("num_train_epochs", "max_steps")
_UNBALANCED = {"reweighting": "none", "sampling": UNIFORM}
SECOND_STAGE_DEFAULTS = "second_stage"  # a part of recipes
_UNSET = object()

logger = logging.get_logger(__name__)


def parse(words: Sequence[str]) -> Run:
    """The run that the options of `ltsam train` describe.

    Raises:
        ValueError: an unknown option, with the nearest valid one, or a value that cannot be read.
        FileNotFoundError: there is no such recipe.
    """
    options, recipe = read_options(words)
    return make_run(options, recipe, words)


def make_run(
    settings: Mapping[str, Any],
    recipe: str | Path | None = None,
    words: Sequence[str] | None = None,
    tell: bool = True,
) -> Run:
    """A run from values.

    Args:
        settings: by the names of the options; they override those of the recipe, and None takes one back to its default.
        recipe: a file, or the name of one of ours.
        words: the options that it was described by; None: made from the values.
        tell: whether it says what is decided where nothing states it.

    Raises:
        ValueError, FileNotFoundError: as `parse`.
    """
    everything = with_recipe(settings, recipe)
    seed: Any = everything.get("seed", SourceConfig.seed)
    everything.setdefault("output_dir", str(default_folder(Path(recipe).stem if recipe else "train", seed)))
    everything = with_resume_point(everything, settings, recipe)
    decided, before = decided_settings(everything), interrupted_settings(everything)
    if before is not None:  # began with the defaults of another release, perhaps
        together = [name for group in (LENGTH, PERTURBING) if decided.keys() & set(group) for name in group]
        names = {*decided, *together}
        decided = {name: value for name, value in before.items() if name in names}
    if tell:
        tell_decided(f"{_kind(everything)} starts" if before is None else "the run goes on as it began,", decided)
    everything = {**decided, **everything}
    return run_of(everything, options_of(settings, recipe) if words is None else words)


def decided_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Loss, method, optimizer, learning rate and length, as far as nothing states them."""
    balanced = any(settings.get(name, value) != value for name, value in _UNBALANCED.items())
    start = dict(STARTS[_kind(settings)])
    if "optim" not in start:  # SGD, whose rate goes with the batch
        start["learning_rate"] *= min(1, max(0, _batch(settings)) / FULL_BATCH)  # a batch below 0 is refused as such
    if any(name in settings for name in _STEPPING):  # which say nothing of length and method
        start = {name: value for name, value in start.items() if name in (*LENGTH, *PERTURBING)}
    if any(name in settings for name in PERTURBING):
        start = {**start, "method": LTSamConfig.method}
        start.pop("method_args", None)
    start = {"loss": FIRST_LOSS, **start}
    stated = {*settings, *(["loss"] if balanced else []), *(LENGTH if any(name in settings for name in LENGTH) else [])}
    return {name: value for name, value in start.items() if name not in stated}


def tell_decided(what: str, decided: Mapping[str, Any]) -> None:
    """What is decided where nothing states it, as it is written on a command line; nothing where all is stated."""
    if decided:
        shown = shlex.join(part for word in options_of(decided) for part in word.split("=", 1))
        logger.warning(f"Not set, so {what} with {shown}. Each of these options sets another value.")


def _batch(settings: Mapping[str, Any]) -> int:
    """Samples of an update, of all processes."""
    per_pass: int = settings.get("per_device_train_batch_size", SourceConfig.per_device_train_batch_size)
    return per_pass * settings.get("gradient_accumulation_steps", 1) * launched_processes()


def _kind(settings: Mapping[str, Any]) -> str:
    """Of a training; one of `STARTS`."""
    model = ModelArguments(**{name: settings[name] for name in ("model", "pretrained", "adapter") if name in settings})
    if model.adapter not in (None, "none"):  # which trains all blocks
        return "an adapter"
    return "training from scratch" if model.model == OURS or not model.pretrained else "fine-tuning"


def read_settings(words: Sequence[str], program: str = "train") -> tuple[dict[str, Any], str | None]:
    """What recipe and command line set, and the recipe's name where there is one.

    Raises:
        ValueError, FileNotFoundError: as `parse`.
    """
    options, recipe = read_options(words, program)
    return with_recipe(options, recipe, program), recipe and Path(recipe).stem


def read_options(words: Sequence[str], program: str = "train") -> tuple[dict[str, Any], str | None]:
    """The options that a command line states, without defaults, and the recipe that it names.

    Raises:
        ValueError: an unknown option, with the nearest valid one, or a value that cannot be read.
    """
    unset = argparse.Namespace(**dict.fromkeys([*_options(program), "config"], _UNSET))
    stated = _parser(program).parse_args(words, unset)
    values = {name: value for name, value in vars(stated).items() if value is not _UNSET}
    recipe = values.pop("config", None)
    return {name: _from_words(name, value) for name, value in values.items()}, recipe


def with_recipe(
    settings: Mapping[str, Any], recipe: str | Path | None = None, program: str = "train"
) -> dict[str, Any]:
    """Settings over those of a recipe, each in the type of its option; None takes one of the recipe's away.

    Raises:
        ValueError: an unknown setting, with the nearest valid one, or a value of another type.
        FileNotFoundError: there is no such recipe.
    """
    below: dict[str, Any] = {}
    if recipe is not None:
        path = find_recipe(str(recipe))
        below = _typed(read_recipe(path), str(path), program)
    above = _typed(settings, "The caller", program)
    for kind in CHOSEN_BY_NAME:  # the recipe's hyper-parameters are not those of another method or loss
        if kind in settings and above.get(kind) != below.get(kind):
            below.pop(f"{kind}_args", None)
    if below.get("head") == "cosine" and settings.get("head", "cosine") != "cosine":  # nor is its scale a linear one's
        below = {name: value for name, value in below.items() if name not in ("cosine_scale", "learnable_scale")}
    return {name: value for name, value in {**below, **above}.items() if settings.get(name, value) is not None}


def run_of(settings: Mapping[str, Any], words: Sequence[str], program: str = "train") -> Run:
    """The dataclasses that settings become; from here on a secret is nowhere but in them."""
    try:
        model, data, stage, config = _parser(program).parse_dict({"hub_token": None, **settings})
    except ValueError as error:
        nearest_words = _in_nearest_words(error, settings)
        if nearest_words is None:
            raise
        raise nearest_words from error
    if config.loss == MODEL:
        raise ValueError(
            "--loss model is for models of any kind, and so for LTSamTrainer in Python: `ltsam train` classifies images and "
            "texts. Take --loss cross_entropy, which is the loss of most classifiers themselves."
        )
    shown = without_secrets({name: value for name, value in settings.items() if name != "hub_token"})
    names = {"dataset": hub_name(data.dataset), "model": hub_name(model.model) if model.pretrained else None}
    hub = {kind: name for kind, name in names.items() if name is not None}
    return Run(model, data, stage, config, shown, _without_token(words), program, hub)


def _in_nearest_words(error: ValueError, settings: Mapping[str, Any]) -> ValueError | None:
    """For the refusal of a value by one of transformers' enums, which does not know of which setting; None for others."""
    refused = re.match(r"(.+) is not a valid \w+, please select one of \[(.*)\]", str(error))
    names = [name for name, value in settings.items() if refused and str(value) == refused[1]]
    if refused is None or not names:
        return None
    valid = re.findall(r"'([^']+)'", refused[2])
    return ValueError(f"--{names[0]} {refused[1]} does not exist.{nearest(refused[1], valid)}")


def options_of(settings: Mapping[str, Any], recipe: str | Path | None = None, program: str = "train") -> list[str]:
    """The options of `ltsam train` that state these settings.

    None has no spelling there: a recipe from which something is taken away is written out without it.
    """
    if recipe is not None and None in settings.values():
        settings, recipe = with_recipe(settings, recipe, program), None
    words = [] if recipe is None else [f"--config={recipe}"]
    for name, value in settings.items():
        value = _plain(value)
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict | bool) else value}")
    return words


def _typed(settings: Mapping[str, Any], origin: str, program: str) -> dict[str, Any]:
    """Each value in the type of its option, in the order of the options; without those that are None."""
    options = _options(program)
    for name in settings:
        if name not in options:
            raise ValueError(f"{origin} sets {name!r}, which does not exist.{did_you_mean(name, options)} {HELP}")
    return {
        name: _named(name, _plain(_value(option, value, f"{origin} sets {name} to {value!r}")))
        for name, option in options.items()
        if (value := _plain(settings.get(name))) is not None
    }


def _named(setting: str, value: Any) -> Any:
    """What is chosen by name under the key of its registry."""
    registry = REGISTRIES.get(setting)
    return canonical(registry, value) if registry and isinstance(value, str) else value


def _value(option: argparse.Action, value: Any, statement: str) -> Any:
    """A value in the type of its option.

    Args:
        statement: who sets it and to what, for a refusal.
    """
    if isinstance(value, str):
        value = _mapping(value, statement)
    if option.dest in EXAMPLES and not isinstance(value, dict):
        raise ValueError(f"{statement}; it must be a mapping, such as {EXAMPLES[option.dest]}.")
    if isinstance(value, dict) and option.type is str:
        return value
    if option.nargs == "+":
        return [_one_value(option, each, statement) for each in (value if isinstance(value, list) else [value])]
    return _one_value(option, value, statement)


def _plain(value: Any) -> Any:
    """A value as YAML holds it: of transformers' enums, such as `IntervalStrategy.EPOCH`, what they stand for."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, Enum) else value


def _one_value(option: argparse.Action, value: Any, statement: str) -> Any:
    """Read as from the command line, so that 1 and "1" are the same and 2.7 is no whole number."""
    if isinstance(value, list):
        raise ValueError(f"{statement}; it takes one value.")
    read: Any = option.type
    if option.const is True and str(value).lower() in ("true", "false"):  # of an option that is a flag as well
        return string_to_bool(str(value))
    if type(value) is read and option.choices is None:
        return value
    try:
        converted = read(str(value))
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{statement}; it must be {KINDS.get(read.__name__, 'one of its values')}.") from error
    if option.choices is not None and converted not in option.choices:
        raise ValueError(f"{statement}, which does not exist.{nearest(str(value), map(str, option.choices))}")
    return converted


def _from_words(name: str, value: Any) -> Any:
    """The value of an option on the command line, where a mapping is JSON text."""
    read = _mapping(value, f"--{name} {value}", EXAMPLES.get(name))
    if name in EXAMPLES and not isinstance(read, dict):
        raise ValueError(f"--{name} {value} is no mapping. It should look like --{name} '{EXAMPLES[name]}'.")
    return read


def _mapping(value: Any, statement: str, example: str | None = None) -> Any:
    """JSON text as the mapping that it stands for; any other value as it is."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        shown = example or EXAMPLES["method_args"]
        raise ValueError(f"{statement} is not JSON ({error}). It should look like '{shown}'.") from error


class _Parser(OptionParser, HfArgumentParser):
    """A parser made of dataclasses."""

    @property
    def _help(self) -> str:
        return f"`{self.prog} --help all` lists all options."


@cache  # 150 options take longer to declare than to read
def _parser(program: str) -> _Parser:
    of_stages = " A second stage keeps the first one's model and data, whatever is shown here."
    parser = _Parser(
        [ModelArguments, DataArguments, SecondStageArguments, SourceConfig],
        prog=f"ltsam {program}",
        usage=f"%(prog)s{' RUN' if program == 'decouple' else ''} [--config RECIPE] [--option value ...]",
        epilog="`ltsam methods NAME` shows the hyper-parameters of a method, for --method_args."
        + (of_stages if program == "decouple" else ""),
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=ShortHelp)
    parser.add_argument("--config", help="A recipe: a YAML file of these options, or the name of one of ours.")
    for name, shown in _DECIDED[program].items():
        next(action for action in parser._actions if action.dest == name).help = shown
    if program == "decouple":
        parser.set_defaults(**read_recipe(SECOND_STAGE_DEFAULTS))  # for the help
    return parser


def option_names() -> list[str]:
    """The settings of `ltsam train` by name."""
    return list(_options("train"))


@cache
def _options(program: str) -> dict[str, argparse.Action]:
    """The options by name, without --help and --config; argparse lists them nowhere else."""
    options: dict[str, argparse.Action] = {}
    for action in _parser(program)._actions:
        options.setdefault(action.dest, action)  # --flip, not --no_flip
    return {name: action for name, action in options.items() if name not in ("help", "config")}


def _without_token(words: Sequence[str]) -> tuple[str, ...]:
    """The command line as it may be shown to anybody: whoever repeats it uses a token of their own."""
    kept: list[str] = []
    skip = False
    for word in map(underscored, words):
        name, equals, _ = word.partition("=")
        if not skip and name != "--hub_token":
            kept.append(word)
        skip = name == "--hub_token" and not equals
    return tuple(without_secrets(kept))
