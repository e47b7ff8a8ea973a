"""A run as its folder describes it, and what makes the parts that it lacks.

A damaged file is named, and the rest is read all the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import (
    EVALUATION,
    EVALUATION_RESULTS,
    RECIPE,
    RECORD,
    SETTINGS,
    SHARPNESS,
    SHARPNESS_RESULTS,
    Recipe,
    RunFolder,
    seed_of,
)
from hf_ltsam.runs.predictions import Predictions
from hf_ltsam.runs.processes import in_processes
from hf_ltsam.runs.report.content import Way
from hf_ltsam.runs.report.saved_parts import Curvature, Recorded, ShiftedSet, shifted_sets

T = TypeVar("T")


@dataclass(frozen=True)
class ReportedRun:
    """One run; None and empty stand for what is missing or damaged.

    Args:
        history: entries of the log, numbers only.
        shifted: name of a test set -> results of `ltsam evaluate`.
        damaged: one sentence for each damaged file, with its path.
    """

    folder: Path
    metrics: Recorded | None = None
    recipe: Recipe | None = None
    history: Sequence[Mapping[str, float]] = ()
    predictions: Predictions | None = None
    curvature: Curvature | None = None
    shifted: Mapping[str, ShiftedSet] = field(default_factory=dict)
    damaged: Sequence[str] = ()

    @property
    def seed(self) -> str:
        if self.metrics is not None:
            return str(self.metrics.record.seed)
        return str((self.recipe.settings if self.recipe else {}).get("seed", "?"))


def read_run(folder: Path) -> ReportedRun:
    """Everything that the folder of a run holds."""
    run = RunFolder(folder)
    damaged: list[str] = []

    def part(read: Callable[[], T | None]) -> T | None:
        try:
            return read()
        except (DamagedFileError, OSError) as error:
            damaged.append(str(error))
            return None

    return ReportedRun(
        folder,
        part(lambda: run.read(RECORD, Recorded.from_json)),
        part(lambda: run.recipe),
        part(lambda: run.log_history) or (),
        part(lambda: run.predictions),
        part(lambda: run.read(f"{SHARPNESS}/{SHARPNESS_RESULTS}", Curvature.from_json)),
        part(lambda: run.read(f"{EVALUATION}/{EVALUATION_RESULTS}", shifted_sets)) or {},
        tuple(damaged),
    )


# What makes the parts that a run lacks: commands that work as they stand, in the folder that the trainings were started in.

_AGAIN = "again"
_OF_ONE_RUN = ("output_dir", "resume_from_checkpoint")  # a repeated run has its own
_WITHOUT_STEPS = "tau_norm"  # a second stage that rescales
_CIFAR = "cifar_lt"  # the name by which recipes read both sets
_BY_PLACE = ("auto", "hub", "image_folder", "table")  # ways to read data that a place alone names


def has_steps(run: ReportedRun) -> bool:
    """Whether there is a training to follow."""
    return run.metrics is None or run.metrics.record.second_stage.get("name") != _WITHOUT_STEPS


def training(run: ReportedRun, purpose: str = _AGAIN, **options: str) -> Way:
    """The same training with other options, beside the run where its folder holds one already.

    Args:
        purpose: ends the name of that folder, so that trainings for different ones do not meet in it.
    """
    folder, words = _free_folder(run.folder, purpose), _repetition(run)
    if words is None:
        stated = "".join(f"{name}={value!r} and " for name, value in options.items())
        return Way("", f"The run was made in Python: train it again there, with {stated}another output_dir.")
    settings = run.recipe.settings if run.recipe is not None else {}
    if settings.get("load_best_model_at_end") and options.keys() & {"eval_strategy", "save_strategy"}:
        options |= {"eval_strategy": "epoch", "save_strategy": "epoch"}  # it evaluates where it saves
    if settings.get("save_total_limit") and "save_strategy" in options:
        options["save_total_limit"] = "0"  # keeps all
    if settings.get("telemetry") is False and "logging_strategy" in options:
        options["telemetry"] = "true"
    if settings.get("push_to_hub"):
        options["push_to_hub"] = "false"  # the published model is that of the run that is there
    added = [word for name, value in {"output_dir": str(folder), **options}.items() for word in (f"--{name}", value)]
    return Way(shlex.join([*words, *added]), "" if folder == run.folder else "in a run of its own")


def completion(run: ReportedRun) -> Way:
    """What brings an unfinished training to its end: from its last checkpoint, where there is one."""
    folder, words = RunFolder(run.folder), _repetition(run)
    only_weights = run.recipe is not None and run.recipe.settings.get("save_only_model")
    if folder.has(RECORD) or not folder.checkpoints or only_weights:
        return training(run)
    if words is None:
        return Way("", "The run was made in Python: train(resume_from_checkpoint=True) there goes on with it.")
    return Way(shlex.join([*words, "--output_dir", str(run.folder), "--resume_from_checkpoint", "true"]))


def sharpness(run: ReportedRun, *options: str) -> Way:
    """`ltsam sharpness` with these options, after a training that leaves what it needs where the run has not."""
    folder = RunFolder(run.folder)
    if "--checkpoints" in options and len(_moments(folder)) < 2:
        return _after(training(run, "with_checkpoints", save_strategy="epoch"), run, "sharpness", *options)
    if run.recipe is None:
        return _after(training(run), run, "sharpness", *options)
    if not folder.has_weights:
        return _after(completion(run), run, "sharpness", *options)
    if run.recipe.is_of_python and "dataset" not in run.recipe.settings:
        command = shlex.join(["ltsam", "sharpness", str(run.folder), *options])
        return Way("", f"`{command} --dataset PATH` makes it, with the place of its data for PATH.")
    return Way(shlex.join(["ltsam", "sharpness", str(run.folder), *options]))


def corruptions(run: ReportedRun) -> Way:
    """`ltsam evaluate` on the corrupted test images of a run."""
    of_set, folder = _corrupted_set(run), RunFolder(run.folder)
    if of_set is None:
        command = shlex.join(["ltsam", "evaluate", "--model", str(run.folder)])
        return Way("", f"`{command} --sets TEST_SET_c` makes them, with the folder of other images for TEST_SET.")
    if not folder.has_weights:
        return _after(completion(run), run, "evaluate", "--sets", *of_set)
    return Way(shlex.join(["ltsam", "evaluate", "--model", str(run.folder), "--sets", *of_set]))


def _repetition(run: ReportedRun) -> list[str] | None:
    """The command that trains with the same settings, without a folder; None for a run that was made in Python."""
    if run.recipe is not None and not run.recipe.is_of_python:
        program = "decouple" if run.recipe.settings.get("second_stage") else "train"
        return in_processes(["ltsam", program, "--config", str(run.folder / RECIPE)], _processes(run))
    command = "" if run.metrics is None else run.metrics.record.command
    return _without(shlex.split(command), _OF_ONE_RUN) if command else None


def _processes(run: ReportedRun) -> int:
    """How many train it: by its record, or by its last checkpoint; 1 where neither says it."""
    if run.metrics is not None:
        return run.metrics.record.processes
    checkpoints = list(RunFolder(run.folder).checkpoints.values())
    try:
        identity = (checkpoints[-1].identity if checkpoints else None) or {}
    except DamagedFileError:
        return 1
    return int(identity.get(SETTINGS, {}).get("processes", 1))


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without some options, which may be spelled with - and have their value behind a space or =."""
    kept: list[str] = []
    left_out = False
    for word in words:
        if word.startswith("--"):
            left_out = word[2:].partition("=")[0].replace("-", "_") in options
        kept += [] if left_out else [word]
    return kept


