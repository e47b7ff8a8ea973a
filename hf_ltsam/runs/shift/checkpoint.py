"""The checkpoint that is evaluated: model, preprocessing, class names, statistics of its training set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import AutoConfig
from transformers.utils import cached_file, logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.class_names import names_of_model
from hf_ltsam.data.labels import LABEL_WORDS
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.data.texts import Tokenization, text_columns_of
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.models.logits import check_num_classes
from hf_ltsam.models.text_classifier import is_of_texts
from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import CALIBRATION, CONFIG, RECORD, STATISTICS, WEIGHTS, RunFolder
from hf_ltsam.runs.model import load_run

logger = logging.get_logger(__name__)
_OTHER_ANSWERS = {"multi_label_classification": "several labels of a sample", "regression": "numbers, not classes"}


@dataclass(frozen=True)
class Checkpoint:
    """A classifier as it was saved.

    Args:
        name: the folder, or the name on the Hub.
        model: with its adapter where it has one; in evaluation mode, float32.
        num_classes: C.
        preprocessing: of its image processor, or of its tokenizer.
        class_names: by logit, length C; None where the model names none (LABEL_0, LABEL_1, ...).
        statistics: of its training set; None where none were saved.
        fingerprint: SHA-256 (hex) of weights, preprocessing and class names.
        calibration: chosen on the reserve of its training set; None where it had none.
        text_columns: of the texts that it was trained on; empty where they are unknown, and for images.
        image_column: of the images that it was trained on, where it was stated.
        test_time: views of an image that were averaged in the test of its training, and for its calibration.
    """

    name: str
    model: nn.Module
    num_classes: int
    preprocessing: Preprocessing | Tokenization
    class_names: tuple[str, ...] | None
    statistics: ClassStatistics | None
    fingerprint: str
    calibration: Calibration | None = None
    text_columns: tuple[str, ...] = ()
    image_column: str | None = None
    test_time: str = "none"

    def warn_of_other_views(self, test_time: str) -> None:
        """Tell that numbers are not those of the run's own test: where no views were stated, or there is a calibration."""
        if test_time != self.test_time and (test_time == "none" or self.calibration is not None):
            calibrated = " and calibrated" if self.calibration is not None else ""
            logger.warning(
                f"{self.name} was tested{calibrated} with --test_time {self.test_time}, and its accuracies and "
                f"probabilities differ with --test_time {test_time}: add --test_time {self.test_time} for those of its test."
            )

    @property
    def task(self) -> str:
        """image or text."""
        return "text" if isinstance(self.preprocessing, Tokenization) else "image"

    @property
    def about(self) -> dict[str, Any]:
        """What its results say of it."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "num_classes": self.num_classes,
            "task": self.task,
        }

    def text_columns_in(
        self, dataset: Dataset, stated: Sequence[str] | None, label_column: str | None = None
    ) -> tuple[str, ...]:
        """The stated columns of texts; else those of the training, or where they are not there one that is found.

        Args:
            label_column: is none of them; None: the one that is called as labels are.

        Raises:
            ValueError: as `text_columns_of`.
        """
        if stated is None and self.text_columns and set(self.text_columns) <= set(dataset.column_names):
            stated = self.text_columns
        if label_column is None:
            label_column = next((name for name in LABEL_WORDS if name in dataset.column_names), None)
        return text_columns_of(dataset, stated, label_column)

    def image_column_in(self, dataset: Dataset, stated: str | None) -> str | None:
        """The stated column of images; else that of the training where it is there, or None: one that is found."""
        return stated or (self.image_column if self.image_column in dataset.column_names else None)


def check_model_name(name: str) -> None:
    """Refuse a folder that is no checkpoint, without loading anything.

    Raises:
        FileNotFoundError: saying which.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    run = RunFolder(folder)
    if not run.has(CONFIG) or not run.has_weights:
        inner = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
        hint = f" There are checkpoints in it: {', '.join(inner)}." if inner else ""
        raise FileNotFoundError(f"--model {name} holds no model ({CONFIG} beside {WEIGHTS[0]} or an adapter).{hint}")


def load_checkpoint(name: str, device: torch.device | str = "cpu") -> Checkpoint:
    """A classifier with everything that was saved beside it.

    Raises:
        OSError: there is no such model, or no image processor or tokenizer beside it.
        ValueError: no classifier, or statistics of another number of classes.
    """
    model = load_run(name).float()
    config = AutoConfig.from_pretrained(name)
    preprocessing = (Tokenization if is_of_texts(config) else Preprocessing).beside(name)
    statistics = _statistics(name)
    if statistics is not None:
        check_num_classes(config.num_labels, statistics.num_classes)
    names = names_of_model(config.id2label)
    # hashed before it moves to the device: the same everywhere
    digest = fingerprint(model, preprocessing, names)
    calibration = _saved(name, CALIBRATION)
    chosen = None if calibration is None else RunFolder(calibration.parent).calibration
    text_columns, image_column, test_time = _stated_in_training(name)
    return Checkpoint(
        name,
        model.to(device),
        config.num_labels,
        preprocessing,
        names,
        statistics,
        digest,
        chosen,
        text_columns if isinstance(preprocessing, Tokenization) else (),
        image_column,
        test_time,
    )


def load_classifier(name: str, device: torch.device | str = "cpu") -> Checkpoint:
    """`load_checkpoint` of a model whose logits choose one class: of others the largest one and the softmax mean nothing.

    Raises:
        OSError, ValueError: as `load_checkpoint`, and of other models, saying what they answer with.
    """
    problem_type = getattr(AutoConfig.from_pretrained(name), "problem_type", None)
    if problem_type in _OTHER_ANSWERS:
        raise ValueError(
            f"{name} answers with {_OTHER_ANSWERS[problem_type]} (problem_type {problem_type!r} in its {CONFIG}): predict, "
            "evaluate and calibrate take models of one class for each sample. A pipeline of transformers with top_k=None "
            "gives all its answers."
        )
    return load_checkpoint(name, device)


def fingerprint(
    model: torch.nn.Module, preprocessing: Preprocessing | Tokenization, class_names: tuple[str, ...] | None
) -> str:
    """SHA-256 (hex) of everything that the predicted classes follow from."""
    see = preprocessing.fingerprint if isinstance(preprocessing, Tokenization) else preprocessing
    digest = hashlib.sha256(repr((see, class_names)).encode())
    if isinstance(preprocessing, Preprocessing) and preprocessing.values:
        digest.update(repr(preprocessing.values).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _statistics(name: str) -> ClassStatistics | None:
    file = _saved(name, STATISTICS)
    return None if file is None else ClassStatistics.load(file)


def _stated_in_training(name: str) -> tuple[tuple[str, ...], str | None, str]:
    """Columns of texts and of images and views, as the record of a run says; a model of others has none, or another
    metrics.json.
    """
    file = _saved(name, RECORD)
    try:
        record = None if file is None else RunFolder(file.parent).record
    except DamagedFileError:
        return (), None, "none"
    data = {} if record is None else record.data
    columns = data.get("text_column")
    columns = (columns,) if isinstance(columns, str) else tuple(columns or ())
    return columns, data.get("image_column"), data.get("test_time") or "none"


def _saved(name: str, file: str) -> Path | None:
    """A file beside the model, here or on the Hub; None where there is none."""
    path = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return None if path is None else Path(path)
