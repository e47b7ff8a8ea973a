"""Train a classifier of images or texts on long-tailed data, test it after the last epoch, and record the results.

    accelerate launch training_scripts/train.py --config cifar100_lt_ir100_la_focal_sam
    ltsam train --dataset FOLDER --model microsoft/resnet-18 --method sam --method_args '{"rho": 0.1}'

In Python: run_training(make_run({"dataset": FOLDER, "method": "focal_sam"})).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from torch import Tensor
from transformers import set_seed
from transformers.trainer_utils import PredictionOutput, TrainOutput

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.cli.evaluate.images import TestImages
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.checks import check, check_task, warn_of_tiny_last_batch
from hf_ltsam.cli.train.data import prepare, warn_of_copies
from hf_ltsam.cli.train.model import adapted, build_model, build_text_model, input_format, start_from
from hf_ltsam.cli.train.results import description_of, print_results, save_recipe
from hf_ltsam.cli.train.resuming import resume_point
from hf_ltsam.cli.train.settings import Run
from hf_ltsam.cli.train.splits import Splits, load_splits, without_unreadable
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.data.decoding import encoded_images, unreadable_rows
from hf_ltsam.data.labels import read_label_column
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.data.texts import Texts, Tokenization
from hf_ltsam.losses.features import check_features
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.models.class_vectors import start_from_images
from hf_ltsam.models.partial_training import train_only
from hf_ltsam.models.spectral_norm import normalise_spectrally
from hf_ltsam.runs.files import is_of_the_disk, not_written
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.training.checkpoint_folders import last_checkpoint, last_complete_checkpoint
from hf_ltsam.training.evaluation import decisions_alone
from hf_ltsam.training.interruption import saved_on_ctrl_c
from hf_ltsam.training.prediction import predict_logits
from hf_ltsam.training.refusals.problem import check_head, check_split
from hf_ltsam.training.refusals.settings import hides_modules
from hf_ltsam.training.results.saved_runs import save_weights, write_run
from hf_ltsam.training.second_stage import SecondStageTrainer


def main(argv: Sequence[str] | None = None) -> None:
    """`ltsam train`: the run that the options describe."""
    with user_errors():
        run_training(parse(sys.argv[1:] if argv is None else argv))


def run_training(run: Run) -> RunRecord:
    """Train, test after the last epoch, save, show the accuracies, and publish where `push_to_hub` is set.

    Raises:
        ValueError, FileNotFoundError: a setting that cannot work, named with its value and the way out.
    """
    check(run)
    with run.config.main_process_first(desc="loading the data"):
        splits = load_splits(run.data)
        check_task(run, bool(splits.text_columns))
        if run.config.on_bad_image == "skip" and run.data.check_images and not splits.text_columns:
            splits = without_unreadable(splits, run.data, not run.config.disable_tqdm)
    run = _with_bounds(run, splits)
    if not splits.text_columns:
        warn_of_tiny_last_batch(len(splits.train), run.config)
    trainer = build_trainer(run, splits)
    trained = train(run, trainer)
    record = finish(run, splits, trainer, trained.metrics)
    if trainer.is_world_process_zero():
        print_results(record, run.config.output_dir)
    if run.config.push_to_hub:
        commit = trainer.publish_saved()
        if trainer.is_world_process_zero():
            print(f"Published: {commit.commit_url}")
    return record


def _with_bounds(run: Run, splits: Splits) -> Run:
    """With the bounds of the groups stated: where none are, they follow from the training split."""
    statistics = splits.statistics(run.data, None)
    bounds: Any = statistics.bounds
    return dataclasses.replace(run, data=dataclasses.replace(run.data, **bounds))


def build_trainer(run: Run, splits: Splits) -> LTSamTrainer:
    """Model and data of a run, in its trainer."""
    config = run.config
    set_seed(config.seed)  # of the initial weights
    statistics = splits.statistics(run.data, config.tail_threshold)
    check_split(config.update_rule, statistics)
    show_bar = config.local_process_index == 0 and not config.disable_tqdm
    if splits.text_columns:
        model = build_text_model(run.model, splits.class_names, torch.bfloat16 if config.bf16 else torch.float32)
    else:
        model = build_model(run.model, splits.class_names, run.data.num_channels, config.device, show_bar)
    if run.model.train_only is not None:
        train_only(model, run.model.train_only)
    normalise_spectrally(model, run.model.spectral_norm or [], run.model.spectral_norm_iterations)
    loss: Any = config.sample_loss
    check_head(loss, model)  # before images are decoded
    check_features(loss, model, statistics.num_classes, hides_modules(config))
    wanted = input_format(model, run.model, run.data)
    seed = config.seed if config.data_seed is None else config.data_seed
    data = prepare(splits, run.data, wanted, seed, show_bar, config.on_bad_image)
    if config.local_process_index == 0:
        warn_of_copies(data, splits)
    init = start_from(run.model, model, _is_sharded(config))
    if init is not None and not resume_point(config.resume_from_checkpoint):
        start_from_images(
            model.to(config.device),
            init,
            data.plain_train,
            run.model.max_per_class,
            config.dataloader_num_workers,
            show_bar,
            data.collator,
        )
    trainer = LTSamTrainer(
        model=adapted(model, run.model),
        args=config,
        train_dataset=data.train,
        eval_dataset=data.test,
        processing_class=data.processor,
        class_statistics=statistics,
    )
    if trainer.is_fsdp_enabled and run.data.test_time != "none":
        raise ValueError(
            f"--test_time {run.data.test_time} does not go with sharded weights: leave it out, and test the finished run by "
            f"`ltsam evaluate ... --test_time {run.data.test_time}`."
        )
    return trainer


def _is_sharded(config: LTSamConfig) -> bool:
    launched = any(parse_flag_from_env(f"ACCELERATE_USE_{kind}") for kind in ("FSDP", "DEEPSPEED"))
    return launched or bool(config.fsdp) or config.deepspeed is not None


def train(run: Run, trainer: LTSamTrainer) -> TrainOutput:
    """Train, from a checkpoint where one is given; Ctrl-C saves one and says how to go on."""
    checkpoint = resume_point(run.config.resume_from_checkpoint)
    if trainer.is_world_process_zero() and not checkpoint:
        save_recipe(run)  # a run that is resumed has one, and may yet be refused
    try:
        with saved_on_ctrl_c(trainer):
            return trainer.train(resume_from_checkpoint=checkpoint or None)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_way_back(run.config)) from interrupt


def finish(
    run: Run,
    splits: Splits,
    trainer: LTSamTrainer,
    train_metrics: dict[str, float],
    second_stage: dict[str, Any] | None = None,
) -> RunRecord:
    """Save and test after the last epoch: weights, metrics.json, predictions.json and recipe.yaml.

    Raises:
        OSError: the disk is full; says what is on it, and how to go on.
    """
    with _end_told(run.config):
        # first: they took the time, and --bf16_full_eval rounds them; not pushed yet: the card needs metrics.json
        save_weights(trainer)
        calibration = calibrate(run, splits, trainer)
        test = predict_test(run, splits, trainer, keep_logits=calibration is not None)
        return write_run(trainer, test, description_of(run, splits, train_metrics, second_stage, calibration))


@contextmanager
def _end_told(config: LTSamConfig) -> Iterator[None]:
    """A disk that is full after the training ends in one message."""
    try:
        yield
    except Exception as error:
        if not is_of_the_disk(error):
            raise
        file = Path(getattr(error, "filename", None) or config.output_dir)
        raise OSError(
            f"The training is at its end, but {not_written(file, error)} Make room there. {_way_back(config)}"
        ) from error


def calibrate(run: Run, splits: Splits, trainer: LTSamTrainer) -> Calibration | None:
    """What follows from the reserve; None where there is none, or where its images cannot be predicted.

    The reserve is seen by the weights as they are saved, before an evaluation may round them.
    """
    if splits.reserved is None or trainer.is_fsdp_enabled:
        return None
    bad: Container[int] = ()
    if not splits.text_columns:
        bad = unreadable_rows(splits.reserved, run.data.image_column, False, run.data.pixel_values)
    rows = [row for row in range(len(splits.reserved)) if row not in bad]
    if not rows:
        return None
    logits = _predicted(run, trainer, splits, splits.reserved, rows)
    labels = read_label_column(splits.reserved, splits.label_column)[rows]
    finite = not bool(logits.isnan().any(dim=1).all())
    return Calibration.fit(logits, labels, splits.statistics(run.data, None).counts) if finite else None


def predict_test(run: Run, splits: Splits, trainer: LTSamTrainer, keep_logits: bool = False) -> PredictionOutput:
    """Labels of the test images and their logits, or `decisions_of_batch` of them.

    Logits are means over each image's views, where `--test_time` asks for them.
    """
    if run.data.test_time == "none":
        with decisions_alone(trainer, wanted=not keep_logits):
            return trainer.predict(trainer.eval_dataset, metric_key_prefix="test")
    logits = _predicted(run, trainer, splits, splits.test, range(len(splits.test)))
    return PredictionOutput(logits.numpy(), splits.test_labels.numpy(), {})


def _predicted(run: Run, trainer: LTSamTrainer, splits: Splits, dataset: Dataset, rows: Sequence[int]) -> Tensor:
    """Logits of images or texts as the test sees them (M, C)."""
    processor = trainer.processing_class
    see = Tokenization(processor) if splits.text_columns else Preprocessing.from_image_processor(processor)
    samples = as_tested(run, splits, dataset, rows, see)
    model = trainer.put_into_model() if isinstance(trainer, SecondStageTrainer) else trainer.model
    config, training = run.config, model.training
    progress = None if config.disable_tqdm else "predicting"
    logits = predict_logits(
        model.eval(), samples, config.per_device_eval_batch_size, config.dataloader_num_workers, progress
    )
    model.train(training)
    return logits


def as_tested(
    run: Run, splits: Splits, dataset: Dataset, rows: Sequence[int], see: Preprocessing | Tokenization
) -> Texts | TestImages:
    """Rows of a split as the test of a run sees them."""
    if isinstance(see, Tokenization):
        return Texts([dataset[column][:] for column in splits.text_columns], rows, see)
    return TestImages(encoded_images(dataset, run.data.image_column), rows, see, run.data.test_time)


def _way_back(config: LTSamConfig) -> str:
    checkpoint = last_complete_checkpoint(config.output_dir)
    if checkpoint is None:
        return "No checkpoint was written yet, so there is nothing to resume (--save_strategy, --save_steps)."
    value = "true" if checkpoint == last_checkpoint(config.output_dir) else str(checkpoint)
    return f"The same command with --resume_from_checkpoint {value} goes on from {checkpoint}."
