"""Digits-C: the demo's test images under the 15 corruptions of ImageNet-C, for all of its checkpoints at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from datasets import Dataset

from dataset_builders.corruptions import CORRUPTIONS
from hf_ltsam.data.decode import encoded_images
from hf_ltsam.data.test_time import Preprocessing
from hf_ltsam.metrics.corruption import mean_error
from hf_ltsam.metrics.json_file import write_json
from hf_ltsam.prediction import predict_classes
from training_scripts.ood_checkpoint import load_checkpoint
from training_scripts.ood_images import Corruption, TestImages

SEVERITIES = (3,)        # of 1 to 5: the middle one, to save time
Tables = dict[Path, dict[str, dict[int, float]]]        # checkpoint -> corruption -> severity -> error


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
    tables = error_tables([folder for folders in runs.values() for folder in folders], test, labels)
    write_json(file, {title: [tables[folder] for folder in folders] for title, folders in runs.items()})
    return {title: [mean_error(tables[folder]) for folder in folders] for title, folders in runs.items()}


def error_tables(folders: Sequence[Path], test: Dataset, labels: torch.Tensor) -> Tables:
    """Every corrupted image is made once, for all checkpoints."""
    checkpoints = {folder: load_checkpoint(str(folder)) for folder in folders}
    tables: Tables = {folder: {corruption: {} for corruption in CORRUPTIONS} for folder in folders}
    encoded = encoded_images(test)
    for corruption, severity in product(CORRUPTIONS, SEVERITIES):
        seen: dict[Preprocessing, torch.Tensor] = {}        # all runs have the same, as they trained on the same images
        for folder, checkpoint in checkpoints.items():
            see = checkpoint.preprocessing
            if see not in seen:
                images = TestImages(encoded, range(len(test)), see, corruption=Corruption(corruption, severity))
                seen[see] = torch.stack([images[row] for row in range(len(images))])        # (N, 1, channels, 8, 8)
            predictions = predict_classes(checkpoint.model, seen[see], batch_size=500)
            tables[folder][corruption][severity] = float((predictions != labels).double().mean())
    return tables
