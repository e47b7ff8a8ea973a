"""A checkpoint on one test set, part by part; parts that have been measured are not measured again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from torch import Tensor

from dataset_builders.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from hf_ltsam.cli.evaluate.classes import are_imagenets, imagenet_keys, labels_of, match_classes, model_labels
from hf_ltsam.cli.evaluate.images import Corruption, TestImages
from hf_ltsam.cli.evaluate.sets import TestSet
from hf_ltsam.cli.user_errors import check_choice
from hf_ltsam.data.decoding import content_fingerprint, encoded_images
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.data.preprocessing import check_test_time
from hf_ltsam.data.texts import Texts, Tokenization
from hf_ltsam.hyperparameters import COUNT, NON_NEGATIVE, require
from hf_ltsam.metrics.corruption import ALEXNET, SEVERITIES, corruption_summary
from hf_ltsam.runs.predictions import DECIMALS
from hf_ltsam.runs.record import hub_commit, hub_name, split_results, split_revision
from hf_ltsam.runs.shift.checkpoint import Checkpoint
from hf_ltsam.runs.shift.results import CONTENT, Cell, OtherErrors, Results
from hf_ltsam.training.prediction import predict_logits

WORTH_WORKERS = 2000  # images: below that, starting processes takes longer than it saves


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is evaluated.

    Args:
        corruptions, severities: of -C sets.
        seed: of corruptions that are made on the fly.
        test_time: a name in `hf_ltsam.data.preprocessing.TEST_TIME`.
        only_known_classes: leave out images of classes that the model does not know.
        image_column, label_column, text_column: of test sets; None: the only one, or one of the usual names.
        batch_size, num_workers: of every process; they change no number. `num_workers` None: by the cores there are.
    """

    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    test_time: str = "none"
    only_known_classes: bool = False
    image_column: str | None = None
    label_column: str | None = None
    text_column: Sequence[str] | None = None
    batch_size: int = 64
    num_workers: int | None = None

    def __post_init__(self) -> None:
        check_test_time(self.test_time)
        for corruption in self.corruptions:
            check_choice("corruptions", corruption, (*CORRUPTIONS, *EXTRA_CORRUPTIONS))
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise ValueError(f"--severities {severity} does not exist: they are {', '.join(map(str, SEVERITIES))}.")
        require(COUNT, self, batch_size=self.batch_size)
        require(NON_NEGATIVE, self, seed=self.seed, num_workers=self.num_workers or 0)

    def cells(self) -> list[tuple[str, int]]:
        return [(corruption, severity) for corruption in self.corruptions for severity in self.severities]


def evaluate(
    checkpoint: Checkpoint,
    test_set: TestSet,
    settings: EvaluationSettings,
    results: Results,
    baseline: OtherErrors | None = None,
) -> None:
    """Measure the parts of a set that `results` does not hold yet. Every process takes part in every measurement.

    Args:
        baseline: that the errors under corruption are relative to; None: AlexNet, where the classes are ImageNet's.

    Raises:
        ValueError: the baseline is of other images.
    """
    for dataset, cells in _parts(test_set, settings):
        identity = identity_of(test_set, dataset, settings)
        for cell in cells:
            result = results.get(test_set.name, cell, identity)
            if result is None:
                result = {"identity": identity, **measure(checkpoint, test_set, dataset, cell, settings)}
                results.put(test_set.name, cell, result)
            if baseline is not None and cell is not None:  # before the others are measured
                baseline.check_images(test_set.name, cell, result)
    if test_set.corruptions:
        results.summarise(test_set.name, summary_of(test_set, settings, results, baseline))


def _parts(test_set: TestSet, settings: EvaluationSettings) -> Iterator[tuple[Dataset, Sequence[Cell]]]:
    """The images that are there, and what is measured on them."""
    if test_set.corruptions == "stored":
        for cell in settings.cells():
            yield test_set.load(*cell), [cell]
    else:
        yield test_set.load(), settings.cells() if test_set.corruptions else [None]


