"""`ltsam calibrate`: logit adjustment, temperature and conformal sets of a finished run, chosen by samples that you name.

    ltsam calibrate runs/mine path/to/folder --split validation
    ltsam calibrate runs/mine new_photos.csv
    ltsam calibrate runs/texts OWNER/NAME --split validation

For runs whose training left out no reserve (`ltsam train --reserve`). The samples have labels, and classes of any frequency.
Those that the run was trained or tested on, byte by byte, are left out. `ltsam predict` then gives calibrated probabilities
and sets; report and card show what they make of the test.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from dataset_builders.tables import is_table
from hf_ltsam.cli.evaluate.classes import match_classes
from hf_ltsam.cli.evaluate.evaluation import EvaluationSettings, predicted, process_device, worker_count
from hf_ltsam.cli.evaluate.sets import Places, find_sets
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.train.saved_run import SavedRun, open_run
from hf_ltsam.cli.train.train import as_tested
from hf_ltsam.data.class_names import some
from hf_ltsam.data.decoding import encoded_images, image_bytes
from hf_ltsam.metrics.calibration import PRIORS, Calibration
from hf_ltsam.runs.escaping import terminal
from hf_ltsam.runs.folder import CALIBRATION, RunFolder
from hf_ltsam.runs.record import calibrated_results
from hf_ltsam.runs.shift.checkpoint import Checkpoint, load_classifier
from hf_ltsam.training.prediction import predict_logits

HELD_OUT = ("validation", "test", "train")  # the first of these splits that there is


def calibrate(
    run: str | Path,
    data: str,
    split: str | None = None,
    dataset: str | None = None,
    use_cpu: bool = False,
    **settings: Any,
) -> Calibration:
    """Choose by labelled samples, write `calibration.json` into the run, and what it makes of the test into `metrics.json`.

    Args:
        run: its folder, or that of one of its checkpoints.
        data: a folder, a table, OWNER/NAME on the Hub, or the name of a set, as `ltsam evaluate --sets` takes them.
        split: of the data; None: validation, or else test, or else train.
        dataset: where the data of the run are now; None: where they were.
        use_cpu: leave an accelerator alone.
        settings: of `EvaluationSettings`.

    Raises:
        FileNotFoundError: no such run or data, or the run's own data are not where they were.
        ValueError: samples of other classes, none that the run has not seen, a test that is not the run's, or a setting
            out of its range.
    """
    stated = EvaluationSettings(**settings)
    RunFolder(Path(run)).require_weights()
    try:
        (held_out,) = find_sets([data], Places(), HELD_OUT if split is None else (split,))
        if held_out.corruptions:
            raise ValueError(f"DATA {data} holds corrupted images: name samples like those that the model will see.")
        samples = held_out.load()
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(str(error).replace("--sets ", "DATA ")) from error  # which has no option of its own here
    saved = open_run(run, dataset)
    checkpoint = load_classifier(str(run), process_device(use_cpu))
    _check_test(saved)
    stated = replace(stated, test_time=saved.run.data.test_time)
    unseen = _unseen(samples, data, checkpoint, saved, stated)
    found = predicted(checkpoint, held_out, unseen, None, stated)
    calibration = Calibration.fit(found.logits, found.true, saved.statistics.counts, source=_called(data, split))
    _write(saved, calibration, checkpoint, stated)
    return calibration


def _check_test(saved: SavedRun) -> None:
    """The test split is what the run was tested on: a run made in Python may have been tested on any data.

    Raises:
        ValueError: it is not.
    """
    predictions, splits = saved.root.predictions, saved.splits
    if predictions is None:
        return
    names = predictions.class_names
    if not np.array_equal(predictions.labels, match_classes(names, len(names), splits.class_names)(splits.test_labels)):
        raise ValueError(
            f"{saved.root.path} was tested on other samples than the test split of its data, so those that it has seen "
            "cannot be told from new ones. --dataset PATH names the data of the run; in Python, trainer.save_run(test) "
            "tests it on that split."
        )


def _unseen(
    samples: Dataset, name: str, checkpoint: Checkpoint, saved: SavedRun, settings: EvaluationSettings
) -> Dataset:
    """The samples without those that the run was trained or tested on.

    Raises:
        ValueError: none is left.
    """
    splits, column = saved.splits, saved.run.data.image_column
    if splits.text_columns:
        columns = checkpoint.text_columns_in(samples, settings.text_column, settings.label_column)
        own = list(_texts(samples, columns))
        seen = {what: set(_texts(split, splits.text_columns)) for what, split in _seen(saved)}
    else:
        own = list(_images(samples, checkpoint.image_column_in(samples, settings.image_column)))
        seen = {what: set(_images(split, column)) for what, split in _seen(saved)}
    known = set.union(*seen.values()) - {b""}
    rows = [row for row, digest in enumerate(own) if digest not in known]
    counts = {what: sum(digest in digests & known for digest in own) for what, digests in seen.items()}
    told = " and ".join(f"{count} of the run's {what} samples" for what, count in counts.items() if count)
    if not rows:
        raise ValueError(
            f"All {len(own)} samples of {name} are the run's own ({told}): what is chosen by them says nothing of new ones, "
            "and the test measures nothing that was chosen by it. Name others; --split names one of several splits."
        )
    if told:
        print(f"Left out of {name}, which has {len(own)} samples: {told}.")
    return samples if len(rows) == len(own) else samples.select(rows)


def _seen(saved: SavedRun) -> list[tuple[str, Dataset]]:
    return [("training", saved.splits.train), ("test", saved.splits.test)]


def _images(samples: Dataset, column: str | None) -> Iterator[bytes]:
    """A digest of each image as it is stored; of one that is not there nothing."""
    for row in encoded_images(samples, column):
        try:
            yield hashlib.sha256(image_bytes(row["image"])).digest()
        except (OSError, TypeError):  # it is named when it is decoded
            yield b""


def _texts(samples: Dataset, columns: Sequence[str]) -> Iterator[bytes]:
    for texts in zip(*(samples[column][:] for column in columns)):
        yield hashlib.sha256(repr(texts).encode("utf-8", "backslashreplace")).digest()


def _called(data: str, split: str | None) -> str:
    """What the samples are, for report and card: no folders, which are the user's own affair."""
    local = Path(data).exists() or is_table(data)
    name = Path(data).resolve().name if local else data
    return name if split is None else f"{name} ({split})"


