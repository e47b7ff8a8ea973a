"""Runs that differ in the seed alone are one configuration, whose numbers have a mean and a deviation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from hf_ltsam.class_statistics import GROUPS, ClassStatistics
from hf_ltsam.hyperparameters import title_of
from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import METHODS, Method
from hf_ltsam.runs.experiment import experiment_of
from hf_ltsam.runs.folder import RECIPE, without_seed
from hf_ltsam.runs.recipes import assumptions
from hf_ltsam.runs.record import chance_level
from hf_ltsam.runs.report.content import Listing, Missing, Section, Table
from hf_ltsam.runs.report.reading import ReportedRun, training
from hf_ltsam.runs.report.saved_parts import Bounds, Floats, TestResult

NAN = float("nan")
_LONGEST = 60  # characters of the settings in a title
_THROUGHOUT = {f.name: f.default for f in fields(Method)}  # not said: a method that applies in every step
TITLE = "Configurations and commands"


@dataclass(frozen=True)
class Configuration:
    """The runs of one experiment.

    Args:
        title: unique in the report.
        runs: at least one.
    """

    title: str
    runs: tuple[ReportedRun, ...]

    @property
    def tested(self) -> list[TestResult]:
        """The test results of its runs that have one."""
        return [run.metrics.test for run in self.runs if run.metrics is not None]

    @property
    def statistics(self) -> ClassStatistics | None:
        """Of the training set, from the first run with a record."""
        return next((run.metrics.statistics for run in self.runs if run.metrics is not None), None)

    @property
    def samples(self) -> str:
        """What it classifies, in the plural."""
        return next((run.metrics.record.samples for run in self.runs if run.metrics is not None), "images")

    def accuracies(self, group: str) -> list[float]:
        """One for each tested run that has the group: "overall", "balanced", "many", "medium", "few", "head", "tail"."""
        values = (_accuracy(test, group) for test in self.tested)
        return [value for value in values if value is not None]

    def first(self, has: Callable[[ReportedRun], bool]) -> ReportedRun | None:
        """The first run that meets a condition."""
        return next((run for run in self.runs if has(run)), None)


def samples_of_all(configurations: Iterable[Configuration]) -> str:
    """What they classify, in the plural; "samples" where some classify images and some texts."""
    kinds = {c.samples for c in configurations}
    return kinds.pop() if len(kinds) == 1 else "samples"


def chance_of(configuration: Configuration) -> float:
    """The accuracy of guesses on its test; NaN without one."""
    tested = configuration.tested
    return chance_level(tested[0].per_class.tolist()) if tested else NAN


def known_mean(values: Floats, axis: int = 0) -> Floats:
    """Mean of the numbers that are there; NaN where there is none, as of a class without a test sample."""
    known = ~np.isnan(values)
    sums = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(known.any(axis=axis), sums / np.maximum(known.sum(axis=axis), 1), NAN)


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; the deviation is NaN for one value, both are for none."""
    array = np.asarray(list(values), dtype=np.float64)
    if not array.size:
        return NAN, NAN
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else NAN


def configurations(runs: Sequence[ReportedRun]) -> list[Configuration]:
    """Runs of the same experiment together, in the order of their first runs; all groups by the bounds of the first.

    Two runs of one seed are no two seeds: they repeat each other, or differ in what no record holds. Where there are such
    runs, those of different folders stand apart.
    """
    bounds = bounds_of(runs)
    runs = runs if bounds is None else [with_bounds(run, bounds) for run in runs]
    grouped: list[tuple[dict[str, Any], list[ReportedRun]]] = []
    for run in runs:
        experiment = facts(run)
        members = next((members for other, members in grouped if other == experiment), None)
        if members is None:
            grouped.append((experiment, [run]))
        else:
            members.append(run)
    apart = [members for _, same in grouped for members in _by_folder(same)]
    titles = _titles([members[0] for members in apart])
    return [Configuration(title, tuple(members)) for title, members in zip(titles, apart)]


def _by_folder(runs: list[ReportedRun]) -> list[list[ReportedRun]]:
    """All together where each has a seed of its own, else those of one folder of seeds."""
    if len({run.seed for run in runs}) == len(runs):
        return [runs]
    parted: dict[str, list[ReportedRun]] = {}
    for run in runs:
        parted.setdefault(without_seed(str(run.folder)), []).append(run)
    return list(parted.values())


