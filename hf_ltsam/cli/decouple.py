"""`ltsam decouple`: the classifier of a finished run is trained or rescaled again, all else stays as it is.

    ltsam decouple runs/mine --second_stage crt
    ltsam decouple --config second_stage/cifar100_lt_ir100_ce_cc_sam_then_cc_sam --seed 0

In Python: run_second_stage(make_second_stage_run({"first_stage": "runs/mine", "second_stage": "crt"})).
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.utils import logging

from hf_ltsam.cli.train.arguments import (
    SECOND_STAGE_DEFAULTS,
    options_of,
    read_options,
    run_of,
    tell_decided,
    with_recipe,
)
from hf_ltsam.cli.train.checks import check, mapping
from hf_ltsam.cli.train.data import TrainingData, prepare
from hf_ltsam.cli.train.model import input_format
from hf_ltsam.cli.train.results import print_results, save_recipe
from hf_ltsam.cli.train.resuming import resume_point, with_resume_point
from hf_ltsam.cli.train.saved_run import SavedRun, open_run, settings_beside_recipe
from hf_ltsam.cli.train.settings import DataArguments, ModelArguments, Run
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.cli.train.train import finish, train
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.data.labels import read_label_column
from hf_ltsam.models.frozen_features import frozen_features
from hf_ltsam.runs.folder import RECIPE, RunFolder, default_folder, seed_folder, seed_of
from hf_ltsam.runs.identity import fingerprint
from hf_ltsam.runs.recipes import read_recipe, recipe_names
from hf_ltsam.runs.record import RunRecord, hub_name, split_revision
from hf_ltsam.training.second_stage import (
    SECOND_STAGES,
    CachedFeatures,
    SecondStage,
    SecondStageTrainer,
    Trunk,
    check_passes,
    choose_tau,
    first_stage_facts,
    hold_out,
    make_second_stage,
    tau_normalise,
)
from hf_ltsam.training.second_stage.stages import TauNorm, linear

MOVABLE = {"dataset", "dataset_revision", "lists", "own_lists", "check_images"}  # where the data lie, not what they are
TOLD = frozenset({"sampling", "num_train_epochs", "learning_rate", "per_device_train_batch_size"})  # before it starts
logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class FirstStage:
    """The finished run that a second stage starts from, opened."""

    saved: SavedRun
    model: nn.Module
    data: TrainingData

    @property
    def splits(self) -> Splits:
        return self.saved.splits


def main(argv: Sequence[str] | None = None) -> None:
    """`ltsam decouple`: the second stage that the options describe."""
    with user_errors():
        run_second_stage(parse_second_stage(sys.argv[1:] if argv is None else argv))


def run_second_stage(run: Run) -> RunRecord:
    """Train or rescale the classifier of a finished run, test, save, and show the accuracies.

    Raises:
        ValueError, FileNotFoundError: a setting that cannot work, named with its value and the way out.
    """
    stage = make_second_stage(str(run.stage.second_stage), **mapping(run.stage.second_stage_args))
    _check_run(run, stage)
    with run.config.main_process_first(desc="loading the data"):
        saved = open_run(str(run.stage.first_stage), _place_of_data(run))
    first = _open(run, saved, stage)
    origin = first_stage_facts(saved.folder.path, fingerprint(first.model))
    trainer = build_trainer(run, first, stage)
    if isinstance(stage, TauNorm):
        metrics, choice = _normalise(run, first, stage, trainer)
    else:
        metrics, choice = train(run, trainer).metrics, {}
    facts = {**stage.facts, **choice, "first_stage": origin}
    record = finish(run, first.splits, trainer, metrics, facts)
    if trainer.is_world_process_zero():
        print_results(record, run.config.output_dir, saved.folder.record)
    return record


def parse_second_stage(words: Sequence[str]) -> Run:
    """The second stage that the options of `ltsam decouple` describe; a word before them is the first stage.

    Raises:
        ValueError, FileNotFoundError: as `make_second_stage_run`, or an unknown option.
    """
    named = [] if not words or words[0].startswith("-") else ["--first_stage", words[0]]
    options, recipe = read_options([*named, *words[len(named) // 2 :]], "decouple")
    return make_second_stage_run(options, recipe, words)


def make_second_stage_run(
    settings: Mapping[str, Any], recipe: str | Path | None = None, words: Sequence[str] | None = None
) -> Run:
    """A second stage from values, over the first stage's model and data and the defaults of second stages.

    Args:
        settings: by the names of the options; they override those of the recipe. `first_stage` and `second_stage` have
            to be stated by one of them.
        recipe: a file, or the name of one of ours.
        words: the options that it was described by; None: made from the values.

    Raises:
        ValueError: an unknown setting, no first stage, or a setting that is the first stage's to make.
        FileNotFoundError: the first stage is not there, or has no weights.
    """
    stated = with_recipe(settings, recipe, "decouple")
    folder = first_stage_folder(
        stated.get("first_stage"), stated.get("seed", read_recipe(SECOND_STAGE_DEFAULTS)["seed"])
    )
    RunFolder(folder).require_weights()
    root = RunFolder(folder).root.path
    if "seed" not in stated and (seed := seed_of(root.absolute())) is not None:
        stated = {**stated, "seed": seed}  # the seeds of the first stage are those of the second
    name, revision = split_revision(str(stated.get("dataset", "")))
    if revision is not None:
        stated = {**stated, "dataset": name, "dataset_revision": revision}
    first = with_recipe(settings_beside_recipe(RunFolder(root)), root / RECIPE)
    everything = {**_over_first_stage(stated, first), "first_stage": str(folder)}
    if everything.get("second_stage") is None:
        raise ValueError(f"Which second stage? --second_stage {', '.join(SECOND_STAGES)} (`ltsam decouple --help`).")
    default = _beside(root, everything) if recipe is None else default_folder(Path(recipe).stem, everything["seed"])
    everything.setdefault("output_dir", str(default))
    everything = with_resume_point(everything, settings, recipe)
    _tell_defaults(everything, stated)
    run = run_of(everything, options_of(settings, recipe, "decouple") if words is None else words, "decouple")
    record = RunFolder(root).record
    if record is None or record.hub is None:
        return run
    return dataclasses.replace(run, hub=record.hub)  # names may mean something else by now


def _tell_defaults(settings: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    """As `ltsam train` does, of a stage that trains."""
    told = TOLD.difference(stated, ["num_train_epochs"] if "max_steps" in stated else [])
    decided = {name: value for name, value in read_recipe(SECOND_STAGE_DEFAULTS).items() if name in told}
    if settings["second_stage"] != "tau_norm":
        goes_on = resume_point(settings.get("resume_from_checkpoint"))
        tell_decided(f"the second stage {'goes on' if goes_on else 'starts'}", decided)


def _place_of_data(run: Run) -> str | None:
    """As `open_run` takes it: with the revision, where that is another than the first stage's."""
    name, revision = run.data.dataset, run.data.dataset_revision
    recipe = RunFolder(Path(str(run.stage.first_stage))).root.recipe
    is_of_first_stage = recipe is not None and revision == recipe.settings.get("dataset_revision")
    return name if revision is None or is_of_first_stage else f"{name}@{revision}"


