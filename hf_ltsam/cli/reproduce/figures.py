"""Figures of a table: what they need of its runs, the curvature that is measured for them, and where they are."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_ltsam.cli.reproduce.focal_weights import FIGURE as FOCAL_WEIGHTS
from hf_ltsam.cli.reproduce.focal_weights import draw_focal_weights
from hf_ltsam.cli.reproduce.runs import RowRun, start_command
from hf_ltsam.cli.reproduce.sweeps import EXTREMES, draw_extremes
from hf_ltsam.cli.reproduce.tables import Row, TableOfRuns
from hf_ltsam.cli.sharpness.analysis import Request
from hf_ltsam.cli.sharpness.options import parse_options
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.files import mapping, read_json
from hf_ltsam.runs.folder import SHARPNESS, SHARPNESS_RESULTS
from hf_ltsam.runs.report.reading import read_run

SPECTRA = "`sharpness: {classes: [0, 9]}`"
CHECKPOINTS = "`sharpness: {classes: [0, 9], checkpoints: true}`"
SURFACE = "`sharpness: {groups: [all], surface: %s}`"


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report, or one of a sweep beside it.

    Args:
        title: in words.
        sharpness: what it needs of `ltsam sharpness`, as a table file asks for it; empty: nothing.
        is_met: whether an analysis gives it.
        of_sweep: whether it needs a sweep.
    """

    title: str
    sharpness: str = ""
    is_met: Callable[[Request], bool] = lambda request: True
    of_sweep: bool = False


FIGURES = {
    "accuracy_over_training": ReportFigure("Accuracy over the training"),
    "telemetry": ReportFigure("The perturbation over the training"),
    "accuracy_by_group": ReportFigure("Accuracy by group"),
    "spectra": ReportFigure("Spectral densities of the Hessian", SPECTRA, lambda r: r.spectra),
    "eigenvalue_ratios": ReportFigure("|lam_max / lam_min| of the Hessian", SPECTRA, lambda r: r.spectra),
    "curvature_over_training": ReportFigure("Curvature over the training", CHECKPOINTS, lambda r: r.checkpoints),
    "bounds_over_training": ReportFigure("A bound over the training", CHECKPOINTS, lambda r: r.checkpoints),
    "surface_1d": ReportFigure("Loss along a line", SURFACE % "1d", lambda r: r.surface == "1d"),
    "surface_2d": ReportFigure("Loss surfaces", SURFACE % "2d", lambda r: r.surface == "2d"),
    EXTREMES: ReportFigure("lam_min against the swept setting", SPECTRA, lambda r: r.spectra, of_sweep=True),
    FOCAL_WEIGHTS: ReportFigure("Focal weights over the classes", of_sweep=True),
}


@dataclass(frozen=True)
class Analysis:
    """`ltsam sharpness` of one run.

    Args:
        run: that has ended.
        options: of `ltsam sharpness`.
    """

    run: RowRun
    options: tuple[str, ...]
    holder: str = ""

    @property
    def result(self) -> dict[str, Any] | None:
        """Of an analysis with these options that has ended."""
        results = read_json(self.run.folder / SHARPNESS / SHARPNESS_RESULTS, mapping)
        command = shlex.join(["ltsam", "sharpness", *self.arguments()])
        return results if results is not None and results.get("command") == command else None

    @property
    def log(self) -> Path:
        return self.run.folder.with_suffix(".sharpness.log")

    def arguments(self) -> list[str]:
        """The options of `ltsam sharpness`."""
        return [str(self.run.folder), *self.options]

    def start(self, threads: int) -> subprocess.Popen[bytes]:
        """Analyse; what has been computed before is not computed again."""
        return start_command(["sharpness", *self.arguments()], self.log, threads)


def sharpness_options(table: TableOfRuns) -> tuple[str, ...]:
    """What the table asks of `ltsam sharpness`, as options of the command line."""
    words: list[str] = []
    for name, value in table.sharpness.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            words += [f"--{name}", *map(str, values)]
    return tuple(words)


def check_figures(table: TableOfRuns) -> None:
    """Refuse a figure whose numbers the table's runs would not save.

    Raises:
        ValueError: there is no such figure or option, or what it needs is not asked for.
    """
    request = _request(table) if table.sharpness else None
    for name in table.figures:
        if name not in FIGURES:
            raise ValueError(f"{table.name}, figures: there is no {name!r}.{nearest(name, FIGURES)}")
        figure = FIGURES[name]
        if figure.sharpness and (request is None or not figure.is_met(request)):
            raise ValueError(f"{table.name}, figures: {name} needs {figure.sharpness}, for example.")
        if figure.of_sweep and not table.sweeps:
            raise ValueError(f"{table.name}, figures: {name} needs rows with a sweep.")
        if not table.train and name != FOCAL_WEIGHTS:
            raise ValueError(f"{table.name}, figures: {name} needs trained rows. Leave `train: false` out.")
    if not table.train:
        return
    trained = [row for row in table.rows if row.first_stage is None]
    if "accuracy_over_training" in table.figures:
        silent = next((row for row in trained if row.expanded.get("eval_strategy", "no") == "no"), None)
        _refuse(table, silent, "accuracy_over_training", "eval_strategy: epoch")
    if request is not None and request.checkpoints:
        single = next((row for row in trained if row.expanded.get("save_total_limit") is not None), None)
        _refuse(table, single, "sharpness at checkpoints", "save_total_limit: null")


def _request(table: TableOfRuns) -> Request:
    place = f"{table.name}, sharpness"
    if "output" in table.sharpness:
        raise ValueError(f"{place}: the report reads the results beside each run. Leave `output` out.")
    try:
        return parse_options(["RUN", *sharpness_options(table)])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _refuse(table: TableOfRuns, row: Any, what: str, settings: str) -> None:
    if row is not None:
        raise ValueError(f"{table.name}: {what} needs `settings: {{{settings}}}`, which {row.name} does not have.")


def analyses(table: TableOfRuns, runs: Sequence[RowRun]) -> list[Analysis]:
    """One for the first seed of every row of the table that has ended."""
    rows, options = {row.name for row in table.rows}, sharpness_options(table)
    first = [run for run in runs if run.seed == 0 and run.row.name in rows and run.result is not None]
    return [Analysis(run, options) for run in first] if options else []


def draw_beside_the_report(table: TableOfRuns, folder: Path, ended: Callable[[Row], Mapping[Path, Any]]) -> None:
    """The figures of sweeps into the folder of the report.

    Args:
        ended: gives the runs of a row by folder, in the order of their seeds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if FOCAL_WEIGHTS in table.figures:
        draw_focal_weights(folder, table)
    if EXTREMES in table.figures:
        measured = {
            name: [
                (row.value[1], curvature)
                for row in rows if row.value is not None
                for curvature in [read_run(run).curvature for run in list(ended(row))[:1]] if curvature is not None
            ] for name, rows in table.sweeps.items()
        }  # fmt: skip
        draw_extremes(folder, table, measured)


def figure_lines(table: TableOfRuns, root: Path, report: str) -> list[str]:
    """The figures in Markdown, and those that could not be drawn in words.

    Args:
        report: folder of the report in `root`.
    """
    lines: list[str] = []
    for name in table.figures:
        file = f"{report}/{name}.png"
        there = (root / file).is_file()
        lines += ["", f"![{FIGURES[name].title}]({file})" if there else f"Not drawn yet: {FIGURES[name].title}."]
    return lines
