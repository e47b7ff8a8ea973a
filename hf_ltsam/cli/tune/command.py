"""Choose settings on a reserved part of the training set, with the same number of trials for every recipe.

    ltsam tune RECIPE --search 'rho: [0.01, 0.5]'
    ltsam tune mine/sgd.yaml mine/sam.yaml --search 'learning_rate: [0.01, 0.3]' 'rho: [0.05, 0.8]' --jobs 2
    ltsam tune --search 'rho: [0.01, 0.5]' -- --dataset path/to/folder --method sam --learning_rate 0.1

Trials train on the rest of every class and are compared by their accuracy on the reserve; the test set has no part in it. A
parameter that one of several recipes does not have (rho of SGD) is not searched there. What follows `--` is given to every
training. A trial that falls behind the median of the others is stopped. After a kill the same command goes on, interrupted
trials first. Written: tune.md, .json, .png, and for each recipe RECIPE/best.yaml, which `ltsam train --config` takes.

A range is 'rho: [0.01, 0.5]', on a log scale where it begins above 0 (integers and shares of the training: linear), or
'rho: [0, 1, linear]'. Choices are 'depth: {choices: [20, 32]}' or 'lr_scheduler_type: [cosine, linear]'.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from hf_ltsam import LTSamConfig
from hf_ltsam.cli.options.names import split_at_dashes, underscored
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.train.arguments import (
    LENGTH,
    PERTURBING,
    decided_settings,
    option_names,
    read_options,
    with_recipe,
)
from hf_ltsam.cli.train.checks import check
from hf_ltsam.cli.tune.jobs import run_trials
from hf_ltsam.cli.tune.results import remarks, shown, write_results
from hf_ltsam.cli.tune.space import read_search
from hf_ltsam.cli.tune.study import BEST, Plan, Study
from hf_ltsam.cli.tune.trial import METRICS, run_of_trial
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.training.trials import arguments_of

DECIDED_HERE = ("config", "output_dir", "resume_from_checkpoint", "reserve", "push_to_hub", "hub_token")


def main(argv: Sequence[str] | None = None) -> None:
    """The search that the options describe."""
    before, after = split_at_dashes(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(before)
    with user_errors():
        options, _ = read_options(_allowed(after))
        tune(
            arguments.recipes,
            read_search(arguments.search),
            options,
            trials=arguments.trials,
            metric=arguments.metric,
            reserve=arguments.reserve,
            prune=not arguments.no_prune,
            grid=arguments.grid,
            jobs=arguments.jobs,
            seed=arguments.seed,
            output_dir=arguments.output_dir,
        )


def tune(
    recipes: Sequence[str],
    search: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    trials: int = 20,
    metric: str = "balanced",
    reserve: float = 0.2,
    prune: bool = True,
    grid: bool = False,
    jobs: int = 1,
    seed: int = 0,
    output_dir: str | Path | None = None,
) -> dict[str, Path]:
    """Run the trials that are left of each recipe, and write what they found.

    Args:
        recipes: names or files; empty: the settings alone.
        search: name -> range `[low, high]`, `[low, high, "log"]` or a list of choices.
        settings: of `ltsam train`, over those of every recipe.
        trials: of every recipe, pruned and failed ones included.
        metric: that is maximised: balanced, overall, many, medium or few.
        reserve: share of every class's training samples that trials are evaluated on.
        prune: whether trials below the median are stopped.
        grid: try all combinations of the choices, each once; `trials` is not looked at.
        jobs: trials at a time.
        seed: of the choice of values; that of the trainings is `settings["seed"]`.
        output_dir: None: runs/tune_RECIPE.

    Returns:
        Name of a recipe -> its best.yaml.

    Raises:
        ValueError: a setting that cannot be, a folder with trials of another search, or no trial that ended well.
        FileNotFoundError: there is no such recipe or data set.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("ltsam tune starts its own processes (--jobs N): start it without accelerate launch.")
    plans = _plans(recipes, search, dict(settings or {}), trials, metric, reserve, prune, seed, grid)
    if grid:
        plans = {name: replace(plan, trials=len(plan.combinations)) for name, plan in plans.items()}
    names = list(plans)
    root = Path(output_dir) if output_dir is not None else Path("runs") / f"tune_{'_'.join(names)}"[:120]
    studies = [Study(root / name, plan) for name, plan in plans.items()]
    for study in studies:
        check(run_of_trial(study.plan.stated, reserve, study.folder / "trial", tell=True))
    console = Console()
    for study in studies:
        searched = "; ".join(map(str, study.plan.parameters))
        console.print(
            f"{study.plan.name}: {study.plan.trials} trials of {study.plan.first['method']}. {searched}",
            soft_wrap=True,
            highlight=False,
        )
    _run(root, studies, jobs, console)
    best = {study.plan.name: study.folder / BEST for study in studies if study.best is not None}
    console.print(f"{root / 'tune.md'}, {', '.join(map(str, best.values()))}", soft_wrap=True, highlight=False)
    without = [study for study in studies if study.best is None]
    if without:
        reasons = [trial.reason for trial in without[0].ended() if trial.reason]
        raise ValueError(
            f"No trial of {without[0].plan.name} ended well: {reasons[-1] if reasons else 'all were stopped'}"
        )
    return best


