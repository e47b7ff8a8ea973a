"""A second stage: the classifier of a finished run is trained or rescaled again, all else stays as it is.

ltsam decouple runs/mine --second_stage crt
ltsam decouple --config second_stage/cifar100_lt_ir100_ce_cc_sam_then_cc_sam --seed 0
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.utils import logging

from hf_ltsam.cli.train.arguments import DEFAULTS, Run, first_stage_folder, layered, read_settings, run_of
from hf_ltsam.cli.train.checks import check, mapping, resume_point
from hf_ltsam.cli.train.data import TrainingData, prepare
from hf_ltsam.cli.train.data_arguments import DataArguments
from hf_ltsam.cli.train.model import image_format, image_processor
from hf_ltsam.cli.train.model_arguments import ModelArguments
from hf_ltsam.cli.train.results import print_results, save_recipe
from hf_ltsam.cli.train.saved_run import RECIPE, SavedRun, open_run, require_weights, root_of
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.cli.train.train import finish, train
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.data.labels import read_label_column
from hf_ltsam.models.frozen_features import frozen_features
from hf_ltsam.runs.identity import describe, fingerprint
from hf_ltsam.runs.recipes import read_recipe
from hf_ltsam.runs.record import FILE_NAME, read_metrics
from hf_ltsam.training.second_stage import (
    SECOND_STAGES,
    CachedFeatures,
    SecondStage,
    SecondStageTrainer,
    Trunk,
    choose_tau,
    hold_out,
    make_second_stage,
    tau_normalise,
)
from hf_ltsam.training.second_stage.stages import TauNorm, linear

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class FirstStage:
    """What a second stage starts from."""

    saved: SavedRun
    model: nn.Module
    data: TrainingData

    @property
    def splits(self) -> Splits:
        return self.saved.splits


def main(argv: Sequence[str] | None = None) -> None:
    """One second stage, from the words of the command line."""
    with user_errors():
        run = parse_second_stage(sys.argv[1:] if argv is None else argv)
        stage = make_second_stage(str(run.stage.second_stage), **mapping(run.stage.second_stage_args))
        _check_run(run, stage)
        with run.config.main_process_first(desc="loading the data"):
            saved = open_run(str(run.stage.first_stage), run.data.dataset)
        first = _open(run, saved, stage)
        origin = _origin(first)
        trainer = build_trainer(run, first, stage)
        if isinstance(stage, TauNorm):
            metrics, found = _normalise(run, first, stage, trainer)
        else:
            metrics, found = train(run, trainer).metrics, {}
        facts = {**describe(SECOND_STAGES, stage), **found, "first_stage": origin}
        record = finish(run, first.splits, trainer, metrics, facts)
        if trainer.is_world_process_zero():
            print_results(record, run.config.output_dir)


def parse_second_stage(words: Sequence[str]) -> Run:
    """Settings of the recipe, overridden by the command line, over those of the first stage's model and data.

    Raises:
        ValueError, FileNotFoundError: an unknown setting, no first stage, or a setting that only that one can make.
    """
    named = [] if not words or words[0].startswith("-") else ["--first_stage", words[0]]
    given, recipe = read_settings([*named, *words[len(named) // 2 :]], "decouple")
    seed = given.get("seed", read_recipe(DEFAULTS)["seed"])
    folder = first_stage_folder(given.get("first_stage"), seed)
    require_weights(folder)
    root = root_of(folder)
    first, _ = read_settings(["--config", str(root / RECIPE)])
    decided = {**_all_settings(ModelArguments, first), **_all_settings(DataArguments, first)}
    settings = {**layered(given, first, decided), "first_stage": str(folder)}
    if settings.get("second_stage") is None:
        raise ValueError("Which second stage? --second_stage crt, lws, tau_norm or cc_sam (`ltsam decouple --help`).")
    default = f"runs/{recipe}/seed{seed}" if recipe else f"{root}_{settings['second_stage']}"
    settings.setdefault("output_dir", default)
    return run_of(settings, words, "decouple")


def _all_settings(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    return dataclasses.asdict(kind(**{name: value for name, value in given.items() if name in names}))


def build_trainer(run: Run, first: FirstStage, stage: SecondStage) -> SecondStageTrainer:
    """The first stage's model and data, in the trainer of its second stage."""
    config, data = run.config, first.data
    train_dataset = data.train
    if run.stage.cache_features and stage.is_trained:
        train_dataset = _features(run, first, data.plain_train)
    height, width = data.test[0]["pixel_values"].shape[-2:]
    return SecondStageTrainer(
        first.model,
        stage,
        config,
        train_dataset,
        data.test,
        first.saved.statistics,
        image_processor(height, width, data.short_side, data.mean, data.std),
    )