def without_classes(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its lists of one number for each class."""
    return {name: value for name, value in result.items() if not isinstance(value, list)}


def identity_of(test_set: TestSet, dataset: Dataset, settings: EvaluationSettings) -> dict[str, Any]:
    """What a result follows from beside the checkpoint: the settings, and the images that are there now."""
    made = {"seed": settings.seed} if test_set.corruptions == "made" else {}
    columns = {name: getattr(settings, name) for name in ("image_column", "label_column", "text_column")}
    stated = {name: column for name, column in columns.items() if column is not None}
    return {
        "source": test_set.source,
        **_version(test_set, dataset),
        "test_time": settings.test_time,
        "only_known_classes": settings.only_known_classes,
        **made,
        **stated,
    }


def _version(test_set: TestSet, dataset: Dataset) -> dict[str, str]:
    """The commit of a set on the Hub, whose branches and tags move; of others, whose files may change, their content."""
    name = hub_name(split_revision(test_set.source)[0])
    commit = None if name is None else hub_commit(dataset, name)
    return {CONTENT: content_fingerprint(dataset)} if commit is None else {"commit": commit}


class Predicted(NamedTuple):
    """What a checkpoint makes of a test set.

    Args:
        logits: (M, C) of the samples whose class it knows.
        true: their classes (M,) as the model numbers them.
        labels: of all samples (N,) as the set numbers them.
        names: the set's classes; None: it has none.
        note: as in `LabelMap`.
    """

    logits: Tensor
    true: Tensor
    labels: Tensor
    names: tuple[str, ...] | None
    note: str


def predicted(
    checkpoint: Checkpoint, test_set: TestSet, dataset: Dataset, cell: Cell, settings: EvaluationSettings
) -> Predicted:
    """The logits of the samples of a set, and their classes.

    Raises:
        ValueError: its classes are not the model's.
    """
    labels, names = labels_of(dataset, checkpoint.class_names, test_set.name, settings.label_column)
    keys = _keys_of_imagenet(checkpoint)
    try:
        mapping = match_classes(
            checkpoint.class_names, checkpoint.num_classes, names, settings.only_known_classes, keys
        )
    except ValueError as error:
        raise ValueError(f"{checkpoint.name} on {test_set.name}: {error}") from error
    rows, true = model_labels(labels, mapping)
    images = _samples(checkpoint, test_set, dataset, rows.tolist(), cell, settings)
    workers = worker_count(len(images)) if settings.num_workers is None else settings.num_workers
    title = " ".join(map(str, (test_set.name, *(cell or ())))) if PartialState().is_main_process else None
    logits = predict_logits(checkpoint.model, images, settings.batch_size, workers, title)
    return Predicted(logits, true, labels, names, mapping.note)


def measure(
    checkpoint: Checkpoint, test_set: TestSet, dataset: Dataset, cell: Cell, settings: EvaluationSettings
) -> dict[str, Any]:
    """Accuracies on one set of images. Errors as of `predicted`."""
    logits, true, labels, names, note = predicted(checkpoint, test_set, dataset, cell, settings)
    result = split_results(logits, true, checkpoint.statistics, checkpoint.num_classes)
    result["ece"] = round(result["ece"], DECIMALS)  # beyond that it depends on the size of the batches
    if cell is not None:
        result = without_classes(result)  # 75 times 1,000 numbers
    keys = _keys_of_imagenet(checkpoint)
    return {
        **result,
        "labels_sha256": label_fingerprint(labels),
        "imagenet_classes": not settings.only_known_classes and are_imagenets(names, keys),
        "note": note,
        "left_out": len(labels) - len(true),
        "published": test_set.published,
    }


def _samples(
    checkpoint: Checkpoint,
    test_set: TestSet,
    dataset: Dataset,
    rows: list[int],
    cell: Cell,
    settings: EvaluationSettings,
) -> TestImages | Texts:
    """Images or texts as the model takes them.

    Raises:
        ValueError: corruptions or views of texts, or no column of what the model takes.
    """
    see = checkpoint.preprocessing
    if isinstance(see, Tokenization):
        if cell is not None or settings.test_time != "none":
            what = f"--sets {test_set.name}" if cell is not None else f"--test_time {settings.test_time}"
            raise ValueError(
                f"{what}: {checkpoint.name} takes texts, which have neither corruptions of images nor views."
            )
        columns = checkpoint.text_columns_in(dataset, settings.text_column, settings.label_column)
        return Texts([dataset[column][:] for column in columns], rows, see)
    made = test_set.corruptions == "made" and cell is not None
    return TestImages(
        encoded_images(dataset, checkpoint.image_column_in(dataset, settings.image_column)),
        rows,
        see,
        settings.test_time,
        Corruption(*cell, settings.seed) if made and cell else None,
        test_set.cropped,
    )


def summary_of(
    test_set: TestSet, settings: EvaluationSettings, results: Results, baseline: OtherErrors | None = None
) -> dict[str, Any]:
    """Means over the cells, and the errors relative to the baseline or to AlexNet, as far as they can be compared.

    Raises:
        ValueError: the baseline is of other images.
    """
    cells = _summarised(test_set, settings, results, baseline)
    entries = [results.sets[test_set.name]["cells"][corruption][str(severity)] for corruption, severity in cells]
    if baseline is not None:
        for cell, entry in zip(cells, entries):  # earlier results are among them
            baseline.check_images(test_set.name, cell, entry)
    reference = None if baseline is None else baseline.over(cells)
    complete = {severity for _, severity in cells} == set(SEVERITIES)  # AlexNet's errors are means over all five
    if reference is None and complete and all(entry["imagenet_classes"] for entry in entries):
        reference = ALEXNET
    groups = {group: float(np.mean([entry["groups"][group] for entry in entries])) for group in entries[0]["groups"]}
    return {**corruption_summary(results.table(test_set.name, cells), reference), "groups": groups}


def _summarised(
    test_set: TestSet, settings: EvaluationSettings, results: Results, baseline: OtherErrors | None
) -> list[tuple[str, int]]:
    """All that was ever measured in the same way, or what is asked for where that cannot be summed up or compared."""
    asked = settings.cells()
    own_images = [CONTENT] if test_set.corruptions == "stored" else []
    measured = results.measured(test_set.name, asked[0], own_images)
    severities = {corruption: {s for c, s in measured if c == corruption} for corruption, _ in measured}
    alike = set(asked) <= set(measured) and all(of_row == severities[asked[0][0]] for of_row in severities.values())
    return measured if alike and not (baseline and baseline.missing(measured)) else asked


def _keys_of_imagenet(checkpoint: Checkpoint) -> dict[str, str]:
    """Names of ImageNet's classes go with their wnids, for models of as many classes or fewer."""
    return imagenet_keys() if checkpoint.class_names is not None else {}


def worker_count(num_images: int) -> int:
    """Processes that load images, for each process of `accelerate launch`."""
    if num_images < WORTH_WORKERS:
        return 0
    share = (os.cpu_count() or 1) // PartialState().num_processes
    return min(share, 16) if share > 1 else 0


def process_device(use_cpu: bool) -> torch.device:
    """The device of this process; the process group of `accelerate launch` is made here."""
    return torch.device(PartialState(cpu=use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU")).device)
