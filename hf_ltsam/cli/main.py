"""`ltsam`: the demo, training runs, the curvature they end in, and what methods there are.

Nothing heavy is imported before a command asks for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from hf_ltsam.cli.user_errors import user_errors

_SCHEDULES = """
A schedule, as a recipe writes it under method_args:
    rho: {piecewise: {values: [0.1, 0.2], epochs: [160]}}      from epoch 160 on 0.2
    rho: {linear: {start: 0.05, end: 0.2, epochs: [10, 160]}}  or cosine; without epochs, over the whole training
    boundaries: [0.8] in place of epochs: shares of the training"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; without arguments, those of the command line.

    An error that the user can mend is printed as one message and exits with status 2, Ctrl-C with 130.
    """
    words = sys.argv[1:] if argv is None else argv
    with user_errors():
        arguments = _parser().parse_args(words or ["--help"])
        COMMANDS[arguments.command](arguments.rest)


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  {name:9} {_first_line(command)}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="ltsam",
        description=f"Long-tailed training with sharpness-aware minimization.\n\ncommands:\n{commands}",
        epilog="`ltsam COMMAND --help` shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hf_ltsam {version('hf_ltsam')}")
    parser.add_argument("command", type=_command, metavar="COMMAND", help="one of the commands above")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its options")
    return parser


def _command(name: str) -> str:
    if name not in COMMANDS:
        from hf_ltsam.hyperparameters import nearest

        raise argparse.ArgumentTypeError(f"unknown command {name!r}.{nearest(name, COMMANDS)}")
    return name


def _demo(words: Sequence[str]) -> None:
    """Train a small ResNet on long-tailed digits in three ways and compare (about two minutes, no download)."""
    from hf_ltsam.cli.demo import command as demo

    demo.main(words)


def _train(words: Sequence[str]) -> None:
    """Train from a recipe or from options, on the Hub's data or your own."""
    from hf_ltsam.cli.train import train

    train.main(words)


def _decouple(words: Sequence[str]) -> None:
    """Train the classifier of a finished run again: cRT, LWS, tau-normalisation, CC-SAM's second stage."""
    from hf_ltsam.cli import decouple

    decouple.main(words)


def _reproduce(words: Sequence[str]) -> None:
    """Run the rows of a published table, each with several seeds; a killed table goes on where it was."""
    from hf_ltsam.cli.reproduce import command as reproduce

    reproduce.main(words)


def _recipes(words: Sequence[str]) -> None:
    """List and search the recipes with their published numbers, or show one: ltsam recipes NAME."""
    from hf_ltsam.cli import recipes

    recipes.main(words)


def _evaluate(words: Sequence[str]) -> None:
    """Test a checkpoint on shifted and corrupted test sets."""
    from hf_ltsam.cli.evaluate import command as evaluate_ood

    evaluate_ood.main(words)


def _corrupt(words: Sequence[str]) -> None:
    """Write the -C set of any images: the corruptions of ImageNet-C at five severities."""
    from hf_ltsam.cli import corrupt as command

    command.main(words)


def _sharpness(words: Sequence[str]) -> None:
    """Curvature of a trained model class by class, loss surfaces, and a range of rho to try."""
    from hf_ltsam.cli.sharpness import command as analyze_sharpness

    analyze_sharpness.main(words)


def _report(words: Sequence[str]) -> None:
    """Show what runs reached, how and at what cost, on one page: ltsam report RUN [RUN ...]."""
    from hf_ltsam.cli import report as command

    command.main(words)


def _methods(words: Sequence[str]) -> None:
    """List the methods, or show all about one: ltsam methods focal_sam."""
    parser = argparse.ArgumentParser(prog="ltsam methods", description=_first_line(_methods))
    parser.add_argument("name", nargs="?", help="a method; without it, all are listed")
    name = parser.parse_args(words).name

    from hf_ltsam.hyperparameters import nearest
    from hf_ltsam.methods import METHODS

    if name is None:
        _list_methods(METHODS)
    elif name in METHODS:
        _show_method(name, METHODS[name])
    else:
        raise ValueError(f"Unknown method {name!r}.{nearest(name, METHODS)}")


def _export(words: Sequence[str]) -> None:
    """Write a run as one plain checkpoint, its adapter merged: ltsam export RUN OUT."""
    from hf_ltsam.cli import export

    export.main(words)


def _data(words: Sequence[str]) -> None:
    """Data sets: which there are, what one looks like, publishing a draw: ltsam data list."""
    from hf_ltsam.cli import data as data_command

    data_command.main(words)


def _push(words: Sequence[str]) -> None:
    """Upload a finished run with its card: ltsam push RUN OWNER/NAME."""
    from hf_ltsam.cli import push

    push.push_command(words)


def _card(words: Sequence[str]) -> None:
    """Print the card of a run: ltsam card RUN."""
    from hf_ltsam.cli import push

    push.card_command(words)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "demo": _demo,
    "train": _train,
    "decouple": _decouple,
    "recipes": _recipes,
    "reproduce": _reproduce,
    "evaluate": _evaluate,
    "export": _export,
    "push": _push,
    "card": _card,
    "data": _data,
    "corrupt": _corrupt,
    "sharpness": _sharpness,
    "report": _report,
    "methods": _methods,
}


def _list_methods(methods: dict[str, type]) -> None:
    from rich.console import Console
    from rich.table import Table

    from hf_ltsam.hyperparameters import entry, first_line

    rows = {name: [name, *_own_defaults(method)] for name, method in methods.items()}
    table = Table("method, defaults", "what it is", "cost", "source", show_lines=True)
    table.columns[0].min_width = max(len(line) for lines in rows.values() for line in lines)
    for name, method in methods.items():
        table.add_row("\n".join(rows[name]), first_line(method), entry(method, "Cost"), entry(method, "Source"))
    console = Console()
    console.print(table)
    console.print(
        "G(a, eps): the gradient at w + eps of the batch's losses, weighted by a. In full: ltsam methods NAME"
    )


def _own_defaults(method: type) -> list[str]:
    """Its hyper-parameters, without those that all methods share."""
    from hf_ltsam.methods import METHODS, Method
    from hf_ltsam.runs.identity import describe

    shared = {field.name for field in dataclasses.fields(Method)}
    return [f" {k} {v}" for k, v in describe(METHODS, method())["args"].items() if k not in shared]


def _show_method(name: str, method: type) -> None:
    from hf_ltsam.methods import METHODS, Method
    from hf_ltsam.runs.identity import describe

    defaults = ", ".join(f"{k}={v!r}" for k, v in describe(METHODS, method())["args"].items())
    _, _, shared = (inspect.getdoc(Method) or "").partition("Args:\n")
    print(
        f"{name} = hf_ltsam.methods.{method.__name__}({defaults})\n\n{inspect.getdoc(method)}\n\nEvery method:\n{shared}"
    )
    print(_SCHEDULES)


def _first_line(command: Callable[..., None]) -> str:
    return (inspect.getdoc(command) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
