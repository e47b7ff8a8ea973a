"""One trial: a training with the values of a search, evaluated on the reserve and stopped where it falls behind."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from hf_ltsam.cli.train.arguments import make_run
from hf_ltsam.cli.train.settings import Run
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.cli.train.train import build_trainer
from hf_ltsam.cli.tune.reserve import bounds_on_rest
from hf_ltsam.training.checkpoint_folders import last_checkpoint

METRICS = ("balanced", "overall", "many", "medium", "few")
_EVERY = 0.1  # of a training: evaluations, on which trials are compared, and checkpoints
# What belongs to a run that is kept, and not to a trial.
_OF_A_TRIAL = {
    "eval_strategy": "steps", "eval_steps": _EVERY, "eval_delay": 0, "save_strategy": "steps", "save_steps": _EVERY,
    "save_total_limit": 1, "load_best_model_at_end": False, "test_time": "none", "push_to_hub": False, "report_to": "none",
    "disable_tqdm": True, "resume_from_checkpoint": None, "hub_token": None, "run_name": None,
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a trial reached.

    Args:
        accuracies: on the reserve, in [0, 1], by the names of `METRICS`; a group that is not in the reserve is left out.
        pruned: whether it was stopped before its end.
        seconds: of this process; a resumed trial's first part is not in them.
        epoch: of its last step.
    """

    accuracies: dict[str, float]
    pruned: bool
    seconds: float
    epoch: float


def run_of_trial(
    settings: Mapping[str, Any],
    reserve: float,
    folder: Path,
    bounds: Mapping[str, int] | None = None,
    prune: bool = True,
    tell: bool = False,
) -> Run:
    """The training of a trial.

    Args:
        settings: of the recipe with the values of the trial.
        reserve: share of every class's training samples.
        folder: of the trial.
        bounds: `Reserve.bounds`.
        prune: whether it may be stopped; if not, nobody asks for its accuracy along the way.
        tell: as `make_run`; once for a study.
    """
    bounds = {**bounds_on_rest(settings, reserve), **(bounds or {})}
    evaluations = {} if prune else {"eval_strategy": "no"}
    fixed = {**_OF_A_TRIAL, **evaluations, "reserve": reserve, "output_dir": str(folder)}
    return make_run({**settings, **bounds, **fixed}, tell=tell)


def run_trial(run: Run, splits: Splits, trial: Any, metric: str) -> Outcome:
    """Train, or go on from the trial's last checkpoint; evaluate the weights at the end.

    Args:
        run: of `run_of_trial`.
        splits: the reserve in the place of a test split.
        trial: of optuna's, which is told the metric along the way and says whether to go on.
        metric: one of `METRICS`.

    Raises:
        ValueError: no class of that group is in the reserve, or a setting cannot work.
    """
    started = time.perf_counter()
    trainer = build_trainer(run, splits)
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    along_the_way = _Report(trial, metric)
    trainer.add_callback(along_the_way)
    trainer.train(resume_from_checkpoint=last_checkpoint(run.config.output_dir))
    measured = trainer.evaluate() if not along_the_way.pruned else along_the_way.metrics
    accuracies = {name: measured[f"eval_{name}"] for name in METRICS if f"eval_{name}" in measured}
    if metric not in accuracies:
        raise ValueError(f"--metric {metric}: no class of this group is in the reserve.")
    seconds, epoch = time.perf_counter() - started, trainer.state.epoch or 0.0
    return Outcome(accuracies, along_the_way.pruned, seconds, epoch)


class _Report(TrainerCallback):
    """Tells a trial how far it has come, in percent of its training, so that longer ones are compared with shorter ones."""

    def __init__(self, trial: Any, metric: str) -> None:
        self.pruned = False
        self.metrics: dict[str, float] = {}
        self._trial, self._metric = trial, metric

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        percent = round(100 * state.global_step / max(state.max_steps, 1))
        if percent >= 100 or f"eval_{self._metric}" not in metrics:
            return
        self.metrics = metrics
        self._trial.report(metrics[f"eval_{self._metric}"], percent)
        if self._trial.should_prune():
            self.pruned = control.should_training_stop = True
