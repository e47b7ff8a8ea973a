"""`ltsam predict`: classes and probabilities of image files or texts by a finished run, as CSV or JSON.

    ltsam predict runs/mine path/to/photos one_more.jpg --output predictions.csv
    ltsam predict runs/mine path/to/photos --top_k 3 --format json
    ltsam predict runs/mine new_photos.csv --image_column path
    ltsam predict runs/texts new_reviews.csv --text_column review

A folder stands for all images in it and below, a table (CSV, JSON lines, Parquet) for its rows: images, their paths from the
table's folder, or texts. A file that cannot be read has a row with the reason in it, and is named; others are done. A run
of texts takes text files too, a text on each line. A run whose training left out a reserve (`ltsam train --reserve 0.1`) has
calibrated probabilities, and for each sample the set of classes that are not excluded.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from transformers import AutoConfig

from dataset_builders.folders import is_image
from dataset_builders.tables import READERS, images_of, is_table, read_rows, table_files
from hf_ltsam.cli.evaluate.evaluation import process_device, worker_count
from hf_ltsam.cli.model_names import check_model
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.user_errors import check_choice
from hf_ltsam.data.bad_images import BadImageError
from hf_ltsam.data.decoding import decode_image
from hf_ltsam.data.preprocessing import TEST_TIME, Preprocessing, check_test_time
from hf_ltsam.data.texts import Texts
from hf_ltsam.hyperparameters import COUNT, require
from hf_ltsam.metrics.calibration import COVERAGE, PRIORS
from hf_ltsam.metrics.long_tail import softmax
from hf_ltsam.models.text_classifier import is_of_texts
from hf_ltsam.runs.files import write_whole
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.shift.checkpoint import Checkpoint, load_classifier
from hf_ltsam.training.prediction import predict_logits

FORMATS = ("csv", "json")
TEXT_FILES = (".txt", ".text")  # a text on each line
_OTHER_TABLES = {*READERS, ".xls", ".xlsx"} - {f".{name}" for name in FORMATS}  # which are not written
RAW = "none"  # the prior of probabilities that are left as the model gives them
DECIMALS = 6


@dataclass(frozen=True)
class FilePrediction:
    """What a run says of one file.

    Args:
        file: as it was given, found in a folder or written in a table; of texts, and of images that a table holds itself,
            with the number of the row behind it, from 1: `new.csv:3`.
        classes: the likeliest ones, in that order.
        probabilities: theirs.
        prediction_set: the classes that are not excluded, by class number; None without a calibration.
        error: why the file could not be read; empty for one that was, and then there is all of the above.
    """

    file: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    prediction_set: tuple[str, ...] | None = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"file": self.file, "error": self.error}
        top = [{"class": c, "probability": round(p, DECIMALS)} for c, p in zip(self.classes, self.probabilities)]
        sets = {} if self.prediction_set is None else {"set": list(self.prediction_set)}
        return {"file": self.file, **top[0], "top": top, **sets}


@dataclass(frozen=True)
class PredictionSettings:
    """How files are predicted.

    Args:
        top_k: classes of every file, at least 1; not more than there are.
        prior: what probabilities are calibrated for: "balanced" (all classes equally frequent), "training" (as frequent as
            in the training set), or "none": as the model gives them. None: "balanced" where the run has a calibration.
        coverage: of prediction sets, in (0, 1); None: 0.9.
        test_time: a name in `hf_ltsam.data.preprocessing.TEST_TIME`: views whose logits are averaged.
        image_column: of tables: the column of images or of their paths; None: as in training, or the only one.
        text_column: of tables: the column of texts, or the two of pairs; None: as in training, or one called as texts are.
        batch_size: memory and speed only.
    """

    top_k: int = 5
    prior: str | None = None
    coverage: float | None = None
    test_time: str = "none"
    image_column: str | None = None
    text_column: Sequence[str] | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        require(COUNT, self, top_k=self.top_k, batch_size=self.batch_size)
        check_test_time(self.test_time)
        if self.prior is not None:
            check_choice("prior", self.prior, (*PRIORS, RAW))
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise ValueError(f"--coverage {self.coverage:g} must lie between 0 and 1.")


@dataclass(frozen=True)
class ImageViews:
    """Views of images; NaN for one that cannot be read.

    Args:
        images: to be read: files, or rows (from 0) of a table with encoded images in its column "image".
        see: the model's preprocessing.
        test_time: as in `PredictionSettings`.
    """

    images: Sequence[Path | tuple[Dataset, int]]
    see: Preprocessing
    test_time: str

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        try:
            return self.see.views(self.read(index), self.test_time)
        except BadImageError:
            blank = Image.new("RGB", (2 * self.see.width, 2 * self.see.height))
            return self.see.views(blank, self.test_time) * torch.nan

    def read(self, index: int) -> Image.Image:
        """One image.

        Raises:
            BadImageError: it cannot be decoded.
        """
        image = self.images[index]
        if isinstance(image, Path):
            return decode_image({"path": str(image), "bytes": None}, values=self.see.values)
        table, row = image
        return decode_image(table[row]["image"], row=row, values=self.see.values)


def predict(
    run: str | Path, inputs: Iterable[str | Path], use_cpu: bool = False, **settings: Any
) -> list[FilePrediction]:
    """Classes and probabilities of image files or texts.

    Args:
        run: the folder of a run or of a checkpoint, or OWNER/NAME on the Hub.
        inputs: image files, folders of them, and tables; of a run of texts tables and text files.
        use_cpu: leave an accelerator alone.
        settings: of `PredictionSettings`.

    Raises:
        FileNotFoundError: no such run or input, a folder without images, or a table whose images are not there.
        ValueError: a setting out of its range, a prior or a coverage without a calibration, or a table without images or
            texts.
    """
    chosen, name, given = PredictionSettings(**settings), str(run), [Path(path) for path in inputs]
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder.")
    if Path(name).is_dir():
        RunFolder(Path(name)).require_weights()
    else:
        check_model(name, finished=True, option="RUN")
    files = given if is_of_texts(AutoConfig.from_pretrained(name)) else image_files(given)
    checkpoint = load_classifier(name, process_device(use_cpu))
    _check_calibrated(checkpoint, chosen, str(run))
    checkpoint.warn_of_other_views(chosen.test_time)
    names, samples = _samples(checkpoint, files, chosen)
    logits = predict_logits(checkpoint.model, samples, chosen.batch_size, worker_count(len(names)), "predicting")
    return _predictions(checkpoint, names, samples, logits.double().numpy(), chosen)


def _check_calibrated(checkpoint: Checkpoint, settings: PredictionSettings, run: str) -> None:
    """Refuse what a calibration alone can give, of a run that has none."""
    wanted = {"prior": settings.prior if settings.prior in PRIORS else None, "coverage": settings.coverage}
    for name, value in wanted.items():
        if value is not None and checkpoint.calibration is None:
            raise ValueError(
                f"--{name} {value}: {run} has no calibration. It follows from samples that the training left out (ltsam "
                f"train --reserve 0.1), or from others (ltsam calibrate); without --{name} the model's own probabilities "
                "are given."
            )


def _samples(
    checkpoint: Checkpoint, files: Sequence[Path], settings: PredictionSettings
) -> tuple[list[str], ImageViews | Texts]:
    """Names of samples, and what the model takes of each."""
    see = checkpoint.preprocessing
    if isinstance(see, Preprocessing):
        images = [image for file in files for image in _images(file, checkpoint, settings.image_column)]
        return [name for name, _ in images], ImageViews([image for _, image in images], see, settings.test_time)
    if settings.test_time != "none":
        raise ValueError(f"--test_time {settings.test_time}: this run takes texts, which have no views.")
    names: list[str] = []
    parts: list[list[str | None]] = []
    for file in files:
        columns = _texts(file, checkpoint, settings.text_column)
        parts = parts or [[] for _ in columns]
        if len(columns) != len(parts):
            raise ValueError(f"{file} has {len(columns)} texts in a row, the file before it {len(parts)}.")
        for part, column in zip(parts, columns):
            part += column
        names += [f"{file}:{row + 1}" for row in range(len(columns[0]))]
    if not names:
        raise ValueError("There is no text in these files.")
    return names, Texts(parts, range(len(names)), see)


def _images(
    file: Path, checkpoint: Checkpoint, image_column: str | None
) -> list[tuple[str, Path | tuple[Dataset, int]]]:
    """The image of a file with its name, or those of a table."""
    if not is_table(file):
        return [(str(file), file)]
    table = read_rows([file])
    images, names = images_of(table, file, checkpoint.image_column_in(table, image_column))
    return [(name, (images, row)) for row, name in enumerate(names)]


def _texts(file: Path, checkpoint: Checkpoint, columns: Sequence[str] | None) -> list[list[str | None]]:
    """The column of texts of a file, or the two of pairs.

    Raises:
        ValueError: a file of another kind, or no such column.
    """
    if is_table(file):
        table = read_rows([file])
        return [table[column][:] for column in checkpoint.text_columns_in(table, columns)]
    if file.suffix.lower() not in TEXT_FILES:
        kinds = ", ".join((*READERS, *TEXT_FILES))
        raise ValueError(f"{file}: this run takes texts, from tables or text files ({kinds}).")
    try:
        with file.open(encoding="utf-8-sig") as lines:
            return [[line.rstrip("\n") for line in lines]]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: save it as UTF-8.") from error


def image_files(inputs: Iterable[str | Path]) -> list[Path]:
    """The files that inputs stand for, each once, those of a folder by name.

    Raises:
        FileNotFoundError: no images in a folder.
    """
    files: dict[Path, None] = {}
    for given in map(Path, inputs):
        if given.is_file():
            files[given] = None
            continue
        inside = list(filter(is_image, sorted(given.rglob("*"))))
        if not inside:
            tables = f" Tables are named one by one, as {named[0]}." if (named := table_files(given)) else ""
            raise FileNotFoundError(f"{given}: there are no images in this folder.{tables}")
        files |= dict.fromkeys(inside)
    return list(files)


def _predictions(
    checkpoint: Checkpoint,
    samples: Sequence[str],
    views: ImageViews | Texts,
    logits: np.ndarray[Any, Any],
    settings: PredictionSettings,
) -> list[FilePrediction]:
    calibration, names = checkpoint.calibration, checkpoint.class_names or tuple(map(str, range(logits.shape[1])))
    prior = settings.prior or ("balanced" if calibration else RAW)
    known = ~np.isnan(logits).any(axis=1)
    probabilities, sets = np.full_like(logits, np.nan), np.zeros(logits.shape, dtype=bool)
    if known.any():
        probabilities[known] = softmax(logits[known])
    if known.any() and calibration is not None:
        sets[known] = calibration.sets(logits[known], settings.coverage or COVERAGE)
        if prior != RAW:
            probabilities[known] = calibration.probabilities(logits[known], prior)
    predictions = []
    for row, sample in enumerate(samples):
        if not known[row]:
            predictions.append(FilePrediction(sample, error=_error(views, row)))
            continue
        top = np.argsort(-probabilities[row], kind="stable")[: settings.top_k]
        chosen = None if calibration is None else tuple(names[c] for c in np.flatnonzero(sets[row]))
        of_top = tuple(float(probabilities[row, c]) for c in top)
        predictions.append(FilePrediction(sample, tuple(names[c] for c in top), of_top, chosen))
    return predictions


def _error(views: ImageViews | Texts, row: int) -> str:
    try:
        if isinstance(views, ImageViews):
            views.read(row)
    except BadImageError as error:
        return str(error)
    return "The model gives NaN for it: its weights have diverged."


def as_csv(predictions: Sequence[FilePrediction]) -> str:
    """A header and a row for each file: file, class, probability, class_2, ..., set (A|B; JSON if a name has a |), error."""
    k = max((len(p.classes) for p in predictions), default=1) or 1
    suffixes = ["", *(f"_{place}" for place in range(2, k + 1))]
    has_sets, has_errors = any(p.prediction_set is not None for p in predictions), any(p.error for p in predictions)
    header = ["file", *(name + suffix for suffix in suffixes for name in ("class", "probability"))]
    as_list = any("|" in name for p in predictions for name in p.prediction_set or ())
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*header, *["set"] * has_sets, *["error"] * has_errors])
    for p in predictions:
        pairs = [cell for c, x in zip(p.classes, p.probabilities) for cell in (c, f"{x:.{DECIMALS}f}")]
        pairs += [""] * (2 * k - len(pairs))
        of_file = json.dumps(p.prediction_set, ensure_ascii=False) if as_list else "|".join(p.prediction_set or ())
        rows.writerow([p.file, *pairs, *["" if p.error else of_file] * has_sets, *[p.error] * has_errors])
    return text.getvalue()


def as_json(predictions: Sequence[FilePrediction]) -> str:
    """A list with an object for each file."""
    return json.dumps([p.to_json() for p in predictions], indent=2, ensure_ascii=False) + "\n"


def main(words: Sequence[str]) -> None:
    """`ltsam predict RUN INPUT [INPUT ...]`."""
    options = _parser().parse_args(words)
    names = ("top_k", "prior", "coverage", "test_time", "image_column", "text_column", "batch_size")
    check_choice("format", options.format or "csv", FORMATS)
    if options.format is None and options.output and (suffix := options.output.suffix.lower()) in _OTHER_TABLES:
        raise ValueError(
            f"--output {options.output}: predictions are written as csv or json, not as {suffix[1:]}. Name a file .csv or "
            ".json, or state --format."
        )
    settings = {name: getattr(options, name) for name in names}
    predictions = predict(options.run, options.inputs, options.use_cpu, **settings)
    wanted = options.format or ("json" if options.output and options.output.suffix.lower() == ".json" else "csv")
    text = as_json(predictions) if wanted == "json" else as_csv(predictions)
    if options.output is None:
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())  # names of files need not be UTF-8
    else:
        write_whole(options.output, text)
    _tell(predictions, options.output)


def _tell(predictions: Sequence[FilePrediction], output: Path | None) -> None:
    """What happened, on stderr: stdout is the table's."""
    bad = [p for p in predictions if p.error]
    for p in bad:
        print(f"warning: {p.error}", file=sys.stderr)
    calibrated = any(p.prediction_set is not None for p in predictions)
    where = f" are in {output}" if output else ""
    kind = "" if calibrated else " Probabilities are the model's own: the run has no calibration (ltsam calibrate)."
    print(f"{len(predictions) - len(bad)} of {len(predictions)} predicted{where}.{kind}", file=sys.stderr)


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="ltsam predict", description="Classes and probabilities of images or texts by a finished run."
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a run or of a checkpoint, or OWNER/NAME on the Hub")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        type=Path,
        help="image files, folders of them and tables of them or of their paths, or tables and files of texts",
    )
    parser.add_argument("--output", type=Path, help="a file; default: the screen")
    parser.add_argument("--format", help="csv or json; default: by the name of the file, or csv")
    parser.add_argument("--top_k", type=int, default=5, help="classes of every file (default: %(default)s)")
    parser.add_argument(
        "--prior",
        help="what calibrated probabilities are for: balanced (all classes equally frequent), training (as frequent as in "
        "training), or none (uncalibrated); default: balanced where the run has a calibration",
    )
    parser.add_argument(
        "--coverage", type=float,
        help=f"how often the set of a file holds its class, class by class (default: {COVERAGE}); needs a calibration",
    )  # fmt: skip
    parser.add_argument("--test_time", default="none", help=f"views that are averaged: {', '.join(TEST_TIME)}")
    parser.add_argument(
        "--image_column",
        help="of tables: the column of images or of their paths; default: as in training, or the only one",
    )
    parser.add_argument(
        "--text_column", nargs="+", help="of tables: the column of texts, or the two of pairs; default: as in training"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="memory and speed only (default: %(default)s)")
    parser.add_argument("--use_cpu", action="store_true", help="leave an accelerator alone")
    return parser
