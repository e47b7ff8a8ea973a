"""The trials of one recipe in a folder, which may be stopped at any moment and goes on where it was.

runs/tune_mine/mine/
    study.json      what is searched, over which settings
    trials.log      every trial, as optuna's journal
    trial-3/        of a trial that has not ended: its checkpoints
    best.yaml       the recipe with the best values
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from transformers.integrations import is_optuna_available

from hf_ltsam.cli.train.arguments import decided_settings
from hf_ltsam.cli.tune.reserve import Reserve, load_reserve
from hf_ltsam.cli.tune.space import Parameter, laid_over, parameters_of
from hf_ltsam.cli.tune.trial import METRICS, Outcome, run_of_trial, run_trial
from hf_ltsam.cli.user_errors import check_choice
from hf_ltsam.data.keys import random_key
from hf_ltsam.runs.files import mapping, plain, read_json, write_json
from hf_ltsam.training.folder_lock import folder_lock

PLAN, JOURNAL, BEST = "study.json", "trials.log", "best.yaml"
_STARTUP = 5  # trials before the sampler learns from others, and before others are compared with their median
_OF_THE_COMMAND = ("trials",)  # may be another number when a study goes on


@dataclass(frozen=True)
class Plan:
    """What decides the trials of a recipe.

    Args:
        name: of the recipe.
        settings: of the recipe and the options.
        search: name -> range or choices, of the parameters that this recipe has.
        trials: how many, pruned and failed ones included.
        metric: that is maximised, one of `METRICS`.
        reserve: share of every class's training samples that trials are evaluated on, in (0, 1).
        prune: whether a trial below the median of earlier ones is stopped.
        seed: of the sampler.
        grid: whether the trials are all combinations of the choices, each once and in order, in the place of `trials`.
    """

    name: str
    settings: dict[str, Any]
    search: dict[str, Any]
    trials: int = 20
    metric: str = "balanced"
    reserve: float = 0.2
    prune: bool = True
    seed: int = 0
    grid: bool = False

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"--trials must be at least 1, got {self.trials}.")
        if not 0 < self.reserve < 1:
            raise ValueError(
                f"--reserve {self.reserve:g}: a share of the training samples, so it lies between 0 and 1."
            )
        check_choice("metric", self.metric, METRICS)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return parameters_of(self.search, self.settings)

    @cached_property
    def combinations(self) -> list[dict[str, Any]]:
        """Of all choices, the last parameter fastest.

        Raises:
            ValueError: a range, which has no end of values.
        """
        for parameter in self.parameters:
            if parameter.is_range:
                choices = f"'{parameter.name}: {{choices: {list(parameter.ends)}}}'"
                raise ValueError(
                    f"--grid tries choices, and --search {parameter} is a range. Two choices are written {choices}."
                )
        names = [parameter.name for parameter in self.parameters]
        return [dict(zip(names, values)) for values in product(*(parameter.choices for parameter in self.parameters))]

    @cached_property
    def stated(self) -> dict[str, Any]:
        """The settings of a trial."""
        return laid_over(self.settings, {parameter: parameter.ends[0] for parameter in self.parameters})

    @cached_property
    def first(self) -> dict[str, Any]:
        """The settings of a trial, with the method and others that are decided where none is stated."""
        return {**decided_settings(self.stated), **self.stated}


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    Args:
        number: from 0.
        state: "complete", "pruned" or "failed".
        values: by the names of the parameters.
        accuracies: on the reserve; of a pruned trial, the last ones.
        seconds: of its training and evaluation, in one process.
        reason: of a failed trial, or of a pruned one.
    """

    number: int
    state: str
    values: dict[str, Any]
    accuracies: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    reason: str = ""


