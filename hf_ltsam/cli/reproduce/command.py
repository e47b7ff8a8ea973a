"""Run the rows of a published table, each with several seeds, and write what came out beside what was published.

    ltsam reproduce                                     lists the tables
    ltsam reproduce li2025_table2 --rows 'cifar100_lt_ir100_la_*'
    ltsam reproduce li2025_table5 --dataset /data/cifar10 --jobs 4 -- --bf16 true
    ltsam reproduce rangwani2022_fig4                   a sweep: each row with several values of a setting, and the figure
    ltsam reproduce li2025_table4 --data_dir /data      tested on other sets, too
    ltsam reproduce rangwani2022_fig3                   with the curvature at checkpoints, and its figure
    ltsam reproduce news --dataset /data/r52 --model /models/minilm

Every run is a process with a folder of its own, TABLE/ROW/seedN. One that has ended is never run again, one that was
interrupted goes on from its last checkpoint: after a kill the same command finishes the table. What follows `--` is given
to every training, not to second stages. TABLE/table.md and TABLE/table.json are written after every run, a report with
accuracy against cost at the end.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from rich.console import Console

from hf_ltsam.cli.options.names import split_at_dashes, underscored
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.reproduce.figures import (
    Analysis,
    analyses,
    check_figures,
    draw_beside_the_report,
    figure_lines,
)
from hf_ltsam.cli.reproduce.results import REPORT, ended_runs, shown, swept_accuracies, write_table
from hf_ltsam.cli.reproduce.runs import RowRun, run_all
from hf_ltsam.cli.reproduce.shifted import Evaluation, bases_of, within_reach
from hf_ltsam.cli.reproduce.sweeps import choose, draw_sweeps
from hf_ltsam.cli.reproduce.tables import Row, TableOfRuns, read_table
from hf_ltsam.cli.train.arguments import option_names, read_settings
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.runs.escaping import markdown_text, terminal
from hf_ltsam.runs.files import write_whole
from hf_ltsam.runs.recipe_tables import table_names
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report

M = TypeVar("M", Evaluation, Analysis)
DECIDED_HERE = ("config", "seed", "output_dir", "first_stage", "resume_from_checkpoint")


def main(argv: Sequence[str] | None = None) -> None:
    """All runs of a table that have not ended yet, from the command line."""
    before, after = split_at_dashes(sys.argv[1:] if argv is None else argv)
    with user_errors():
        arguments = _parser().parse_args(before)
        if arguments.table is None:
            _list_tables()
            return
        reproduce(
            arguments.table,
            arguments.rows,
            seeds=arguments.seeds,
            datasets=arguments.dataset,
            model=arguments.model,
            jobs=arguments.jobs,
            data_dir=arguments.data_dir,
            output_dir=arguments.output_dir,
            options=after,
        )


def reproduce(
    table: str,
    rows: Sequence[str] | None = None,
    *,
    seeds: int = 3,
    datasets: Sequence[str] = (),
    model: str | None = None,
    jobs: int = 1,
    data_dir: Sequence[str] = (),
    output_dir: Path | None = None,
    options: Sequence[str] = (),
) -> None:
    """Run what has not ended of a table, and write `table.md`, `table.json` and the report.

    Args:
        table: by name, or a file.
        rows: names and patterns; None: all.
        seeds: how many, from 0 on.
        datasets: where the data are, `FOLDER` or `NAME=FOLDER`.
        model: a folder with the pretrained model of the recipes; None: from where they name it.
        jobs: trainings at a time.
        data_dir: where the other test sets of a table are, `FOLDER` or `NAME=FOLDER`.
        output_dir: None: runs/TABLE.
        options: of `ltsam train`, for every training.

    Raises:
        ValueError: a setting that cannot be, or runs that failed.
        FileNotFoundError: there is no such table, row or folder.
    """
    chosen = read_table(table)
    chosen = chosen.only(rows) if rows else chosen
    root = output_dir or Path("runs") / chosen.name
    if model is not None:
        if not Path(model).is_dir():
            raise FileNotFoundError(f"--model {model}: there is no such folder.")
        options = (*options, "--model", model)
    check_figures(chosen)
    _check(seeds, jobs, options)
    if not chosen.train:
        _draw_only(chosen, root)
        return
    runs = _runs(chosen, seeds, datasets, root, tuple(options))
    for run in runs:
        run.check()
    there, missing = within_reach(chosen.evaluate, data_dir)
    for name, why in missing.items():
        Console().print(terminal(f"No test on {name}: {why}"), soft_wrap=True, highlight=False)
    if chosen.choose and chosen.sweeps:
        choose(chosen, root, runs, jobs)
    failed: list[RowRun | Evaluation | Analysis] = [*_run(chosen, runs, jobs, root, options)]
    failed += _evaluate(chosen, runs, there, data_dir, jobs)
    failed += _measure(analyses(chosen, runs), "curvature measured", jobs)
    page = _report(chosen, root)
    draw_beside_the_report(chosen, root / REPORT, partial(ended_runs, root))
    if chosen.sweeps:
        draw_sweeps(root, chosen, swept_accuracies(root, chosen))
    write_table(root, chosen, options, missing)  # with the figure
    Console().print(terminal(f"{root / 'table.md'}, {page}"), soft_wrap=True, highlight=False)
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(str(run.log) for run in failed)}.")


def _draw_only(table: TableOfRuns, root: Path) -> None:
    """A table of which nothing is trained: its figures, and what they show in words."""
    draw_beside_the_report(table, root / REPORT, partial(ended_runs, root))
    lines = [f"# {markdown_text(table.title)}", "", f"Published: {markdown_text(table.source)}"]
    write_whole(root / "table.md", "\n".join([*lines, *figure_lines(table, root, REPORT)]) + "\n")
    Console().print(terminal(f"{root / 'table.md'}: nothing is trained for it"), soft_wrap=True, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="ltsam reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        behind_dashes=option_names,
    )
    parser.add_argument(
        "table", nargs="?", metavar="TABLE", help="a table by name, or a file; without it all are listed"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="these rows only; * stands for any text")
    parser.add_argument(
        "--dataset", nargs="+", default=[], metavar="[NAME=]FOLDER",
        help="where the data are; NAME as the recipes have it, where a table has several data sets",
    )  # fmt: skip
    parser.add_argument("--model", metavar="FOLDER", help="the pretrained model, where it is not to come from the Hub")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="trainings at a time, which share the device (default: %(default)s)",
    )
    parser.add_argument(
        "--data_dir", nargs="+", default=[], metavar="FOLDER",
        help="holds the other test sets of a table in folders of their names; or NAME=FOLDER",
    )  # fmt: skip
    parser.add_argument("--output_dir", type=Path, metavar="FOLDER", help="runs/TABLE")
    return parser


def _list_tables() -> None:
    console = Console()
    for name in table_names():
        table = read_table(name)
        rows = f"{len(table.rows):3} row{' ' if len(table.rows) == 1 else 's'}"
        console.print(f"{name:32} {rows}  {table.title}", soft_wrap=True, highlight=False)
    console.print(
        "\n`ltsam recipes TABLE` shows the rows of a table, `ltsam reproduce TABLE` runs them, with --rows ROW one of them.",
        soft_wrap=True,
        highlight=False,
    )


def _check(seeds: int, jobs: int, options: Sequence[str]) -> None:
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}.")
    named = {underscored(word).partition("=")[0] for word in options}
    if "--hub_token" in named:
        raise ValueError("--hub_token would be seen in lists of processes: set HF_TOKEN in its place.")
    taken = {f"--{name}" for name in DECIDED_HERE} & named
    if taken:
        raise ValueError(
            f"{min(taken)} cannot be given to the trainings: the table decides it for each run. Leave it out."
        )


def _runs(
    table: TableOfRuns, seeds: int, datasets: Sequence[str], root: Path, options: tuple[str, ...]
) -> list[RowRun]:
    """All runs of a seed before those of the next, so that there is a whole table early; first stages first."""
    folders = _folders(datasets, table)
    return [
        RowRun(row, seed, root, (*_dataset(row, folders), *options))
        for seed in range(seeds)
        for row in (*table.first_stages(), *table.rows)
    ]


def _folders(datasets: Sequence[str], table: TableOfRuns) -> dict[str, str]:
    """Data set -> where it is.

    Raises:
        ValueError: a data set that no row has, or no name where there are several.
        FileNotFoundError: no such folder.
    """
    names = sorted({name for row in (*table.first_stages(), *table.rows) if (name := _name(row)) is not None})
    folders: dict[str, str] = {}
    if datasets and not names:
        raise ValueError(f"--dataset {datasets[0]}: no recipe of {table.name} says what it is trained on.")
    for word in datasets:
        name, equals, folder = word.rpartition("=")
        if not equals and len(names) > 1:
            raise ValueError(f"--dataset {word}: {table.name} has {', '.join(names)}; say which, NAME=FOLDER.")
        if equals and name not in names:
            raise ValueError(f"--dataset {word}: {table.name} has no data set {name!r}, only {', '.join(names)}.")
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"--dataset {word}: there is no folder {folder}.")
        folders |= {name or names[0]: folder}
    return folders


def _name(row: Row) -> str | None:
    """What a recipe is trained on: its data set, or its builder where the images are one's own copy.

    None for a second stage, which takes the data of its first one.
    """
    settings = row.expanded
    return settings.get("dataset") or settings.get("builder")


def _dataset(row: Row, folders: dict[str, str]) -> list[str]:
    folder = folders.get(_name(row) or "")
    return [] if folder is None else ["--dataset", folder]


def _run(table: TableOfRuns, runs: list[RowRun], jobs: int, root: Path, options: Sequence[str] = ()) -> list[RowRun]:
    """Run what has not ended; the runs that failed."""
    console, failed = Console(), list[RowRun]()
    waiting = [run for run in runs if run.result is None]
    left = len(waiting)
    number = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    console.print(f"{terminal(table.title)}: {number}, {left} to go", soft_wrap=True, highlight=False)

    def ended(run: RowRun, status: int) -> None:
        nonlocal left
        left -= 1
        result = run.result if status == 0 else None
        failed.extend([] if result else [run])
        outcome = shown(result) if result else f"failed with status {status}: {run.last_words()}"
        console.print(
            terminal(f"{run.row.name} seed {run.seed}: {outcome} ({left} to go)"), soft_wrap=True, highlight=False
        )
        write_table(root, table, options)

    signal.signal(signal.SIGTERM, _stop)
    for first in (True, False):  # a second stage needs its first one
        run_all([run for run in waiting if (run.row.first_stage is None) == first], jobs, ended)
    return failed


def _evaluate(
    table: TableOfRuns, runs: Sequence[RowRun], sets: tuple[str, ...], data_dir: Sequence[str], jobs: int
) -> list[Evaluation]:
    """Test what has ended of the rows on other sets; the tests that failed."""
    rows = {row.name for row in table.rows}
    used = tuple(word for word in data_dir if "=" not in word or word.partition("=")[0] in bases_of(sets))
    tests = [
        Evaluation(run, sets, used, bool(read_settings(run.arguments(), run.program)[0].get("use_cpu")))
        for run in runs if sets and run.row.name in rows and run.result is not None
    ]  # fmt: skip
    return _measure(tests, f"tested on {', '.join(sets)}", jobs)


def _measure(measurements: Sequence[M], done: str, jobs: int) -> list[M]:
    """Run what has not ended of tests or analyses; those that failed.

    Args:
        done: what has been done to a run, in words.
    """
    failed = list[M]()

    def ended(measurement: M, status: int) -> None:
        failed.extend([] if status == 0 and measurement.result is not None else [measurement])
        outcome = f"not {done}, status {status}, see {measurement.log}" if measurement in failed else done
        name = f"{measurement.run.row.name} seed {measurement.run.seed}"
        Console().print(terminal(f"{name}: {outcome}"), soft_wrap=True, highlight=False)

    run_all([measurement for measurement in measurements if measurement.result is None], jobs, ended)
    return failed


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt("The same command goes on with what has not ended.")


def _report(table: TableOfRuns, root: Path) -> Path | str:
    ended = [folder for row in (*table.first_stages(), *table.whole) for folder in ended_runs(root, row)]
    return write_report([read_run(folder) for folder in ended], root / REPORT) if ended else "no run has ended"