def bounds_of(runs: Sequence[ReportedRun]) -> Bounds | None:
    """Of the groups in a report: those of the first run, and the first split into head and tail that any run has."""
    statistics = [run.metrics.statistics for run in runs if run.metrics is not None]
    if not statistics:
        return None
    tail = next((s.tail_threshold for s in statistics if s.tail_threshold is not None), None)
    return Bounds.of(statistics[0])._replace(tail_threshold=tail)


def with_bounds(run: ReportedRun, bounds: Bounds) -> ReportedRun:
    """A run whose groups are by these bounds; what was saved by others alone is left out."""
    if run.metrics is None:
        return run
    own = run.metrics.statistics
    shifted = {name: of_set.with_bounds(bounds) for name, of_set in run.shifted.items()}
    history = run.history
    if Bounds.of(own).groups != bounds.groups:
        history = [{k: v for k, v in entry.items() if k.rpartition("_")[2] not in GROUPS} for entry in history]
    return replace(run, metrics=run.metrics.with_bounds(bounds), shifted=shifted, history=history)


def facts(run: ReportedRun) -> dict[str, Any]:
    """The experiment of a run; its folder where nothing else is known."""
    record = run.metrics.record if run.metrics is not None else None
    return experiment_of(record, run.recipe) or {"folder": str(run.folder)}


def differing(configurations: Sequence[Configuration]) -> list[str]:
    """Names of the settings in which configurations differ: of those that have finished, since a recipe alone says less."""
    first = [c.runs[0] for c in configurations]
    finished = [run for run in first if run.metrics is not None]
    return _differing([_flat(facts(run)) for run in finished or first])


def setting(configuration: Configuration, name: str) -> str:
    """The value of a setting, as text; a dash where it has none."""
    value = _flat(facts(configuration.runs[0])).get(name)
    return "-" if value is None else str(value)


def title(facts: Mapping[str, Any], second_stage: str = "") -> str:
    """CE + SGD, or CE-DRW + SAM for deferred re-weighting; then second stage, adapter, averaged weights and the like.

    Without a perturbation the method is called by the optimizer, where that is stated.

    Args:
        facts: may hold any setting.
        second_stage: its title, which a record holds; the name it is set by where that is not known.
    """
    loss = title_of(LOSSES, str(facts.get("loss", "cross_entropy")))
    method = title_of(METHODS, str(facts.get("method", "sam")))
    if facts.get("method") == "sgd":
        optimizer = str(facts.get("optim") or "sgd")
        method = {"sgd": method, "adamw": "AdamW"}.get(optimizer.partition("_")[0], optimizer)
    weighted = facts.get("reweighting", "none") != "none"
    suffix = ("-DRW" if facts.get("reweighting_start") else "-RW") if weighted else ""
    trained = f"{loss}{suffix} + {method}"
    if stage := second_stage or facts.get("second_stage"):
        trained = _with_second_stage(trained, str(stage), facts)
    return ", ".join([trained, *_particulars(facts)])


def _with_second_stage(trained: str, stage: str, facts: Mapping[str, Any]) -> str:
    """The first stage, then the second, with what it was trained by where that is not plain."""
    first = facts.get("first_stage")
    first = first if isinstance(first, Mapping) else {"folder": first}
    described = {name: first[name]["name"] for name in ("method", "loss") if name in first}
    before = title(described) if described else str(first.get("folder"))
    by = "" if trained == title({"method": "sgd"}) else f" by {trained}"
    return f"{before}, then {stage}{by}"


def _particulars(facts: Mapping[str, Any]) -> list[str]:
    """What else a run has that others do not."""
    adapter, sampling = facts.get("adapter"), facts.get("sampling") or "uniform"
    averaged = facts.get("weight_averaging") or facts.get("swa_start") is not None
    test_time = str(facts.get("test_time") or "none")
    named = {
        str(adapter): adapter is not None,
        "cosine head": facts.get("head") == "cosine",
        "partly frozen": bool(facts.get("train_only")),
        "spectral norm": bool(facts.get("spectral_norm")),
        f"{sampling.replace('_', '-')} sampling": sampling != "uniform",
        "mixup": bool(facts.get("mixup_alpha")),
        "CutMix": bool(facts.get("cutmix_alpha")),
        "averaged weights": averaged,
        "best checkpoint": bool(facts.get("load_best_model_at_end")),
        test_time.replace("_", " "): test_time != "none",
    }
    return [words for words, holds in named.items() if holds]


