"""Digits-C: the demo's test images under the 15 corruptions of ImageNet-C, for all of its checkpoints at once.

The results lie in every run's folder as `ltsam evaluate --sets digits_c --severities 3` would have left them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from dataset_builders.corruptions import CORRUPTIONS
from hf_ltsam.cli.evaluate.command import output_folder
from hf_ltsam.cli.evaluate.evaluation import EvaluationSettings, identity_of, summary_of, without_classes
from hf_ltsam.cli.evaluate.images import Corruption, TestImages
from hf_ltsam.cli.evaluate.sets import DIGITS, SUFFIX, Places, find_sets
from hf_ltsam.data.decoding import encoded_images
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.metrics.corruption import mean_error
from hf_ltsam.runs.files import write_json
from hf_ltsam.runs.folder import EVALUATION_RESULTS
from hf_ltsam.runs.record import split_results
from hf_ltsam.runs.shift.checkpoint import Checkpoint, load_checkpoint
from hf_ltsam.runs.shift.results import Results
from hf_ltsam.training.prediction import predict_logits

SEVERITIES = (3,)  # of 1 to 5: the middle one, to save time
NAME = DIGITS + SUFFIX
Tables = dict[Path, dict[str, dict[int, float]]]  # checkpoint -> corruption -> severity -> error


def corruption_errors(
    runs: Mapping[str, Sequence[Path]], test: Dataset, labels: torch.Tensor, file: Path
) -> dict[str, list[float]]:
    """Mean error under corruption of every run, and the errors in full in a file.

    The same numbers as of `ltsam evaluate --sets digits_c --severities 3`, image by image.

    Args:
        runs: title of a configuration -> the checkpoint of every seed.
        test: the test images.
        labels: theirs (N,).
        file: JSON, title -> a table (corruption -> severity -> error, fractions) for each seed.
    """
    tables = _error_tables([folder for folders in runs.values() for folder in folders], test, labels)
    write_json(file, {title: [tables[folder] for folder in folders] for title, folders in runs.items()})
    return {title: [mean_error(tables[folder]) for folder in folders] for title, folders in runs.items()}


def _error_tables(folders: Sequence[Path], test: Dataset, labels: torch.Tensor) -> Tables:
    """Every corrupted image is made once, for all checkpoints."""
    checkpoints = {folder: load_checkpoint(str(folder)) for folder in folders}
    results = {folder: _results(folder, checkpoint) for folder, checkpoint in checkpoints.items()}
    settings, encoded = EvaluationSettings(CORRUPTIONS, SEVERITIES), encoded_images(test)
    test_set = find_sets([NAME], Places())[0]
    identity = identity_of(test_set, test, settings)
    facts = {"labels_sha256": label_fingerprint(labels), "imagenet_classes": False, "note": ""}
    for corruption, severity in product(CORRUPTIONS, SEVERITIES):
        seen: dict[Any, torch.Tensor] = {}  # all runs have the same, as they trained on the same images
        for folder, checkpoint in checkpoints.items():
            see: Any = checkpoint.preprocessing
            if see not in seen:
                images = TestImages(encoded, range(len(test)), see, corruption=Corruption(corruption, severity))
                seen[see] = torch.stack([images[row] for row in range(len(images))])  # (N, 1, channels, 8, 8)
            logits = predict_logits(checkpoint.model, seen[see], batch_size=500)
            accuracies = without_classes(split_results(logits, labels, checkpoint.statistics, checkpoint.num_classes))
            results[folder].put(NAME, (corruption, severity), {"identity": identity, **accuracies, **facts})
    for of_run in results.values():
        of_run.writes = True
        of_run.summarise(NAME, summary_of(test_set, settings, of_run))
    return {folder: of_run.table(NAME, settings.cells()) for folder, of_run in results.items()}


def _results(folder: Path, checkpoint: Checkpoint) -> Results:
    """Results that are written once, when all of them are there."""
    return Results(
        output_folder(str(folder), None) / EVALUATION_RESULTS, checkpoint.about, checkpoint.statistics, writes=False
    )