def _write(saved: SavedRun, calibration: Calibration, checkpoint: Checkpoint, settings: EvaluationSettings) -> None:
    """The calibration beside the weights, and where a record is of these weights what it makes of their test."""
    folder, splits = saved.folder, saved.splits
    record = folder.record
    if record is None or record.weights_sha256 not in ("", folder.weights_sha256):
        folder.write_calibration(calibration)
        return
    samples = as_tested(saved.run, splits, splits.test, range(len(splits.test)), checkpoint.preprocessing)
    logits = predict_logits(
        checkpoint.model, samples, settings.batch_size, worker_count(len(samples)), "testing"
    ).numpy()
    mapping = match_classes(checkpoint.class_names, checkpoint.num_classes, splits.class_names)
    results = calibrated_results(calibration, logits, mapping(splits.test_labels).numpy(), saved.statistics)
    folder.write_calibration(calibration)
    folder.write_record(replace(record, results={**record.results, **results}))


def main(words: Sequence[str]) -> None:
    """`ltsam calibrate RUN DATA`."""
    options = vars(_parser().parse_args(words))
    run, data = options.pop("run"), options.pop("data")
    _show(run, calibrate(run, data, **options))


def _show(run: str, calibration: Calibration) -> None:
    folder = RunFolder(Path(run))
    record = folder.record
    results = record.results if record else {}
    table = Table("", "tau", "temperature", "overall", "all classes", "ECE")
    for split, title in (("test", "as trained"), *((f"{prior}_prior", f"--prior {prior}") for prior in PRIORS)):
        result = results.get(split)
        if result is not None:
            numbers = ["" if result.get(name) is None else f"{result[name]:.2f}" for name in ("tau", "temperature")]
            shares = [
                "-" if result[name] is None else f"{100 * result[name]:.2f}" for name in ("overall", "balanced", "ece")
            ]
            table.add_row(title, *numbers, *shares)
    console = Console()
    chosen = f"Chosen on {calibration.samples} samples of {terminal(calibration.source)}"
    if table.row_count:
        console.print(f"{chosen}; the test in %:")
        console.print(table)
    else:  # a checkpoint, which has no test of its own
        console.print(f"{chosen}.")
    names = folder.predictions.class_names if folder.predictions else tuple(map(str, range(len(calibration.counts))))
    empty = [names[c] for c in np.flatnonzero(np.array(calibration.held_out) == 0)]
    pooled = [names[c] for c in calibration.pooled() if names[c] not in empty]
    if empty:
        console.print(f"Without a sample among them, so in every set: {terminal(some(empty))}", soft_wrap=True)
    if pooled:
        console.print(
            f"With too few for a threshold of their own, so they share one: {terminal(some(pooled))}", soft_wrap=True
        )
    console.print(
        f"{terminal(str(folder.path / CALIBRATION))} is what `ltsam predict {terminal(run)} ...` uses.", soft_wrap=True
    )


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="ltsam calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a run or of one of its checkpoints")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="labelled samples: a folder, a table (CSV, JSON lines, Parquet), OWNER/NAME or OWNER/NAME@REVISION on the Hub",
    )
    parser.add_argument("--split", help="of the data; default: validation, or else test, or else train")
    parser.add_argument("--image_column", metavar="NAME", help="default: as in training, or the only column of images")
    parser.add_argument("--label_column", metavar="NAME", help="default: the only ClassLabel, or label, class, ...")
    parser.add_argument(
        "--text_column", nargs="+", metavar="NAME", help="default: as in training, text, or the only one"
    )
    parser.add_argument(
        "--only_known_classes", action="store_true", help="leave out samples of classes that the model does not know"
    )
    parser.add_argument("--dataset", help="where the data of the run are now; default: where they were")
    parser.add_argument("--batch_size", type=int, default=64, help="memory and speed only (default: %(default)s)")
    parser.add_argument("--use_cpu", action="store_true", help="leave an accelerator alone")
    return parser
