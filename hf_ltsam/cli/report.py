"""One page that shows what runs reached, how and at what cost: figures, tables, and what is missing.

    ltsam report runs/demo
    ltsam report runs/ce_sgd/seed* runs/la_focal_sam/seed* --output reports/first

A RUN is the output folder of `ltsam train`, or a folder of such folders. Runs that differ in the seed only are shown as one
configuration; the others are compared with that of the first RUN. Only saved files are read, nothing is computed on images:
what a run does not hold is named in the report, with the command that makes it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.runs.escaping import terminal
from hf_ltsam.runs.files import check_folders


def main(argv: Sequence[str] | None = None) -> None:
    """`ltsam report RUN [RUN ...]`."""
    options = _parser().parse_args(argv)
    with user_errors():
        page, damaged = report(options.runs, options.output)
        console = Console()
        for sentence in damaged:
            console.print(f"damaged: {terminal(sentence)}", soft_wrap=True, highlight=False)
        console.print(
            f"{terminal(str(page))} ({page.stat().st_size / 1e6:.1f} MB; figures beside it)",
            soft_wrap=True,
            highlight=False,
        )


def report(runs: Sequence[Path], output: Path | None = None) -> tuple[Path, list[str]]:
    """Write a report.

    Args:
        runs: output folders of runs, or folders of such folders.
        output: None: `report` in the folder that holds all runs.

    Returns:
        The page, and a sentence for every file that cannot be read.
    """
    check_folders(runs)  # before the libraries that draw
    from hf_ltsam.runs.folder import find_runs
    from hf_ltsam.runs.report.reading import read_run
    from hf_ltsam.runs.report.report import write_report

    folders = find_runs(runs)
    contents = [read_run(folder) for folder in folders]
    page = write_report(contents, output_folder(folders, output))
    return page, [sentence for run in contents for sentence in run.damaged]


def output_folder(runs: Sequence[Path], output: Path | None) -> Path:
    """`report` in the run's folder, or in the folder that all runs lie in."""
    return output or Path(os.path.commonpath([run.resolve() for run in runs])) / "report"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ltsam report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run, or a folder of runs")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="default: `report` in the folder that holds all runs"
    )
    return parser
