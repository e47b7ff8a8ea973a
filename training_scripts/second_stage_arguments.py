"""The settings of a second stage: its own, those of its first stage, and the defaults of all second stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training_scripts.recipe_file import RECIPES, read_recipe, recipe_names

_MOVABLE = {"dataset", "lists", "own_lists", "check_images"}        # where the data lie, not what they are
DEFAULTS = RECIPES / "base" / "second_stage.yaml"


@dataclass
class SecondStageArguments:
    """What becomes of the classifier of a finished run."""

    _argument_group_name = "second stage"

    second_stage: str | None = field(
        default=None,
        metadata={"help": "`ltsam decouple`: what becomes of a run's classifier: crt, lws, tau_norm or cc_sam."},
    )
    second_stage_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its hyper-parameters as JSON, for example '{\"cap\": 0.3}' for cc_sam."}
    )
    first_stage: str | None = field(
        default=None,
        metadata={
            "help": "The run it starts from: a folder, a checkpoint in it, or a recipe, whose run runs/RECIPE/seedN with "
            "this run's seed is meant."
        },
    )
    cache_features: bool = field(
        default=False,
        metadata={
            "help": "Second stages: compute what the classifier is given once, from images without augmentation. Far "
            "faster; the sources augment."
        },
    )


def first_stage_folder(value: str | None, seed: int) -> Path:
    """Where the weights of the first stage are.

    Raises:
        ValueError: none was named.
        FileNotFoundError: it is not there, or the recipe has not been run with this seed.
    """
    if value is None:
        raise ValueError("Which run? `ltsam decouple RUN --second_stage crt` names the folder of a finished one.")
    folder = Path(value)
    if folder.is_dir():
        return folder
    runs = Path("runs") / folder.name / f"seed{seed}"
    if runs.is_dir():
        return runs
    is_recipe = folder.name in recipe_names() or (RECIPES / f"{value}.yaml").is_file()
    hint = f" The recipe has not been run: ltsam train --config {value} --seed {seed} writes {runs}." if is_recipe else ""
    raise FileNotFoundError(f"--first_stage {value}: there is no such folder.{hint}")


def layered(given: dict[str, Any], first: dict[str, Any], decided: dict[str, Any]) -> dict[str, Any]:
    """All settings of a second stage: the first stage's model and data, the defaults of second stages, then what is given.

    Args:
        given: by recipe and command line.
        first: what the first stage's recipe set.
        decided: all settings of its model and data, defaults too.

    Raises:
        ValueError: a setting of model or data that is not the first stage's.
    """
    for name in sorted((set(decided) & set(given)) - _MOVABLE):
        if given[name] != decided[name]:
            raise ValueError(
                f"--{name} {given[name]}: the first stage was trained with {decided[name]}, and a second stage keeps its "
                f"model and data. Leave --{name} out."
            )
    return {**{name: first[name] for name in first if name in decided}, **read_recipe(DEFAULTS), **given}