def section(configurations: Sequence[Configuration]) -> Section:
    """Configuration and command of each run, and what its settings rest on that no source states."""
    runs = [run for c in configurations for run in c.runs]
    names = differing(configurations)
    tables = [_differences(configurations, names)] if names else []
    missing = [Missing(f"The recipe of {run.folder} ({RECIPE})", training(run)) for run in runs if run.recipe is None]
    listings = [
        Listing(f"{c.title}: commands", "\n".join(_command(run) for run in c.runs)) for c in configurations
    ] + [
        Listing(f"{c.title}: all settings ({RECIPE} of {run.folder})", run.recipe.text)
        for c in configurations if (run := c.first(lambda run: run.recipe is not None)) and run.recipe
    ]  # fmt: skip
    tables += [_runs(configurations), *_assumed(configurations)]
    return Section(TITLE, tables=tables, listings=listings, missing=missing)


def _differences(configurations: Sequence[Configuration], names: Sequence[str]) -> Table:
    rows = [[name, *(setting(c, name) for c in configurations)] for name in names]
    return Table("Settings in which configurations differ", ["setting", *(c.title for c in configurations)], rows)


def _runs(configurations: Sequence[Configuration]) -> Table:
    rows = [[str(run.folder), c.title, run.seed, _versions(run)] for c in configurations for run in c.runs]
    return Table("Runs", ["folder", "configuration", "seed", "versions"], rows)


def _assumed(configurations: Sequence[Configuration]) -> list[Table]:
    """The assumptions of published rows whose settings the runs have; no table where there are none."""
    rows = [
        [c.title, setting, words]
        for c in configurations if (run := c.first(lambda run: run.recipe is not None)) and run.recipe
        for setting, words in assumptions(run.recipe.settings).items()
    ]  # fmt: skip
    return [Table("Assumed: settings that no source states", ["configuration", "setting", "why"], rows)] if rows else []


def _versions(run: ReportedRun) -> str:
    if run.metrics is None:
        return "-"
    return ", ".join(f"{name} {version}" for name, version in run.metrics.record.versions.items())


def _command(run: ReportedRun) -> str:
    """From the record, or from the first line of the recipe."""
    if run.metrics is not None and run.metrics.record.command:
        return run.metrics.record.command
    first = run.recipe.text.partition("\n")[0] if run.recipe is not None else ""
    return first.removeprefix("# ") if first.startswith("# ") else f"(not known: {run.folder})"


def _titles(runs: Sequence[ReportedRun]) -> list[str]:
    """Method and loss; of equal titles also the settings in which they differ, and if need be the folder."""
    experiments = [facts(run) for run in runs]
    plain = [
        f"{title(experiment, _title_of_stage(run))}{'' if run.metrics else ', without results'}"
        if "folder" not in experiment
        else str(experiment["folder"])
        for run, experiment in zip(runs, experiments)
    ]
    namesakes = [[other for other, its_name in zip(experiments, plain) if its_name == name] for name in plain]
    detailed = [_with_differences(*one) for one in zip(plain, experiments, namesakes)]
    several = Counter(detailed)
    return [name if several[name] == 1 else f"{name} ({run.folder})" for name, run in zip(detailed, runs)]


def _title_of_stage(run: ReportedRun) -> str:
    return "" if run.metrics is None else str(run.metrics.record.second_stage.get("title", ""))


def _with_differences(name: str, experiment: Mapping[str, Any], namesakes: Sequence[Mapping[str, Any]]) -> str:
    flat = _flat(experiment)
    names = [key for key in _differing([_flat(other) for other in namesakes]) if key in flat]
    shown = [f"{key} {flat[key]}" for key in names if (key, flat[key]) not in _THROUGHOUT.items()]
    fitting = [words for k, words in enumerate(shown) if len(", ".join(shown[: k + 1])) <= _LONGEST]
    more = f" and {len(shown) - len(fitting)} more" if len(fitting) < len(shown) else ""
    return f"{name} ({', '.join(fitting)}{more})" if fitting else name


def _differing(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(key for one in flat for key in one)
    return [key for key in names if len({json.dumps(one.get(key), default=str) for one in flat}) > 1]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """method_args {"rho": 0.1} as rho 0.1; what is nested deeper stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping) and key.endswith("_args"):
            flat |= {name if name not in facts else f"{key} {name}": v for name, v in value.items()}
        elif key != "counts":
            flat[key] = value
    return flat


def _accuracy(test: TestResult, group: str) -> float | None:
    if group in ("overall", "balanced"):
        return test.overall if group == "overall" else test.balanced
    return test.groups.get(group)