def _free_folder(folder: Path, purpose: str) -> Path:
    """The folder itself where nothing was in it and it serves no other purpose, else a new one: runs/mine_again/seed0."""
    used = RunFolder(folder)
    if purpose == _AGAIN and not used.has(RECORD) and not used.checkpoints:
        return folder
    whole = folder if folder.name not in ("", "..") else folder.resolve()
    experiment, seed = (whole.parent, whole.name) if seed_of(whole) is not None and whole.parent.name else (whole, "")
    names = (f"{experiment.name}_{purpose}{f'_{k}' if k > 1 else ''}" for k in count(1))
    return next(place for name in names if not (place := experiment.with_name(name) / seed).exists())


def _after(trained: Way, run: ReportedRun, program: str, *options: str) -> Way:
    """A command on the weights that a training leaves."""
    if not trained.command:
        return trained
    words = shlex.split(trained.command)
    folder = words[words.index("--output_dir") + 1]
    named = ["--model", folder] if program == "evaluate" else [folder]
    return Way(f"{trained.command} && {shlex.join(['ltsam', program, *named, *options])}", trained.remark)


def _moments(folder: RunFolder) -> set[int | None]:
    """The steps of which there are weights."""
    steps: set[int | None] = {step for step, checkpoint in folder.checkpoints.items() if checkpoint.has_weights}
    return steps | {folder.step} if steps and folder.has_weights else steps


def _corrupted_set(run: ReportedRun) -> list[str] | None:
    """The corruptions of a run's test images, as `ltsam evaluate --sets` takes them; None where nothing names these."""
    record = None if run.metrics is None else run.metrics.record
    settings: Mapping[str, Any] = record.data if record is not None else run.recipe.settings if run.recipe else {}
    place, builder = str(settings.get("dataset") or ""), settings.get("builder") or "auto"
    is_of_python = run.recipe is not None and run.recipe.is_of_python  # which tests on whatever it was given
    if (
        not place
        or is_of_python
        or settings.get("held_out_per_class")
        or settings.get("test_split") not in (None, "test")
    ):
        return None
    if builder not in _BY_PLACE:
        name = f"cifar{run.metrics.statistics.num_classes}" if builder == _CIFAR and run.metrics else builder
        if name == _CIFAR:
            return None
        return [f"{name}_c", *(["--data_dir", f"{name}={place}"] if Path(place).is_dir() else [])]
    revision = settings.get("dataset_revision")
    named = f"{place}@{revision}" if revision else place
    columns = [name for name in ("image_column", "label_column") if settings.get(name)]
    stated = [word for name in columns for word in (f"--{name}", str(settings[name]))]
    return [f"./{named}_c" if Path(place).is_file() and "/" not in place else f"{named}_c", *stated]