class Study:
    """The trials in a folder.

    Args:
        folder: is made.
        plan: None: that of the folder.

    Raises:
        ValueError: optuna is not installed, or the trials there are of another plan.
    """

    def __init__(self, folder: Path, plan: Plan | None = None) -> None:
        if not is_optuna_available():
            raise ValueError("ltsam tune needs optuna: pip install optuna.")
        self.folder = folder
        there = read_json(folder / PLAN, lambda values: Plan(**mapping(values)), "--output_dir OTHER starts anew.")
        if plan is None and there is None:
            raise FileNotFoundError(f"{folder} holds no study ({PLAN}).")
        self.plan: Plan = there if plan is None else plan  # type: ignore[assignment]
        _check_same(folder, there, self.plan)

    def keep(self) -> None:
        """Write the plan, so that another process or command can go on."""
        write_json(self.folder / PLAN, asdict(self.plan))

    @cached_property
    def optuna(self) -> Any:
        """The study of optuna's, in the folder's journal."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        # the first third of a training is not compared: large radii and rates come from behind
        median = optuna.pruners.MedianPruner(self._startup, n_warmup_steps=33)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self.folder / JOURNAL))),
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
            sampler=self._sampler(0),
            pruner=median if self.plan.prune else optuna.pruners.NopPruner(),
        )

    def ended(self) -> list[Ended]:
        """All trials that have ended, by number."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        return [
            Ended(
                t.number, names[t.state.name], t.params, *(t.user_attrs.get(name, none) for name, none in _ATTRIBUTES)
            )
            for t in self.optuna.get_trials(deepcopy=False)
            if t.state.name in names
        ]

    @property
    def best(self) -> Ended | None:
        """The complete trial with the best metric; of equally good ones the first."""
        complete = [trial for trial in self.ended() if trial.state == "complete"]
        return max(complete, key=lambda trial: trial.accuracies[self.plan.metric], default=None)

    def interrupted(self) -> list[Any]:
        """Trials that have begun and not ended, which go on first."""
        import optuna

        running = [t for t in self.optuna.get_trials(deepcopy=False) if t.state.name == "RUNNING"]
        return [optuna.trial.Trial(self.optuna, t._trial_id) for t in running]

    def next(self) -> Any:
        """A new trial; None where all have begun. The first one has the values of the recipe, where they are searched."""
        number = len([t for t in self.optuna.get_trials(deepcopy=False) if t.state.name != "WAITING"])
        if number >= self.plan.trials:
            return None
        if self.plan.grid:
            waiting = [t for t in self.optuna.get_trials(deepcopy=False) if t.state.name == "WAITING"]
            if not waiting:  # one is where a kill came between these two lines
                self.optuna.enqueue_trial(self.plan.combinations[number])
            return self.optuna.ask()
        if number == 0 and not self.optuna.get_trials(deepcopy=False):
            present = {p.name: p.present(self.plan.settings) for p in self.plan.parameters}
            within = {p.name: present[p.name] for p in self.plan.parameters if p.holds(present[p.name])}
            if len(within) == len(present):
                self.optuna.enqueue_trial(within)
        return self.optuna.ask()

    def trial(self, number: int) -> Any:
        """A trial that has begun."""
        return next(trial for trial in self.interrupted() if trial.number == number)

    def values(self, trial: Any) -> dict[Parameter, Any]:
        """The values of a trial, the same ones whenever it is asked."""
        self.optuna.sampler = self._sampler(trial.number)  # by number, so that an interrupted study suggests the same
        return {parameter: parameter.suggest(trial) for parameter in self.plan.parameters}

    def folder_of(self, trial: Any) -> Path:
        return self.folder / f"trial-{trial.number}"

    def reserve(self) -> Reserve:
        """The data of all trials.

        Raises:
            ValueError: no class of the metric's group is in the reserve.
        """
        run = run_of_trial(self.plan.settings, self.plan.reserve, self.folder)
        reserve = load_reserve(run.data)
        run = run_of_trial(self.plan.settings, self.plan.reserve, self.folder, reserve.bounds)
        groups = reserve.splits.statistics(run.data, run.config.tail_threshold).groups
        present = set(reserve.splits.test_labels.tolist())
        if self.plan.metric in groups and not present & set(groups[self.plan.metric]):
            raise ValueError(f"--metric {self.plan.metric}: no class of this group is in the reserve.")
        return reserve

    def run(self, trial: Any, reserve: Reserve) -> None:
        """Run a trial to its end, and write it down. One that cannot be trained has failed; the others go on.

        Raises:
            OSError: a full disk, say: the trial is repeated when the command is.
        """
        folder = self.folder_of(trial)
        settings = laid_over(self.plan.settings, self.values(trial))
        try:
            outcome = run_trial(
                run_of_trial(settings, self.plan.reserve, folder, reserve.bounds, self.plan.prune),
                reserve.splits,
                trial,
                self.plan.metric,
            )
        except OSError:
            raise
        except Exception as error:  # a diverged training, no memory for this batch
            self.fail(trial, f"{type(error).__name__}: {error}")
        else:
            self._tell(trial, outcome)
        shutil.rmtree(folder, ignore_errors=True)

    def fail(self, trial: Any, reason: str) -> None:
        """Write down that a trial cannot be trained."""
        from optuna.trial import TrialState

        trial.set_user_attr("reason", reason)
        self.optuna.tell(trial, state=TrialState.FAIL)

    def _tell(self, trial: Any, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("accuracies", plain(outcome.accuracies))
        trial.set_user_attr("seconds", outcome.seconds)
        if outcome.pruned:
            trial.set_user_attr("reason", self._behind(trial.number, outcome.epoch))
            self.optuna.tell(trial, state=TrialState.PRUNED)
        else:
            self.optuna.tell(trial, outcome.accuracies[self.plan.metric])

    def _behind(self, number: int, epoch: float) -> str:
        """Where a trial was stopped, and the two values that optuna's MedianPruner has compared."""
        trials = self.optuna.get_trials(deepcopy=False)
        seen = next(t.intermediate_values for t in trials if t.number == number)
        share = max(seen)
        others = [t.intermediate_values.get(share) for t in trials if t.state.name == "COMPLETE"]
        there = [value for value in others if value is not None]
        return (
            f"stopped at epoch {epoch:.3g} ({share} % of its training): {self.plan.metric} at most "
            f"{100 * max(seen.values()):.2f} % until there, below {100 * median(there):.2f} %, the median there of "
            f"{len(there)} complete trials"
        )

    @property
    def _startup(self) -> int:
        """Trials before values are proposed, or trials pruned, by what the others have shown."""
        return min(_STARTUP, max(self.plan.trials // 2, 1))

    def _sampler(self, number: int) -> Any:
        import optuna

        seed = random_key(self.plan.seed, number) % 2**32
        return optuna.samplers.TPESampler(n_startup_trials=self._startup, seed=seed, constant_liar=True)


_ATTRIBUTES: tuple[tuple[str, Any], ...] = (("accuracies", {}), ("seconds", None), ("reason", ""))


@contextmanager
def alone_in(study: Study) -> Iterator[None]:
    """No other command runs trials there meanwhile; what a kill has left half written is put in order.

    Raises:
        FolderInUseError: another command does.
    """
    with folder_lock(study.folder):
        journal = study.folder / JOURNAL
        journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
        if journal.is_file():
            text = journal.read_bytes()
            if not text.endswith(b"\n"):  # optuna cannot read on behind half a line
                with journal.open("r+b") as file:
                    file.truncate(text.rfind(b"\n") + 1)
        yield


def _check_same(folder: Path, there: Plan | None, now: Plan) -> None:
    if there is None:
        return
    for name in [f.name for f in fields(Plan) if f.name not in _OF_THE_COMMAND]:
        then, wanted = plain(getattr(there, name)), plain(getattr(now, name))
        if then != wanted:
            what = _first_difference(then, wanted) if isinstance(then, Mapping) else f"{then}, which is {wanted} now"
            raise ValueError(
                f"The trials in {folder} were made with {name} {what}: --output_dir OTHER starts anew, and nothing there "
                "is lost."
            )


def _first_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    name = next(name for name in [*then, *now] if then.get(name) != now.get(name))
    return f"{name} {then.get(name)}, which is {now.get(name)} now"
