"""What can be known of a block without running it: its options exist, its names can be imported and called so."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from syntax import tree_of

ROOT = Path(__file__).parents[2]


class _Parsed(BaseException):
    """The options were read: nothing more is wanted. No `except Exception` on the way may take it."""


def check_command(words, monkeypatch):
    """The program, its options and the files that it names exist.

    Raises:
        AssertionError: they do not.
    """
    checks = {"ltsam": _ltsam, "accelerate": _accelerate, "make": _make, "python": _script, "pip": _pip}
    assert words[0] in checks, f"{words[0]} is a program that no check knows"
    checks[words[0]](words[1:], monkeypatch)


def _ltsam(words, monkeypatch):
    from hf_ltsam.cli.main import COMMANDS

    assert words[0] in COMMANDS, f"ltsam {words[0]} is no command"
    if "RUN" in words or "..." in words:  # a line that shows a form, not a command
        return
    check = {"train": _settings, "decouple": _settings, "sharpness": _sharpness}.get(words[0], _options)
    check(words, monkeypatch)


def _settings(words, monkeypatch):
    """Every option is one of `ltsam train`'s (and of a second stage's); a recipe is there and is read."""
    from hf_ltsam.cli.train import arguments

    read = vars(arguments).get("read_settings")  # of training and second stage
    options = words[2:] if words[0] == "decouple" and not words[1].startswith("-") else words[1:]  # without RUN
    if read is None:
        arguments.parse(options)
    else:
        read(options, words[0])


def _sharpness(words, _):
    from hf_ltsam.cli.sharpness.options import parse_options

    parse_options(words[1:])


def _options(words, monkeypatch):
    from hf_ltsam.cli.main import COMMANDS
    from hf_ltsam.cli.options.parser import OptionParser

    real = OptionParser.parse_args

    def parse_and_leave(self, args=None, namespace=None):
        raise _Parsed(real(self, args, namespace))

    with monkeypatch.context() as patch:
        patch.setattr(OptionParser, "parse_args", parse_and_leave)
        with pytest.raises(_Parsed):
            COMMANDS[words[0]](words[1:])


def _accelerate(words, monkeypatch):
    from accelerate.commands.launch import launch_command_parser

    assert words[0] == "launch"
    arguments = launch_command_parser().parse_args(words[1:])
    assert arguments.config_file is None or (ROOT / arguments.config_file).is_file(), arguments.config_file
    assert (ROOT / arguments.training_script).is_file(), arguments.training_script
    name = {"training_scripts/train.py": "train", "training_scripts/evaluate_ood.py": "evaluate"}[
        arguments.training_script
    ]
    with monkeypatch.context() as patch:
        patch.chdir(ROOT)  # recipes may be named by their path
        _ltsam([name, *arguments.training_script_args], patch)


def _make(words, _):
    assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text(), f"make {words[0]} is no target"


def _script(words, _):
    assert (ROOT / words[0]).is_file(), f"{words[0]} is not there"


def _pip(words, _):
    assert words[:1] == ["install"]


def check_python(code):
    """Every import works, and every call of something imported takes the keywords that it is given.

    Raises:
        SyntaxError, ImportError, AttributeError, TypeError: they do not.
    """
    names = {}
    for node in ast.walk(tree_of(code)):
        if isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: getattr(importlib.import_module(node.module), a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
    for node in ast.walk(tree_of(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            keywords = {k.arg: ... for k in node.keywords if k.arg}
            inspect.signature(names[node.func.id]).bind_partial(*(... for _ in node.args), **keywords)
