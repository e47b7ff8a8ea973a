"""The main job in about two minutes: real digits, a long tail, three ways to train.

No download: the images are the handwritten digits that scikit-learn ships. Every run is a run of the training script with
the recipe `demo/digits`.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import AutoModelForImageClassification, PrinterCallback, TrainerCallback
from transformers.utils import logging

from hf_ltsam import LTSamTrainer
from hf_ltsam.cli.demo.corruptions import corruption_errors
from hf_ltsam.cli.demo.data import digit_splits, save_parquet
from hf_ltsam.cli.demo.report import print_next_commands, print_table, save_curvature
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.cli.train.train import build_trainer, finish, train
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.runs.files import check_output_folder
from hf_ltsam.runs.folder import EVALUATION, RECORD, SHARPNESS, RunFolder
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report

# The hyper-parameters of SAM and Focal-SAM were chosen without the test images: by the overall accuracy on 30 other images
# of each digit, after training on a tail that leaves those out too (mean of seeds 10 to 12; they differ by less than their
# deviation). SAM: rho of 0.05, 0.1, 0.2. Focal-SAM: (rho, gamma, lam) of (0.05, 1, 1), (0.1, 3, 0.5), (0.2, 3, 0.5),
# (0.3, 3.2, 0.8).
CONFIGURATIONS = {
    "CE + SGD": ["--loss=cross_entropy", "--method=sgd"],
    "LA + SAM": ["--loss=logit_adjustment", "--method=sam", '--method_args={"rho": 0.05}'],
    "LA + Focal-SAM": [
        "--loss=logit_adjustment",
        "--method=focal_sam",
        '--method_args={"rho": 0.1, "gamma": 3.0, "lam": 0.5}',
    ],
}
# For the report: accuracies ten times during the training, telemetry after every epoch, and for curvature two checkpoints
# of one seed.
TOLD = ["--disable_tqdm=true", "--logging_strategy=epoch", "--eval_strategy=steps", "--eval_steps=0.1"]
SAVED = ["--save_strategy=steps", "--save_steps=0.34", "--save_only_model=true"]
NOT_SAVED = ["--save_strategy=no"]


def main(argv: Sequence[str] | None = None) -> None:
    """The demo, from the words of the command line."""
    parser = argparse.ArgumentParser(prog="ltsam demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo"), help="where everything is written")
    parser.add_argument("--seeds", type=_positive, default=3, help="runs of each configuration (default: 3)")
    parser.add_argument("--epochs", type=_positive, help="of each run (default: 60)")
    options = parser.parse_args(argv)
    with user_errors():
        try:
            run_demo(options.output_dir, options.seeds, options.epochs)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("The demo cannot be resumed: `ltsam demo` starts it anew.") from interrupt


def run_demo(folder: Path, seeds: int, epochs: int | None = None) -> dict[str, list[RunRecord]]:
    """Train with each configuration and seed; show and save what came out.

    Returns:
        Title of the configuration -> one record for each seed.
    """
    started = time.perf_counter()
    check_output_folder(str(folder))
    _calm_down()
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
                records[title].append(train_once(_words(folder, title, seed, epochs), splits, bar))
    runs = {title: [run_folder(folder, title, seed) for seed in range(seeds)] for title in CONFIGURATIONS}
    with console.status("the same test images, corrupted in 15 ways"):
        errors = corruption_errors(runs, splits.test, splits.test_labels, folder / "digits_c.json")
    with console.status("curvature of a head class and a tail class"):
        for own in runs.values():
            save_curvature(own[0])
    with console.status("the report"):
        page = write_report([read_run(run) for own in runs.values() for run in own], folder / "report")
    print_table(console, records, errors)
    checkpoint = run_folder(folder, title, 0)
    console.print(f"report      {page}")
    console.print(f"checkpoint  {checkpoint} (loaded again with AutoModelForImageClassification: the same logits)")
    console.print(f"metrics     {checkpoint / RECORD}, and one for every other run")
    console.print(f"corruptions {folder / 'digits_c.json'} (error of every run under each)")
    console.print(f"time        {time.perf_counter() - started:.0f} s")
    print_next_commands(console, folder / "digits", checkpoint)
    return records


def run_folder(folder: Path, title: str, seed: int) -> Path:
    """runs/demo/la_focal_sam/seed0"""
    return folder / title.lower().replace(" + ", "_").replace("-", "_") / f"seed{seed}"


def _words(folder: Path, title: str, seed: int, epochs: int | None) -> list[str]:
    """The command line of one run: `ltsam train` and these words repeat it."""
    where = [f"--dataset={folder / 'digits'}", f"--output_dir={run_folder(folder, title, seed)}"]
    length = [] if epochs is None else [f"--num_train_epochs={epochs}"]
    saved = SAVED if seed == 0 else NOT_SAVED
    return ["--config=demo/digits", *CONFIGURATIONS[title], f"--seed={seed}", *where, *length, *TOLD, *saved]


def train_once(words: Sequence[str], splits: Splits, bar: _Bar) -> RunRecord:
    """One run of the training script, whose checkpoint is loaded again and compared."""
    run = parse(words)
    clear(Path(run.config.output_dir))
    trainer = build_trainer(run, splits)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(bar)
    trained = train(run, trainer)
    record = finish(run, splits, trainer, trained.metrics)
    check_checkpoint(trainer)
    return record


def check_checkpoint(trainer: LTSamTrainer) -> None:
    """Load what was saved as a user would (after `import hf_ltsam`): it must give the same logits.

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
    """Leave nothing of an earlier demo that speaks of other weights."""
    checkpoints = [checkpoint.path for checkpoint in RunFolder(folder).checkpoints.values()]
    for stale in (folder / EVALUATION, folder / SHARPNESS, *checkpoints):
        if stale.is_dir():
            shutil.rmtree(stale)


class _Bar(TrainerCallback):
    """A progress bar over all seeds of a configuration."""

    def __init__(self, progress: Progress, title: str, seeds: int) -> None:
        self.progress, self.seeds, self.task = progress, seeds, progress.add_task(title, total=None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(self.task, total=self.seeds * state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.advance(self.task)


def _calm_down() -> None:
    """One thread, which is faster for images as small as these, and no progress bars but our own."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
