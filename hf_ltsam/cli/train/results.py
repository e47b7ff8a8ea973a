"""The results of a run beside its weights: metrics.json, recipe.yaml, and a table on the screen."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers.trainer_utils import PredictionOutput

from hf_ltsam import METHODS, LTSamTrainer
from hf_ltsam.cli.train.checks import resume_point
from hf_ltsam.cli.train.settings import Run
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.metrics.decisions import logits_in
from hf_ltsam.runs.escaping import terminal
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.identity import describe
from hf_ltsam.runs.record import (
    RunRecord,
    calibrated_results,
    chance_level,
    installed_versions,
    shortcomings,
    split_results,
)


def save_recipe(run: Run) -> Path:
    """Write `recipe.yaml` into the run's folder: the settings that were stated, and the command."""
    settings = {name: value for name, value in run.settings.items() if name != "resume_from_checkpoint"}
    repeat = f"the same again: ltsam {run.program} --config THIS_FILE --output_dir OTHER"
    return RunFolder(Path(run.config.output_dir)).write_recipe(settings, (run.command, repeat))


def record_of(
    run: Run,
    trainer: LTSamTrainer,
    splits: Splits,
    test: PredictionOutput,
    train: Mapping[str, float],
    second_stage: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> RunRecord:
    """The content of `metrics.json`.

    Args:
        test: of the test split, as `predict_test` gives it.
        train: the metrics that training returned; its times are kept. Of a resumed run they count from the resume on.
        second_stage: its name, hyper-parameters and first stage, of a second stage.
        calibration: where there is one, `test` holds logits.
    """
    statistics = splits.statistics(run.data, run.config.tail_threshold)
    calibrated = {}
    if calibration is not None:
        calibrated = calibrated_results(calibration, logits_in(test.predictions), test.label_ids, statistics)
    return RunRecord(
        seed=run.config.seed,
        method=describe(METHODS, trainer.method),
        loss={**trainer.identity()["loss"], **({"start": run.config.loss_start} if run.config.loss_start else {})},
        class_statistics=statistics.to_dict(),
        results={"test": split_results(test.predictions, test.label_ids, statistics), **calibrated},
        reweighting={"scheme": run.config.reweighting, "start": run.config.reweighting_start},
        sampling=run.config.sampling,
        mixing=run.config.mixing,
        second_stage=dict(second_stage or {}),
        weight_averaging=trainer.averaging.settings if trainer.averaging else {},
        model=asdict(run.model),
        data={
            **asdict(run.data),
            "task": splits.task,
            "training_labels_sha256": label_fingerprint(splits.train_labels),
        },
        hub=dict(run.hub),
        timing=timing(train),
        resumed=bool(resume_point(run.config)),
        hardware=hardware(trainer),
        command=run.command,
        weights_sha256=RunFolder(Path(run.config.output_dir)).weights_sha256,
        versions=installed_versions(),
    )


def timing(train: Mapping[str, float]) -> dict[str, float]:
    """Of the metrics that training returned; without steps the seconds alone."""
    steps = train.get("train_steps_per_second")
    return {"train_seconds": train["train_runtime"], **({"seconds_per_step": 1 / steps} if steps else {})}


def hardware(trainer: LTSamTrainer) -> str:
    """Processes, device and threads, in words."""
    device = trainer.args.device
    if device.type == "cuda":
        return f"{trainer.args.world_size} x {torch.cuda.get_device_name(device)}"
    return f"{trainer.args.world_size} x {device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def print_results(record: RunRecord, folder: str | Path) -> None:
    """Overall, many, medium and few, in percent."""
    result: dict[str, Any] = record.results["test"]
    table = Table("overall", "many", "medium", "few")
    accuracies = {"overall": result["overall"], **result["groups"]}
    table.add_row(*(f"{100 * accuracies[c.header]:.2f}" if c.header in accuracies else "-" for c in table.columns))
    console = Console()
    what = terminal(f"{record.method['name']} with {record.loss['name']}")
    if record.second_stage:
        what = terminal(f"{record.second_stage['name']} on {record.second_stage['first_stage']['folder']}")
    when = "with the averaged weights" if record.weight_averaging else "after the last epoch"
    console.print(f"{what}, accuracy in % on {result['samples']} test {record.samples} {when}:")
    console.print(table)
    console.print(f"Chance level: {100 * chance_level(len(result['per_class'])):.2f}")
    losses = [entry["loss"] for entry in RunFolder(Path(folder)).log_history if "loss" in entry]
    for remark in shortcomings(record, losses):
        console.print(f"Warning: {terminal(remark)}", soft_wrap=True, highlight=False)
    console.print(f"Weights, metrics.json, predictions.json and recipe.yaml are in {terminal(str(folder))}")
