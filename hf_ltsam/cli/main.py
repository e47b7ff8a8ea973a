"""`ltsam`: one table of commands, each a module whose `main` reads the words behind the command's name.

A new command is a module and a line of the table. Nothing heavy is imported before a command is run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

from hf_ltsam.cli.options.names import underscored
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.processes import end_with_parent


class Command(NamedTuple):
    """A command of `ltsam`: its module in `hf_ltsam.cli`, and one line of help."""

    module: str
    help: str

    def __call__(self, words: Sequence[str]) -> None:
        """Run it."""
        import_module(f"hf_ltsam.cli.{self.module}").main(words)


COMMANDS = {
    "demo": Command("demo.command", "Train on long-tailed digits in four ways and compare (two minutes, no download)."),
    "train": Command("train.train", "Train from a recipe or from options, on the Hub's data or your own."),
    "decouple": Command(
        "decouple", "Train the classifier of a finished run again: cRT, LWS, tau-normalisation, MaxNorm, CC-SAM."
    ),
    "recipes": Command("recipes", "List recipes with their published numbers, or show one: ltsam recipes NAME."),
    "reproduce": Command("reproduce.command", "Run the rows of a published table; an interrupted table resumes."),
    "tune": Command("tune.command", "Choose settings such as rho on a reserved part of the training set."),
    "evaluate": Command("evaluate.command", "Test a checkpoint on shifted and corrupted test sets."),
    "predict": Command(
        "predict.command",
        "Classes and probabilities of your images or texts, as CSV or JSON: ltsam predict RUN FOLDER.",
    ),
    "calibrate": Command(
        "predict.calibrate", "Calibrate a run's probabilities by held-out samples: ltsam calibrate RUN DATA."
    ),
    "mistakes": Command(
        "predict.mistakes", "The most confident mistakes on the test set, with pictures or texts, rare classes first."
    ),
    "export": Command("export", "Write a run as one plain checkpoint, its adapter merged: ltsam export RUN OUT."),
    "push": Command("push", "Upload a finished run with its card: ltsam push RUN OWNER/NAME."),
    "card": Command("card", "Print the card of a run: ltsam card RUN."),
    "data": Command("data", "List data sets, describe one, publish a long-tailed split: ltsam data list."),
    "corrupt": Command("corrupt", "Write a corrupted (-C) version of any image set, as ImageNet-C is one of ImageNet."),
    "sharpness": Command(
        "sharpness.command", "Curvature of a model class by class, loss surfaces, a range of rho to try."
    ),
    "report": Command("report", "Write a one-page report on accuracy, settings and cost: ltsam report RUN [RUN ...]."),
    "methods": Command("methods", "List the methods, or show everything about one: ltsam methods focal_sam."),
    "completion": Command(
        "options.completion", "Print a script with which bash or zsh complete these commands and their options."
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; without arguments, those of the command line.

    An error that the user can mend is printed as one message and exits with status 2, Ctrl-C with 130.
    """
    words = sys.argv[1:] if argv is None else argv
    end_with_parent()
    with user_errors():
        arguments = _parser().parse_args(words or ["--help"])
        COMMANDS[arguments.command]([underscored(word) for word in arguments.rest])


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  {name:10}  {command.help}" for name, command in COMMANDS.items())
    parser = OptionParser(
        prog="ltsam",
        description=f"Long-tailed training with sharpness-aware minimization.\n\ncommands:\n{commands}",
        epilog="`ltsam COMMAND --help` shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hf_ltsam {version('hf_ltsam')}")
    parser.add_argument("command", type=_command, metavar="COMMAND", help="one of the commands above")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its options")
    return parser


def _command(name: str) -> str:
    if name not in COMMANDS:
        raise argparse.ArgumentTypeError(f"unknown command {name!r}.{nearest(name, COMMANDS)}")
    return name


if __name__ == "__main__":
    main()
