"""Parsers whose refusals are one message, with the nearest option or value, where argparse prints its usage and exits."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Sequence
from enum import EnumMeta
from typing import Any, ClassVar, NoReturn

from hf_ltsam.cli.options.names import underscored
from hf_ltsam.cli.options.wording import holders_of, in_options
from hf_ltsam.hyperparameters import did_you_mean, nearest

KINDS = {  # name of a type -> what its values are
    "int": "a whole number",
    "float": "a number",
    "string_to_bool": "true or false",
    "_positive": "a whole number of at least 1",
}
PLACES = ("config", "dataset", "model", "output", "output_dir", "run")  # an empty text would be the present folder
_CUSTOMARY = {  # names of other programs, which no letter brings near ours
    "lr": "learning_rate",
    "wd": "weight_decay",
    "epochs": "num_train_epochs",
    "bs": "per_device_train_batch_size",
    "batch_size": "per_device_train_batch_size",
    "workers": "dataloader_num_workers",
    "data": "dataset",
    "arch": "model",
}
_SAID = {  # argparse's findings in our words
    r"^(--\w+)/--[\w-]+": r"\1",  # one of the two spellings
    r"^COMMAND: ": "",
    r"\.$": "",
    r"^the following arguments are required: ": "Missing: ",
    r": expected (one argument|at least one argument)$": " stands without its value",
    r": expected (\d+) arguments$": r" takes \1 values",
    r": ignored explicit argument (.*)$": r" takes no value, got \1",
}


class OptionParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that raises `ValueError`; options are spelled with - or _ and never abbreviated.

    Args:
        behind_dashes: gives the options of the trainings that a command starts, which stand behind `--` there.

    Class attributes:
        declared: the options of the command that was read last, in whose words its errors are told.
        flags: those of them that take no value.
    """

    declared: ClassVar[frozenset[str]] = frozenset()
    flags: ClassVar[frozenset[str]] = frozenset()

    def __init__(  # and argparse's arguments
        self, *args: Any, behind_dashes: Callable[[], Collection[str]] = tuple, **kwargs: Any
    ) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self._behind_dashes = behind_dashes

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        stated, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(*unknown[:2])
        return stated

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        OptionParser.declared = frozenset(option.removeprefix("--") for option in self._options())
        OptionParser.flags = frozenset(a.dest for a in self._actions if a.option_strings and a.nargs == 0)
        words = None if args is None else [underscored(str(word)) for word in args]
        return super().parse_known_args(words, namespace)

    @classmethod
    def worded(cls, message: str) -> str:
        """A message in the words of the command that was read last."""
        return in_options(message, cls.declared, cls.flags)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, in our words."""
        text = message.removeprefix("argument ")
        for found, said in _SAID.items():
            text = re.sub(found, said, text)
        raise ValueError(f"{text[0].upper()}{text[1:]}. {self._help}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string and action.dest in PLACES:
            raise ValueError(f"{_called(action)} is empty: name a place, or leave it out.")
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            kind = KINDS.get(getattr(action.type, "__name__", ""))
            if kind is not None:
                raise ValueError(f"{_called(action)} {arg_string} must be {kind}.") from error
            if not error.message.startswith("invalid "):  # a text of ours
                raise
            members: Any = action.type if isinstance(action.type, EnumMeta) else ()
            valid = [str(member.value) for member in members]
            close = nearest(arg_string, valid) if valid else ""
            raise ValueError(f"{_called(action)} {arg_string} is none of its values.{close} {self._help}") from error

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise ValueError(
                f"{_called(action)} {value} does not exist.{nearest(str(value), map(str, action.choices))}"
            )

    def _options(self) -> list[str]:
        """Those of a command and of the commands below it."""
        own = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        below = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return own + [option for parsers in below for parser in parsers.values() for option in parser._options()]

    @property
    def _help(self) -> str:
        return f"`{self.prog} --help` lists all options."

    def _refuse(self, word: str, following: str = "") -> NoReturn:
        if word.startswith("-"):
            option, equals, value = word.partition("=")
            if option.removeprefix("--") in self._behind_dashes():
                raise ValueError(
                    f"{option} is an option of the trainings, which stand behind --: {self.prog} ... -- {option} ..."
                )
            close = self._argument(option.strip("-"), value if equals else following) or self._near(option.strip("-"))
            raise ValueError(f"Unknown option {option}.{close} {self._help}")
        if any(not action.option_strings for action in self._actions):
            raise ValueError(f"{word!r} is one word too many. {self._help}")
        raise ValueError(f"{word!r} is not an option: every value follows an option's name. {self._help}")

    def _near(self, name: str) -> str:
        """The options that may be meant."""
        options = {option[2:] for option in self._options() if "-" not in option[2:]}
        if _CUSTOMARY.get(name) in options:
            return f" Did you mean --{_CUSTOMARY[name]}?"
        return re.sub(r"'(\w+)'", r"--\1", did_you_mean(name, options))

    def _argument(self, name: str, value: str) -> str:
        """Where an argument of a method or a loss goes, which is no option of its own; or empty."""
        holders = [f"--{option}" for option in holders_of(name) if f"--{option}" in self._options()]
        shown = value if re.fullmatch(r"[\d.]+(e-?\d+)?", value) else "..."
        return f""" It goes into {" or ".join(holders)}: {holders[0]} '{{"{name}": {shown}}}'.""" if holders else ""


def _called(action: argparse.Action) -> str:
    """--name, or the name of an argument without option."""
    if isinstance(action, argparse._SubParsersAction):
        return "The command"
    return next((o for o in action.option_strings if o.startswith("--")), str(action.metavar or action.dest))
