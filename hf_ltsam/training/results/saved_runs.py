"""The files of a finished run, made in Python or by the command line: what report, card, evaluation and others read."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainerState
from transformers.trainer_utils import PredictionOutput, SaveStrategy, has_length
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.random_states import undisturbed
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.losses.protocol import takes_several_labels
from hf_ltsam.metrics.decisions import logits_in
from hf_ltsam.runs.experiment import OF_THE_DATA
from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import CALIBRATION, RECIPE, RunFolder
from hf_ltsam.runs.identity import earlier_run
from hf_ltsam.runs.predictions import Predictions, predictions_of
from hf_ltsam.runs.record import (
    RunRecord,
    calibrated_results,
    installed_versions,
    split_results,
    split_revision,
)
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.evaluation import decisions_alone
from hf_ltsam.training.loaders import replaced
from hf_ltsam.training.results.description import RunDescription, describe_trainer, name_classes
from hf_ltsam.training.training_set import require_statistics
from hf_ltsam.training.training_time import has_steps, timing, took_no_step

logger = logging.get_logger(__name__)
NO_FOLDER = "trainer_output"  # transformers' own, where no output_dir is stated


def write_run(trainer: Any, test: PredictionOutput, description: RunDescription) -> RunRecord:
    """Write state, predictions, recipe and, last, `metrics.json` beside weights that are saved; every process calls it.

    Args:
        test: labels of the test set, and its logits or what is kept of them.
    """
    trainer.save_state()
    record = record_of(trainer, test, description)
    if trainer.is_world_process_zero():
        folder = RunFolder(Path(trainer.args.output_dir))
        predictions = predictions_of(test.predictions, test.label_ids, description.class_names)
        if description.calibration is not None:
            folder.write_calibration(description.calibration)
        else:
            record = _with_kept_calibration(record, predictions, folder)
        train = description.train_metrics
        ended = folder.finished_record() if not has_steps(train) and folder.is_of_its_weights else None
        if ended is not None:  # the time that the training of these weights took
            record = replace(record, timing=ended.timing, resumed=ended.resumed, hardware=ended.hardware)
        folder.write_predictions(predictions)
        if ended is not None and took_no_step(train) and folder.has(RECIPE):
            record = replace(record, command=ended.command)
            logger.warning(
                f"No step was left: this is a test of the training that ended here before, as its {RECIPE} states it."
            )
        else:
            folder.write_recipe(description.settings, description.comments)
        folder.write_record(record)  # last: who finds it finds all
    return record


def save_weights(trainer: Any) -> None:
    """Save the model, without results of other weights beside it; every process calls it. Nothing is pushed."""
    trainer.save_model(_internal_call=True)
    if trainer.is_world_process_zero():
        RunFolder(Path(trainer.args.output_dir)).remove_results_of_other_weights()


def _with_kept_calibration(record: RunRecord, predictions: Predictions, folder: RunFolder) -> RunRecord:
    """With what a calibration that `ltsam calibrate` left for the same weights makes of the same test."""
    if not (folder.has(CALIBRATION) and folder.is_of_its_weights):
        return record
    try:
        tested = folder.predictions
    except DamagedFileError:
        tested = None
    if tested is None or not np.array_equal(tested.labels, predictions.labels):
        return record
    return replace(record, results={**folder.finished_record().results, **record.results})


def record_of(trainer: Any, test: PredictionOutput, description: RunDescription) -> RunRecord:
    """The content of `metrics.json`."""
    args, statistics, calibration = trainer.args, description.statistics, description.calibration
    calibrated = {}
    if calibration is not None:
        calibrated = calibrated_results(calibration, logits_in(test.predictions), test.label_ids, statistics)
    identity = trainer._identity or trainer.identity()  # of its start: an own loss may count or collect
    return RunRecord(
        seed=args.seed,
        method=identity["method"],
        loss={**identity["loss"], **({"start": args.loss_start} if args.loss_start else {})},
        class_statistics=statistics.to_dict(),
        results={"test": split_results(test.predictions, test.label_ids, statistics), **calibrated},
        optimizer=trainer.own_optimizer,
        reweighting={"scheme": args.reweighting, "start": args.reweighting_start},
        sampling=args.sampling,
        mixing=args.mixing,
        second_stage=dict(description.second_stage),
        weight_averaging=trainer.averaging.settings if trainer.averaging else {},
        best_checkpoint=_best_checkpoint(args, trainer.state),
        model=dict(description.model),
        data=dict(description.data),
        hub=None if description.hub is None else dict(description.hub),
        timing=timing(description.train_metrics, trainer.training_time.before),
        resumed=description.resumed,
        hardware=hardware(args),
        command=description.command,
        weights_sha256=RunFolder(Path(args.output_dir)).weights_sha256,
        versions=installed_versions(),
    )


def _best_checkpoint(args: LTSamConfig, state: TrainerState) -> dict[str, Any]:
    """Of which the model has the weights, as the record has it."""
    if not args.load_best_model_at_end or state.best_model_checkpoint is None:
        return {}
    return {"step": state.best_global_step, "metric": str(args.metric_for_best_model).removeprefix("eval_")}


def hardware(args: LTSamConfig) -> str:
    """Processes, device and threads, in words."""
    device = args.device
    if device.type == "cuda":
        return f"{args.world_size} x {torch.cuda.get_device_name(device)}"
    return f"{args.world_size} x {device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


# A run that was made in Python.


_ONE_CLASS = "save_run() keeps what report, card and the others read, one class of each test sample, and {}."


class SavedRuns(Trainer):
    """A trainer whose run is saved for the commands, at the end of its training or by `save_run`."""

    args: LTSamConfig
    class_statistics: ClassStatistics | None
    loss: Any
    takes_own_loss: Any

    def train(
        self,
        resume_from_checkpoint: str | os.PathLike[str] | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As stock; afterwards the run is saved where the settings ask for it and there is a test, as `_is_a_run` has it."""
        if trial is None and not resume_from_checkpoint:
            self._warn_of_earlier_run()
        output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        if trial is None and _is_a_run(self):
            try:
                with _as_training_left_it(self):
                    self.save_run()
            except Exception as error:  # stock's training would be over
                if self.args.world_size > 1 and not isinstance(error, ValueError):
                    raise  # of one process perhaps, for which the others would wait; all find what labels have
                logger.warning(f"The run is not saved for `ltsam report` and the others: {error}")
        return output

    def _warn_of_earlier_run(self) -> None:
        """As stock the training replaces it; a cell of a notebook may be run again."""
        args = self.args
        if not (self.is_world_process_zero() and args.save_run and args.save_strategy != SaveStrategy.NO):
            return
        folder = Path(str(args.output_dir))
        earlier = None if args.output_dir == NO_FOLDER else earlier_run(folder)
        if earlier is not None:
            resume = ", or train(resume_from_checkpoint=True) to go on with it" if RunFolder(folder).checkpoints else ""
            logger.warning(
                f"output_dir={args.output_dir!r} holds an earlier run ({earlier}). This training replaces its weights, "
                f"results and checkpoints: to keep them take another output_dir{resume}."
            )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As stock; a model without names of classes is given those of the training set first."""
        if self.class_statistics is not None:
            name_classes(self)
        super()._save(output_dir, state_dict)

    def save_run(self: Any, test_dataset: Any = None, **data: Any) -> RunRecord:
        """Test the model, and write into `output_dir` what `ltsam report`, `evaluate`, `card` and the others read of a run.

        Args:
            test_dataset: None: `eval_dataset`, of several the one called "test" or "validation".
            data: where the data lie, by the options of `ltsam train`, such as `dataset="path/to/folder"`. Without them,
                commands that read training images ask for `--dataset`. Of a second stage also `first_stage`, the folder of
                the run that it started from; without it that is looked for where the model was loaded from.

        Raises:
            ValueError: nothing to test on, a test set without labels or with those of several classes, no class statistics,
                or an option that does not exist.
        """
        stage = self.second_stage_facts(*([str(data.pop("first_stage"))] if "first_stage" in data else []))
        for name in data:
            if name not in OF_THE_DATA:
                raise ValueError(f"save_run({name}=...) is no option of the data.{nearest(name, sorted(OF_THE_DATA))}")
        place, revision = split_revision(str(data.get("dataset", "")))
        if revision is not None:
            raise ValueError(
                f"save_run(dataset={data['dataset']!r}): the revision has an argument of its own: dataset={place!r}, "
                f"dataset_revision={revision!r}."
            )
        require_statistics(self.class_statistics)
        test_dataset = _test_of(self.eval_dataset) if test_dataset is None else test_dataset
        if test_dataset is None:
            raise ValueError("save_run() tests the model: pass test_dataset, or give the trainer one eval_dataset.")
        if takes_several_labels(self.loss):
            raise ValueError(_ONE_CLASS.format(f"{type(self.loss).__name__} takes several: keep metrics of evaluate()"))
        names = name_classes(self)
        save_weights(self)
        whole = {"prediction_loss_only": False, "eval_do_concat_batches": True, "dataloader_drop_last": False}
        none = dict.fromkeys(("compute_metrics", "preprocess_logits_for_metrics"))
        with replaced(self.args, **whole), replaced(self, **none), decisions_alone(self):
            test = self.predict(test_dataset, metric_key_prefix="test")
        if test.label_ids is None or not np.size(test.label_ids):
            raise ValueError("save_run(test_dataset=...) has no labelled samples: nothing can be measured on it.")
        if np.ndim(test.label_ids) != 1:
            raise ValueError(_ONE_CLASS.format("test_dataset has shares of classes: pass one with class indices"))
        stated = {name: str(value) if isinstance(value, os.PathLike) else value for name, value in data.items()}
        return write_run(self, test, describe_trainer(self, names, stated, stage))

    @property
    def whole_model(self) -> nn.Module:
        """What is saved, of which a part may be what is trained."""
        return self.model

    def second_stage_facts(self, first_stage: str | None = None) -> dict[str, Any]:
        """What the record says of a second stage: empty where there is none.

        Args:
            first_stage: the folder of the run that it started from, where the caller states it.

        Raises:
            ValueError: this is no second stage, or another one.
        """
        if first_stage is not None:
            raise ValueError(f"save_run(first_stage={first_stage!r}) is for a SecondStageTrainer: leave it out.")
        return {}


def _is_a_run(trainer: Any) -> bool:
    """Whether the end of a training saves the run by itself: it can be tested, and is meant to leave files behind.

    Not after a trial of a search, and not where a test in half precision would round the weights in memory.
    """
    args, test = trainer.args, _test_of(trainer.eval_dataset)
    return (
        args.save_run
        and args.output_dir != NO_FOLDER
        and args.save_strategy != SaveStrategy.NO
        and not (args.bf16_full_eval or args.fp16_full_eval)
        and trainer.hp_search_backend is None
        and trainer.class_statistics is not None
        and not (trainer.takes_own_loss or takes_several_labels(trainer.loss))
        and test is not None
        and has_length(test)
    )


@contextmanager
def _as_training_left_it(trainer: Any) -> Iterator[None]:
    """Random numbers and the mode of the model are afterwards what they were."""
    training = trainer.model.training
    try:
        with undisturbed():
            yield
    finally:
        trainer.model.train(training)


def _test_of(given: Any) -> Any:
    """The test among the evaluation sets of a trainer, or None."""
    if not isinstance(given, dict):
        return given
    return next((given[name] for name in ("test", "validation") if name in given), None)
