"""The results of a run beside its weights: metrics.json, recipe.yaml, and a table on the screen."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_ltsam.cli.train.resuming import resume_point
from hf_ltsam.cli.train.settings import Run
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.runs.escaping import terminal
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.processes import in_processes
from hf_ltsam.runs.record import RunRecord, chance_level, hub_commit, shortcomings, two_errors
from hf_ltsam.training.results.description import RunDescription


def save_recipe(run: Run) -> Path:
    """Write `recipe.yaml` into the run's folder: the settings that were stated, and the command."""
    return RunFolder(Path(run.config.output_dir)).write_recipe(*_recipe(run))


def _recipe(run: Run) -> tuple[dict[str, Any], tuple[str, str]]:
    settings = {name: value for name, value in run.settings.items() if name != "resume_from_checkpoint"}
    words = in_processes(
        ["ltsam", run.program, "--config", "THIS_FILE", "--output_dir", "OTHER"], run.config.world_size
    )
    repeat = f"the same again: {shlex.join(words)}"
    return settings, (run.command, repeat)


def description_of(
    run: Run,
    splits: Splits,
    train: Mapping[str, float],
    second_stage: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> RunDescription:
    """What the record and the recipe say of a run beside what its trainer knows.

    Args:
        train: the metrics that training returned; its times are kept. Of a resumed run they count from the resume on.
        second_stage: its name, hyper-parameters and first stage, of a second stage.
        calibration: where there is one, the test's logits are kept.
    """
    commit = hub_commit(splits.train, run.hub.get("dataset"))
    return RunDescription(
        splits.class_names,
        splits.statistics(run.data, run.config.tail_threshold),
        *_recipe(run),
        model=asdict(run.model),
        data={
            **asdict(run.data),
            "task": splits.task,
            "text_column": list(splits.text_columns) or None,
            "training_labels_sha256": label_fingerprint(splits.train_labels),
        },
        train_metrics=train,
        hub={**run.hub, **({} if commit is None else {"dataset_commit": commit})},
        command=run.command,
        second_stage=second_stage or {},
        resumed=bool(resume_point(run.config.resume_from_checkpoint)),
        calibration=calibration,
    )


def print_results(record: RunRecord, folder: str | Path, first: RunRecord | None = None) -> None:
    """Overall, many, medium and few, in percent.

    Args:
        first: of a second stage: the first one's, where it was tested on the same samples.
    """
    result: dict[str, Any] = record.results["test"]
    table = Table("overall", "many", "medium", "few")
    accuracies = {"overall": result["overall"], **result["groups"]}
    table.add_row(*(f"{100 * accuracies[c.header]:.2f}" if c.header in accuracies else "-" for c in table.columns))
    console = Console()
    what = terminal(f"{record.method['name']} with {record.loss['name']}")
    if record.second_stage:
        what = terminal(f"{record.second_stage['name']} on {record.second_stage['first_stage']['folder']}")
    console.print(f"{what}, accuracy in % on {result['samples']} test {record.samples} {terminal(record.weights)}:")
    console.print(table)
    console.print(f"Chance level: {100 * chance_level(result['per_class']):.2f}")
    for line in [] if first is None else beside_first_stage(result, first.results["test"]):
        console.print(line, soft_wrap=True, highlight=False)
    log = RunFolder(Path(folder)).log_history
    if (best := best_epoch(log)) is not None:
        console.print(best, soft_wrap=True, highlight=False)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    for remark in shortcomings(record, losses):
        console.print(f"Warning: {terminal(remark)}", soft_wrap=True, highlight=False)
    console.print(
        f"Weights, metrics.json, predictions.json and recipe.yaml are in {terminal(str(folder))}", soft_wrap=True
    )
    report = shlex.join(["ltsam", "report", str(folder)])
    console.print(f"Next: {terminal(report)}", soft_wrap=True, highlight=False)


def beside_first_stage(result: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """What the first stage had on the same samples, and a warning where the second is behind by two standard errors."""
    before, now, number = first["balanced"], result["balanced"], result["samples"]
    if before is None or now is None or first["samples"] != number:
        return []
    accuracies = {"overall": first["overall"], **first["groups"]}
    lines = ["First stage: " + ", ".join(f"{name} {100 * accuracy:.2f}" for name, accuracy in accuracies.items())]
    if before - now > two_errors(before, number):
        lines.append(
            f"Warning: the mean accuracy over classes fell from {100 * before:.2f} to {100 * now:.2f} %. A classifier "
            "that is trained anew wants enough steps: more epochs (--num_train_epochs), or a larger --learning_rate."
        )
    return lines


def best_epoch(log: Sequence[Mapping[str, float]]) -> str | None:
    """The evaluation with the largest mean accuracy over classes, beside the last one; None where there are not two."""
    seen = [(entry["eval_balanced"], entry["epoch"]) for entry in log if {"eval_balanced", "epoch"} <= entry.keys()]
    if len(seen) < 2:
        return None
    (best, at), (last, end) = max(seen, key=lambda each: each[0]), seen[-1]
    return (
        f"Best epoch: {at:g} of {end:g}, mean over classes {100 * best:.2f} (the last one: {100 * last:.2f}; whoever takes "
        "the best one has chosen it by the test)"
    )
