"""`ltsam demo`: real digits, a long tail, four ways to train, in about two minutes.

No download: the images are the handwritten digits that scikit-learn ships. Every run is one of `ltsam train` with the
recipe `demo/digits`.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.status import Status
from transformers import AutoModelForImageClassification, PrinterCallback, TrainerCallback
from transformers.utils import logging

from hf_ltsam import LTSamTrainer
from hf_ltsam.cli.demo.corruptions import corruption_errors
from hf_ltsam.cli.demo.data import digit_splits, save_parquet
from hf_ltsam.cli.demo.report import print_next_commands, print_table
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.sharpness.analysis import Request, analyse
from hf_ltsam.cli.sharpness.options import command_of
from hf_ltsam.cli.train.arguments import make_run
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.cli.train.train import build_trainer, finish, train
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.curvature import CurvatureSettings
from hf_ltsam.runs.escaping import terminal
from hf_ltsam.runs.files import check_output_folder
from hf_ltsam.runs.folder import EVALUATION, RECORD, SHARPNESS, RunFolder, seed_folder
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report

# The hyper-parameters of SAM and Focal-SAM were chosen without the test images: by the overall accuracy on 30 other images
# of each digit, after training on a tail that leaves those out too (mean of seeds 10 to 12; they differ by less than their
# deviation). SAM: rho of 0.05, 0.1, 0.2. Focal-SAM: (rho, gamma, lam) of (0.05, 1, 1), (0.1, 3, 0.5), (0.2, 3, 0.5),
# (0.3, 3.2, 0.8).
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "CE + SGD": {"loss": "cross_entropy", "method": "sgd"},
    "LA + SGD": {"loss": "logit_adjustment", "method": "sgd"},
    "LA + SAM": {"loss": "logit_adjustment", "method": "sam", "method_args": {"rho": 0.05}},
    "LA + Focal-SAM": {
        "loss": "logit_adjustment",
        "method": "focal_sam",
        "method_args": {"rho": 0.1, "gamma": 3.0, "lam": 0.5},
    },
}
# For the report: accuracies ten times during the training, telemetry after every epoch, and for the curvature two
# checkpoints of the first seed.
LOGGING = {"disable_tqdm": True, "logging_strategy": "epoch", "eval_strategy": "steps", "eval_steps": 0.1}
CHECKPOINTS = {"save_strategy": "steps", "save_steps": 0.34, "save_only_model": True}
NO_CHECKPOINTS = {"save_strategy": "no"}
CURVATURE = CurvatureSettings(lanczos_steps=25, points=9, max_samples=16)  # few, to save time


def main(argv: Sequence[str] | None = None) -> None:
    """`ltsam demo`."""
    parser = OptionParser(prog="ltsam demo", description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo"), help="where everything is written")
    parser.add_argument("--seeds", type=_positive, default=3, help="runs of each configuration (default: %(default)s)")
    parser.add_argument("--epochs", type=_positive, help="of each run (default: those of `ltsam recipes demo`)")
    options = parser.parse_args(argv)
    with user_errors():
        try:
            run_demo(options.output_dir, options.seeds, options.epochs)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("The demo cannot be resumed: `ltsam demo` starts it anew.") from interrupt


def run_demo(folder: Path, seeds: int, epochs: int | None = None) -> dict[str, list[RunRecord]]:
    """Train with each configuration and seed; show and save the results.

    Returns:
        Title of the configuration -> one record for each seed.
    """
    started = time.perf_counter()
    check_output_folder(str(folder))
    _silence_libraries()
    console = Console()
    splits = digit_splits()
    save_parquet(splits, folder / "digits")
    console.print(
        f"Handwritten digits of 8 x 8 pixels: {len(splits.train)} to train on, {len(splits.test)} to test on."
    )
    records: dict[str, list[RunRecord]] = {title: [] for title in CONFIGURATIONS}
    with Progress(TextColumn("{task.description:15}"), BarColumn(), TimeElapsedColumn(), console=console) as progress:
        for title in CONFIGURATIONS:
            bar = _Bar(progress, title, seeds)
            for seed in range(seeds):
                records[title].append(train_once(run_settings(folder, title, seed, epochs), splits, bar))
                if not console.is_terminal:  # where a bar is shown once, at its end
                    console.print(f"{title}, seed {seed}: trained after {time.perf_counter() - started:.0f} s")
    runs = {title: [run_folder(folder, title, seed) for seed in range(seeds)] for title in CONFIGURATIONS}
    with _phase(console, "the same test images, corrupted in 15 ways"):
        errors = corruption_errors(runs, splits.test, splits.test_labels, folder / "digits_c.json")
    with _phase(console, "curvature of a head class and a tail class"):
        for first, *_ in runs.values():
            save_curvature(first)
    with _phase(console, "the report"):
        page = write_report([read_run(run) for seeds_of in runs.values() for run in seeds_of], folder / "report")
    print_table(console, records, errors)
    checkpoint = run_folder(folder, title, 0)
    console.print(f"report      {terminal(str(page))}")
    console.print(
        f"checkpoint  {terminal(str(checkpoint))} (loaded again with AutoModelForImageClassification: the same logits)"
    )
    console.print(f"metrics     {terminal(str(checkpoint / RECORD))}, and one for every other run")
    console.print(f"corruptions {terminal(str(folder / 'digits_c.json'))} (error of every run under each)")
    console.print(f"time        {time.perf_counter() - started:.0f} s")
    print_next_commands(console, folder / "digits", checkpoint)
    return records


def _phase(console: Console, doing: str) -> Status:
    """What is being done, as long as it is; in a log, a line where it begins."""
    if not console.is_terminal:
        console.print(doing)
    return console.status(doing)


def run_folder(folder: Path, title: str, seed: int) -> Path:
    """runs/demo/la_focal_sam/seed0"""
    return seed_folder(folder / title.lower().replace(" + ", "_").replace("-", "_"), seed)


def run_settings(folder: Path, title: str, seed: int, epochs: int | None) -> dict[str, Any]:
    """What one run sets beside the recipe of the demo."""
    places = {"dataset": str(folder / "digits"), "output_dir": str(run_folder(folder, title, seed))}
    length = {} if epochs is None else {"num_train_epochs": epochs}
    checkpoints = CHECKPOINTS if seed == 0 else NO_CHECKPOINTS
    return {**CONFIGURATIONS[title], "seed": seed, **places, **length, **LOGGING, **checkpoints}


def train_once(settings: Mapping[str, Any], splits: Splits, bar: _Bar) -> RunRecord:
    """One run of `ltsam train`, whose checkpoint is loaded again and compared."""
    run = make_run(settings, recipe="demo/digits")
    clear(Path(run.config.output_dir))
    trainer = build_trainer(run, splits)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(bar)
    trained = train(run, trainer)
    record = finish(run, splits, trainer, trained.metrics)
    check_checkpoint(trainer)
    return record


def check_checkpoint(trainer: LTSamTrainer) -> None:
    """Load what was saved as a user would (after `import hf_ltsam.models`): it must give the same logits.

    Raises:
        RuntimeError: it does not.
    """
    reloaded = AutoModelForImageClassification.from_pretrained(trainer.args.output_dir).eval()
    samples = trainer.eval_dataset
    images = torch.stack([samples[index]["pixel_values"] for index in range(len(samples))])
    with torch.no_grad():
        if not torch.equal(reloaded(images).logits, trainer.model.eval()(images).logits):
            raise RuntimeError(f"The checkpoint {trainer.args.output_dir} differs from the model it was saved from.")


def clear(folder: Path) -> None:
    """Remove the results of an earlier demo, which are of other weights."""
    checkpoints = [checkpoint.path for checkpoint in RunFolder(folder).checkpoints.values()]
    for stale in (folder / EVALUATION, folder / SHARPNESS, *checkpoints):
        if stale.is_dir():
            shutil.rmtree(stale)


def save_curvature(run: Path) -> Path:
    """Spectra, their extremes over the checkpoints, and a loss surface, of the most frequent and the rarest digit.

    Returns:
        The path of `sharpness.json`, in `RUN/sharpness`.
    """
    request = Request(run, checkpoints=True, surface="2d", settings=CURVATURE)
    return analyse(request, command_of(request), progress=False)


class _Bar(TrainerCallback):
    """A progress bar over all seeds of a configuration."""

    def __init__(self, progress: Progress, title: str, seeds: int) -> None:
        self.progress, self.seeds, self.task = progress, seeds, progress.add_task(title, total=None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(self.task, total=self.seeds * state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.advance(self.task)


def _silence_libraries() -> None:
    """No progress bars but our own; and one thread, which is faster for images as small as these."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