def _run(root: Path, studies: Sequence[Study], jobs: int, console: Console) -> None:
    before = signal.signal(signal.SIGTERM, _stop) if _in_main_thread() else None
    try:
        for study in studies:
            reserve = study.reserve()
            console.print(f"{study.plan.name}: {reserve}", soft_wrap=True, highlight=False)

            def told(study: Study, number: int, reserve: Any = reserve) -> None:
                console.print(shown(study, number), soft_wrap=True, highlight=False)
                write_results(root, studies, reserve)

            run_trials(study, jobs, reserve, told)
            write_results(root, studies, reserve)
            for remark in remarks(study, reserve):
                console.print(f"Warning: {remark}", soft_wrap=True, highlight=False)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("The same command goes on with what has not ended.") from interrupt
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _plans(
    recipes: Sequence[str], search: Mapping[str, Any], settings: dict[str, Any], *numbers: Any
) -> dict[str, Plan]:
    """By the name of the recipe, each with the parameters that it has."""
    expanded = {_name(recipe): with_recipe(settings, recipe) for recipe in recipes} or {
        "settings": with_recipe(settings)
    }
    for stated in expanded.values():
        stated.pop("hub_token", None)  # plans and recipes are files that may go anywhere
    if len(expanded) < len(recipes):
        raise ValueError(f"Two of the recipes have one name ({', '.join(recipes)}): give files of different names.")
    searches = {
        name: {key: values for key, values in search.items() if _is_its_own(key, stated, list(expanded.values()))}
        for name, stated in expanded.items()
    }
    plans = {name: Plan(name, stated, searches[name], *numbers) for name, stated in expanded.items()}
    for name, plan in plans.items():
        if search and not plan.search:
            raise ValueError(
                f"--search has nothing that {name} could be tried with: add a setting of every training, such as "
                "learning_rate, so that it gets the same number of trials."
            )
        plans[name] = _as_it_begins(plan)
    return plans


def _as_it_begins(plan: Plan) -> Plan:
    """With the length and the method that nothing states: a study that goes on under a later release has trials of one kind.

    Raises:
        ValueError: a parameter that cannot be searched.
    """
    searched = {parameter.setting for parameter in plan.parameters}
    of_all_trials = LENGTH if searched & set(PERTURBING) else (*LENGTH, *PERTURBING)
    decided = {name: value for name, value in decided_settings(plan.settings).items() if name in of_all_trials}
    return replace(plan, settings={**plan.settings, **decided})


def _is_its_own(name: str, stated: Mapping[str, Any], everyone: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a recipe is searched over a name: not over an argument that another one's method or loss has, and its not."""
    if _has_argument(name, stated):
        return True
    return not any(_has_argument(name, other) for other in everyone)


def _has_argument(name: str, stated: Mapping[str, Any]) -> bool:
    setting, dot, argument = name.rpartition(".")
    return any(
        argument in arguments_of(kind, str(stated.get(kind, getattr(LTSamConfig, kind))))
        for kind in ("method", "loss")
        if not dot or setting == f"{kind}_args"
    )


def _name(recipe: str) -> str:
    return Path(recipe).stem


def _allowed(words: Sequence[str]) -> list[str]:
    """The options of the trainings, without those that are decided here."""
    named = {underscored(word).partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    taken = sorted(set(DECIDED_HERE) & named)
    if taken:
        where = "an option of ltsam tune itself" if taken[0] in ("output_dir", "reserve") else "decided for each trial"
        raise ValueError(f"--{taken[0]} behind -- cannot be given to the trainings: it is {where}.")
    return list(words)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="ltsam tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        behind_dashes=option_names,
    )
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help="names or files; none: the options behind -- alone"
    )
    parser.add_argument("--search", nargs="+", default=[], metavar="'NAME: [LOW, HIGH]'", help="what is searched")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="of every recipe (%(default)s)")
    parser.add_argument(
        "--reserve", type=float, default=0.2, metavar="SHARE", help="of every class's training samples (%(default)s)"
    )
    parser.add_argument("--metric", default="balanced", metavar="NAME", help=f"accuracy on them: {', '.join(METRICS)}")
    parser.add_argument(
        "--grid", action="store_true", help="all combinations of choices, each once, in place of --trials"
    )
    parser.add_argument("--no_prune", action="store_true", help="run every trial to its end")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trials at a time, which share the device (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the values that are tried (%(default)s)")
    parser.add_argument("--output_dir", type=Path, metavar="FOLDER", help="runs/tune_RECIPE")
    return parser
