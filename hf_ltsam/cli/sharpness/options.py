"""The options of `ltsam sharpness`, checked before anything is loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hf_ltsam.curvature import DEFAULT_RHOS
from hf_ltsam.hyperparameters import COUNT, POSITIVE, nearest, require
from hf_ltsam.losses import make_loss

DESCRIPTION = """\
Curvature of a trained model, class by class: extreme eigenvalues, trace and spectral density of the Hessian of the loss.

Without --classes and --groups, the largest and the smallest class are looked at. With --suggest_rho, --surface or
--checkpoints only these are computed, and the spectra as well with --spectrum. Results are kept: killed, or run again with
more options, it goes on from there."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[0].upper()}{message[1:]}. `ltsam sharpness --help` lists all options.")


def parse_options(words: Sequence[str]) -> argparse.Namespace:
    """The options.

    Raises:
        ValueError: an unknown option, with the nearest valid one, or a value out of its range.
    """
    parser = _parser()
    options, unknown = parser.parse_known_args([_underscored(word) for word in words])
    if unknown:
        known = [action.option_strings[0] for action in parser._actions if action.option_strings]
        word = unknown[0].partition("=")[0]
        raise ValueError(f"Unknown option {word}.{nearest(word, known)}")
    _check(options)
    return options


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="ltsam sharpness", description=DESCRIPTION, formatter_class=formatter, allow_abbrev=False)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the output folder of `ltsam train`, or a checkpoint in it")
    add("--classes", nargs="+", default=[], metavar="C", help="classes, by index or name")
    add("--groups", nargs="+", default=[], metavar="G", help="of: all many medium few head tail")
    add(
        "--max_samples",
        type=int,
        metavar="N",
        help="take at most N images of each class, always the same (default: all)",
    )
    add("--loss", default="cross_entropy", help="whose curvature: a loss of `ltsam train` (default: %(default)s)")
    add("--loss_args", default="{}", metavar="JSON", help="arguments of the loss, as JSON")
    add("--spectrum", action="store_true", help="also the spectra, where another quantity is asked for")
    add("--lanczos_steps", type=int, default=100, metavar="M", help="of each Lanczos run (default: %(default)s)")
    add("--probes", type=int, default=1, metavar="K", help="Lanczos runs averaged for a density (default: %(default)s)")
    add("--trace_probes", type=int, default=10, metavar="K", help="random vectors for the trace (default: %(default)s)")
    add("--checkpoints", action="store_true", help="extreme eigenvalues of every checkpoint-N of the run")
    add("--suggest_rho", action="store_true", help="L(w + eps) - L(w) for a range of radii, and which to try")
    add(
        "--rhos",
        nargs="+",
        type=float,
        default=list(DEFAULT_RHOS),
        metavar="R",
        help="these radii (default: 0.001 to 10)",
    )
    add("--surface", choices=["1d", "2d"], help="loss along random filter-normalised directions")
    add("--towards", type=Path, metavar="FOLDER", help="first direction of the surface: to this run or checkpoint")
    add(
        "--span",
        nargs=2,
        type=float,
        metavar=("FROM", "TO"),
        help="of a surface (default: -1 1; with --towards -0.5 1.5)",
    )
    add("--points", type=int, metavar="T", help="of a surface in each direction (default: 1d 41, 2d 21)")
    add(
        "--batch_size",
        type=int,
        default=64,
        metavar="N",
        help="images that pass at once: less, less memory (default: 64)",
    )
    add("--dataset", help="where the data are now (default: where they were in the training)")
    add("--seed", type=int, default=0, help="of chosen images, start vectors and directions (default: 0)")
    add("--output", type=Path, metavar="DIR", help="(default: RUN/sharpness)")
    return parser


def loss_of(options: argparse.Namespace) -> Any:
    """The loss by name.

    Raises:
        ValueError: unknown, or arguments that it does not have.
    """
    try:
        arguments = json.loads(options.loss_args)
    except json.JSONDecodeError as error:
        raise ValueError(f"--loss_args {options.loss_args} is not JSON ({error}): '{{\"tau\": 2}}', say.") from error
    if not isinstance(arguments, dict):
        raise ValueError(f"--loss_args {options.loss_args} must be a mapping: '{{\"tau\": 2}}', say.")
    return make_loss(options.loss, **arguments)


def _check(options: argparse.Namespace) -> None:
    loss_of(options)
    for name in ("lanczos_steps", "probes", "trace_probes", "batch_size"):
        require(COUNT, "ltsam sharpness", **{name: getattr(options, name)})
    for name in ("max_samples", "points"):
        if getattr(options, name) is not None:
            require(COUNT, "ltsam sharpness", **{name: getattr(options, name)})
    for rho in options.rhos:
        require(POSITIVE, "ltsam sharpness", rhos=rho)
    if options.towards is not None and options.surface is None:
        raise ValueError("--towards is a direction of a surface: add --surface 1d or 2d.")
    if options.span is not None and not options.span[0] < options.span[1]:
        raise ValueError(f"--span must rise, got {options.span[0]:g} to {options.span[1]:g}.")


def _underscored(word: str) -> str:
    """--suggest-rho as --suggest_rho."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word