def _beside(root: Path, settings: Mapping[str, Any]) -> Path:
    """runs/mine -> runs/mine_crt, and runs/mine/seed0 -> runs/mine_crt/seed0: the seeds of a stage lie in one folder."""
    stage = settings["second_stage"]
    if seed_of(root.absolute()) is None:
        return Path(f"{root}_{stage}")
    experiment = root.absolute().parent if root.parent.name == "" else root.parent
    return seed_folder(experiment.with_name(f"{experiment.name}_{stage}"), settings["seed"])


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
    runs = default_folder(folder.name, seed)
    if runs.is_dir():
        return runs
    hint = ""
    if value in recipe_names():
        hint = f" The recipe has not been run: ltsam train --config {value} --seed {seed} writes {runs}."
    raise FileNotFoundError(f"--first_stage {value}: there is no such folder.{hint}")


def _over_first_stage(stated: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a second stage: the first stage's model and data, the defaults of second stages, then what is stated.

    Args:
        stated: by recipe and command line.
        first: what the first stage's recipe set.

    Raises:
        ValueError: a setting of model or data that is not the first stage's.
    """
    if hub_name(stated.get("dataset", first.get("dataset"))) is None:  # a folder, which has no revisions
        first = {name: value for name, value in first.items() if name != "dataset_revision"}
    kept = {**_all_settings(ModelArguments, first), **_all_settings(DataArguments, first)}
    for name in sorted((set(kept) & set(stated)) - MOVABLE):
        if stated[name] != kept[name]:
            raise ValueError(
                f"--{name} {stated[name]}: the first stage was trained with {kept[name]}, and a second stage keeps its "
                f"model and data. Leave --{name} out."
            )
    return {**{name: first[name] for name in first if name in kept}, **read_recipe(SECOND_STAGE_DEFAULTS), **stated}


def _all_settings(kind: type, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Of the model or the data, defaults too."""
    names = {f.name for f in dataclasses.fields(kind)}
    return dataclasses.asdict(kind(**{name: value for name, value in stated.items() if name in names}))


def build_trainer(run: Run, first: FirstStage, stage: SecondStage) -> SecondStageTrainer:
    """The first stage's model and data, in the trainer of its second stage."""
    config, data = run.config, first.data
    train_dataset = data.train
    if run.stage.cache_features and stage.is_trained:
        train_dataset = _features(run, first, data.plain_train)
    return SecondStageTrainer(
        first.model,
        stage,
        config,
        train_dataset,
        data.test,
        first.saved.statistics,
        data.processor,
    )


def _check_run(run: Run, stage: SecondStage) -> None:
    folder = Path(str(run.stage.first_stage))
    if Path(run.config.output_dir).resolve() in (folder.resolve(), RunFolder(folder).root.path.resolve()):
        raise ValueError(f"--output_dir {run.config.output_dir} is the first stage's own folder: name another one.")
    check_passes(run.config)
    check(run)
    if stage.shifts_batch_norm and run.stage.cache_features:
        raise ValueError(
            f"--cache_features true: {run.stage.second_stage} shifts batch norm, for which it needs the images at every "
            "step. Leave --cache_features out, or shift nothing: --second_stage_args '{\"shift_batch_norm\": false}'."
        )
    if not stage.is_trained and resume_point(run.config.resume_from_checkpoint):
        raise ValueError(
            "--resume_from_checkpoint: tau_norm trains nothing, so there is nothing to resume. Leave it out."
        )


def _open(run: Run, saved: SavedRun, stage: SecondStage) -> FirstStage:
    """Model and images; a model that does not go with the stage is refused before images are decoded."""
    model = saved.model()
    stage.head(copy.deepcopy(Trunk(model, saved.statistics.num_classes).classifier), run.config.seed)
    return FirstStage(saved, model, _images(run, saved.splits, model))


def _images(run: Run, splits: Splits, model: nn.Module) -> TrainingData:
    config, settings = run.config, dataclasses.replace(run.data, check_images=False)  # they have been trained on
    wanted = input_format(model, run.model, settings)
    seed = config.seed if config.data_seed is None else config.data_seed
    return prepare(splits, settings, wanted, seed, _shows_bar(run))


def _features(run: Run, first: FirstStage, images: Any) -> CachedFeatures:
    model, C = first.model.to(run.config.device), first.saved.statistics.num_classes
    batch, workers = run.config.per_device_eval_batch_size, run.config.dataloader_num_workers
    return CachedFeatures(
        *frozen_features(model, images, C, None, batch, workers, _shows_bar(run), first.data.collator)
    )


def _shows_bar(run: Run) -> bool:
    return run.config.local_process_index == 0 and not run.config.disable_tqdm


def _normalise(
    run: Run, first: FirstStage, stage: TauNorm, trainer: SecondStageTrainer
) -> tuple[dict[str, float], dict[str, Any]]:
    """Normalise the class vectors; the seconds that it took, and the tau."""
    started = time.perf_counter()
    if trainer.is_world_process_zero():
        save_recipe(run)
    classifier = linear(stage, trainer.head.classifier)
    choice = {"tau": stage.tau} if stage.tau is not None else _chosen(run, first, stage, classifier.weight)
    tau_normalise(classifier, choice["tau"])
    return {"train_runtime": time.perf_counter() - started}, choice


def _chosen(run: Run, first: FirstStage, stage: TauNorm, weight: Tensor) -> dict[str, Any]:
    held = _held_out(run, first, stage)
    choice = choose_tau(weight.detach().float().cpu(), held.features, held.labels, stage.taus)
    return {"tau": choice.tau, "accuracies_by_tau": choice.accuracies, "chosen_by": choice.samples}


def _held_out(run: Run, first: FirstStage, stage: TauNorm) -> CachedFeatures:
    """Features of the training images that were reserved, or else of a part of those that the first stage has seen."""
    splits = first.splits
    if splits.reserved is not None:
        labels = read_label_column(splits.reserved, splits.label_column)
        reserved = dataclasses.replace(splits, test=splits.reserved, test_labels=labels)
        return _features(run, first, _images(run, reserved, first.model).test)
    logger.warning(
        "tau is chosen by training images that the first stage was trained on, on which it is better than on new ones. A "
        "first stage trained with --reserve 0.1, for example, leaves some out for this."
    )
    everything = _features(run, first, first.data.plain_train)
    rows = hold_out(everything.labels, stage.share, run.config.seed)
    return CachedFeatures(everything.features[rows], everything.labels[rows])
