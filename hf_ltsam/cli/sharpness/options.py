"""The options of `ltsam sharpness`, checked before anything is loaded."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.sharpness.analysis import Request
from hf_ltsam.curvature import CurvatureSettings
from hf_ltsam.losses import LOSSES, CrossEntropy, FeatureLoss, Loss, make_loss
from hf_ltsam.runs.identity import describe

DESCRIPTION = """\
Curvature of a trained model, class by class: extreme eigenvalues, trace and spectral density of the Hessian of the loss.

Without --classes and --groups, the largest and the smallest class are analysed. With --suggest_rho, --surface or
--checkpoints only these are computed, and the spectra as well with --spectrum. Results are kept: after a kill, or with
more options, the analysis goes on from there."""
DEFAULTS = CurvatureSettings()


def parse_options(words: Sequence[str]) -> Request:
    """The analysis that the options describe.

    Raises:
        ValueError: an unknown option, with the nearest valid one, or a value out of its range.
    """
    options = _parser().parse_args(words)
    settings = CurvatureSettings(
        lanczos_steps=options.lanczos_steps,
        probes=options.probes,
        trace_probes=options.trace_probes,
        rhos=tuple(options.rhos),
        span=None if options.span is None else tuple(options.span),
        points=options.points,
        max_samples=options.max_samples,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    return Request(
        run=options.run,
        loss=_loss(options.loss, options.loss_args),
        classes=tuple(options.classes),
        groups=tuple(options.groups),
        spectra=options.spectrum or not (options.surface or options.suggest_rho or options.checkpoints),
        checkpoints=options.checkpoints,
        epochs=tuple(options.epochs),
        suggest_rho=options.suggest_rho,
        surface=options.surface,
        towards=options.towards,
        dataset=options.dataset,
        output=options.output,
        settings=settings,
        use_cpu=options.use_cpu,
    )


def command_of(request: Request) -> str:
    """The command line that asks for the same analysis."""
    loss = describe(LOSSES, request.loss)
    options = {
        **{
            name: getattr(request, name)
            for name in ("classes", "groups", "epochs", "surface", "towards", "dataset", "output")
        },
        "loss": None if request.loss == CrossEntropy() else loss["name"],
        "loss_args": json.dumps(loss["args"]) if loss["args"] else None,
        **{name: value for name, value in asdict(request.settings).items() if value != getattr(DEFAULTS, name)},
    }
    others = {name: getattr(request, name) for name in ("checkpoints", "suggest_rho")}
    spectrum = request.spectra and (any(others.values()) or request.surface is not None)
    flags = {**others, "spectrum": spectrum, "use_cpu": request.use_cpu}
    words = ["ltsam", "sharpness", str(request.run), *(f"--{name}" for name, is_set in flags.items() if is_set)]
    for name, value in options.items():
        if value not in (None, ()):
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = OptionParser(prog="ltsam sharpness", description=DESCRIPTION, formatter_class=formatter)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the output folder of `ltsam train`, or a checkpoint in it")
    add("--classes", nargs="+", default=[], metavar="C", help="classes, by index or name")
    add("--groups", nargs="+", default=[], metavar="G", help="of: all many medium few head tail")
    _count(parser, "max_samples", "N", "images of each class at most, always the same ones (default: all)")
    add("--loss", default="cross_entropy", help="whose curvature: a loss of `ltsam train` (default: %(default)s)")
    add("--loss_args", default="{}", metavar="JSON", help="arguments of the loss, as JSON")
    add("--spectrum", action="store_true", help="also the spectra, where another quantity is asked for")
    _count(parser, "lanczos_steps", "M", "of each Lanczos run (default: %(default)s)")
    _count(parser, "probes", "K", "Lanczos runs averaged for a density (default: %(default)s)")
    _count(parser, "trace_probes", "K", "random vectors for the trace (default: %(default)s)")
    add("--checkpoints", action="store_true", help="extreme eigenvalues of every checkpoint-N of the run")
    epochs = "with --checkpoints: those nearest to the ends of these epochs, in place of all"
    add("--epochs", nargs="+", type=float, default=[], metavar="E", help=epochs)
    add("--suggest_rho", action="store_true", help="L(w + eps) - L(w) for a range of radii, and which to try")
    add(
        "--rhos",
        nargs="+",
        type=float,
        default=DEFAULTS.rhos,
        metavar="R",
        help=f"these radii (default: {min(DEFAULTS.rhos):g} to {max(DEFAULTS.rhos):g})",
    )
    add("--surface", choices=["1d", "2d"], help="loss along random filter-normalised directions")
    add("--towards", type=Path, metavar="FOLDER", help="first direction of the surface: to this run or checkpoint")
    span = "of a surface (default: -1 1; with --towards -0.5 1.5)"
    add("--span", nargs=2, type=float, metavar=("FROM", "TO"), help=span)
    _count(parser, "points", "T", "of a surface in each direction (default: 1d 41, 2d 21)")
    _count(parser, "batch_size", "N", "images that pass at once; fewer need less memory (default: %(default)s)")
    add("--dataset", help="where the data are now (default: where they were in the training)")
    _count(parser, "seed", "N", "of chosen images, start vectors and directions (default: %(default)s)")
    add("--output", type=Path, metavar="DIR", help="(default: RUN/sharpness)")
    add("--use_cpu", action="store_true", help="leave a GPU alone")
    return parser


def _count(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    """A whole number of `CurvatureSettings`, which has the default and the range."""
    parser.add_argument(f"--{name}", type=int, default=getattr(DEFAULTS, name), metavar=metavar, help=text)


def _loss(name: str, args: str) -> Loss:
    """The loss by name.

    Raises:
        ValueError: unknown, or arguments that it does not have.
    """
    try:
        arguments: Any = json.loads(args)
    except json.JSONDecodeError as error:
        raise ValueError(f"--loss_args {args} is not JSON ({error}): '{{\"tau\": 2}}', for example.") from error
    if not isinstance(arguments, dict):
        raise ValueError(f"--loss_args {args} must be a mapping: '{{\"tau\": 2}}', for example.")
    loss = make_loss(name, **arguments)
    if isinstance(loss, FeatureLoss):
        raise ValueError(f"--loss {name} weighs images by their features, and has no Hessian here: take cross_entropy.")
    return loss