def _check_run(run: Run, stage: SecondStage) -> None:
    folder = Path(str(run.stage.first_stage))
    if Path(run.config.output_dir).resolve() in (folder.resolve(), root_of(folder).resolve()):
        raise ValueError(f"--output_dir {run.config.output_dir} is the first stage's own folder: name another one.")
    check(run)
    if not stage.is_trained and resume_point(run.config):
        raise ValueError(
            "--resume_from_checkpoint: tau_norm trains nothing, so there is nothing to resume. Leave it out."
        )


def _open(run: Run, saved: SavedRun, stage: SecondStage) -> FirstStage:
    """Model and images; whether they go with the stage is found out before images are decoded."""
    model = saved.model()
    stage.head(copy.deepcopy(Trunk(model, saved.statistics.num_classes).classifier), run.config.seed)
    return FirstStage(saved, model, _images(run, saved.splits, model))


def _images(run: Run, splits: Splits, model: nn.Module) -> TrainingData:
    config, settings = run.config, dataclasses.replace(run.data, check_images=False)  # they have been trained on
    wanted = image_format(model, run.model, settings.image_size)
    seed = config.seed if config.data_seed is None else config.data_seed
    return prepare(splits, settings, wanted, seed, _shows_bar(run))


def _features(run: Run, first: FirstStage, images: Any) -> CachedFeatures:
    model, C = first.model.to(run.config.device), first.saved.statistics.num_classes
    batch, workers = run.config.per_device_eval_batch_size, run.config.dataloader_num_workers
    return CachedFeatures(*frozen_features(model, images, C, None, batch, workers, _shows_bar(run)))


def _shows_bar(run: Run) -> bool:
    return run.config.local_process_index == 0 and not run.config.disable_tqdm


def _normalise(
    run: Run, first: FirstStage, stage: TauNorm, trainer: SecondStageTrainer
) -> tuple[dict[str, float], dict[str, Any]]:
    """Normalise the class vectors; how long it took, and which tau it was."""
    started = time.perf_counter()
    if trainer.is_world_process_zero():
        save_recipe(run)
    classifier = linear(stage, trainer.head.classifier)
    found = {"tau": stage.tau} if stage.tau is not None else _chosen(run, first, stage, classifier.weight)
    tau_normalise(classifier, found["tau"])
    return {"train_runtime": time.perf_counter() - started}, found


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
        "first stage trained with --reserve 0.1, say, leaves some out for this."
    )
    everything = _features(run, first, first.data.plain_train)
    rows = hold_out(everything.labels, stage.share, run.config.seed)
    return CachedFeatures(everything.features[rows], everything.labels[rows])


def _origin(first: FirstStage) -> dict[str, Any]:
    saved = first.saved
    record = read_metrics(saved.root) if (saved.root / FILE_NAME).is_file() else None
    facts = {"folder": str(saved.folder), "weights_sha256": fingerprint(first.model)}
    return facts if record is None else {**facts, "method": record.method, "loss": record.loss}


if __name__ == "__main__":
    main()
