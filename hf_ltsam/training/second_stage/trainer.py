"""LTSamTrainer, with the classifier alone in the place of the model."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import default_data_collator

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.sample_labels import Collator
from hf_ltsam.landscape.graphs import refusal
from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import SGD
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.identity import describe, fingerprint
from hf_ltsam.runs.model import load_run
from hf_ltsam.training.checkpoint_folders import check_best
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.refusals.settings import without_settings
from hf_ltsam.training.second_stage.heads import Head
from hf_ltsam.training.second_stage.stages import SECOND_STAGES, SecondStage
from hf_ltsam.training.second_stage.trunk import CachedFeatures, Trunk
from hf_ltsam.training.trainer import LTSamTrainer
from hf_ltsam.training.training_set import LabelReader, TrainingSet, require_statistics, without_adapter

_HEAD_FILE = "second_stage_head.safetensors"  # what is trained, beside the whole model
_TRUNK = "trunk."  # before the names of what batch norm has counted
FEATURES = "features"


def check_passes(args: LTSamConfig) -> None:
    """Refuse what hides a classifier's calls.

    Raises:
        ValueError: `cuda_graphs`.
    """
    if args.cuda_graphs:
        raise refusal("the classifier of a second stage notes down its inputs for losses, which a replay would not do")


class SecondStageTrainer(LTSamTrainer):
    """Trains the classifier of a trained model; everything else of the model stays as it is, to the last bit.

    A stage that shifts batch norm changes running means and variances too, while it trains.
    The trunk runs without gradients and in evaluation mode, on images as the training set gives them, augmented or not;
    a training set of `CachedFeatures` does not need it at all. Method, loss, sampling, schedule, checkpoints and resuming
    are those of `LTSamTrainer`; checkpoints and the output folder hold the whole model, with its new classifier.

    Args:
        first_stage: the trained model; it is put on the device and into evaluation mode. When it is saved, its classifier
            becomes the trained one.
        second_stage: of `hf_ltsam.training.second_stage.SECOND_STAGES`.
        args, train_dataset, eval_dataset, class_statistics, others: as in `LTSamTrainer`.

    Raises:
        ValueError: the classifier cannot be told from other layers or does not go with the stage, a method that
            perturbs weights with a stage that perturbs features, or cached features or a model without batch norm with a
            stage that shifts batch norm; or `cuda_graphs`.
    """

    @without_settings
    def __init__(
        self,
        first_stage: nn.Module,
        second_stage: SecondStage,
        args: LTSamConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        class_statistics: ClassStatistics | None = None,
        processing_class: Any = None,
        callbacks: list[Any] | None = None,
    ) -> None:
        check_passes(args)
        label_name = (args.label_names or ["labels"])[0]
        reader = LabelReader(lambda: label_name, lambda: default_data_collator, args)
        training_set = TrainingSet.of(train_dataset, reader, first_stage, class_statistics)
        training_set.check_model_names(reader, first_stage)
        statistics = require_statistics(training_set.statistics)
        if second_stage.shifts_batch_norm and isinstance(train_dataset, CachedFeatures):
            raise ValueError(
                f"{type(second_stage).__name__}(shift_batch_norm=True) needs images, and CachedFeatures have been computed "
                "with batch norm as it was: pass a data set of images, or shift_batch_norm=False."
            )
        self.second_stage, self.first_stage_sha256 = second_stage, fingerprint(first_stage)
        self.trunk = Trunk(first_stage.to(args.device), statistics.num_classes, second_stage.shifts_batch_norm)
        classifier = copy.deepcopy(self.trunk.classifier).requires_grad_(True)
        self.head: Head = second_stage.head(classifier, args.seed)  # the trainer's model
        super().__init__(
            model=self.head,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            class_statistics=statistics,
            processing_class=processing_class,
            callbacks=callbacks,
        )
        self.data_collator: Collator = _or_features(self.data_collator)
        self.training_set = training_set  # whose labels may have been counted, while its statistics were given above
        # before weights are averaged, logged or saved
        self.callback_handler.callbacks[1:1] = second_stage.callbacks(self.head)
        self._base_loss = self.loss
        self.loss = second_stage.loss(self._base_loss, self.head, self._epoch)
        if second_stage.perturbs and not isinstance(self.method, SGD):
            raise ValueError(
                f"{type(second_stage).__name__} perturbs features and {type(self.method).__name__} weights: set "
                "method='sgd', or take the second stage crt."
            )

    def _epoch(self) -> int:
        return int(self.state.epoch or 0)

    def _set_signature_columns_if_needed(self) -> None:
        """A batch has what the whole model takes, or features; the model of this trainer is the head."""
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            columns: Any = self._signature_columns  # which stock declares as None
            self._signature_columns: Any = [*columns, *self.trunk.inputs]

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """On the device, with features in the place of whatever the trunk takes."""
        inputs = super()._prepare_inputs(inputs)
        if FEATURES in inputs:
            return inputs
        label = self.label_names[0]
        with self.compute_loss_context_manager():
            given = {name: value for name, value in inputs.items() if name != label}
            features = self.trunk.features(given, in_training=self.head.training)
        return {FEATURES: features, **({label: inputs[label]} if label in inputs else {})}

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As stock, with groups of their own for what the stage trains at another rate.

        Raises:
            ValueError: a stage of which nothing is trained.
        """
        if not self.second_stage.is_trained:  # the run would be recorded as one of this stage
            raise ValueError(
                f"{type(self.second_stage).__name__} trains nothing, so there is no training: choose_tau and tau_normalise "
                "are its steps, which `ltsam decouple RUN --second_stage tau_norm` does one after the other."
            )
        is_new, optimizer = self.optimizer is None, super().create_optimizer(model)
        parameters = dict(self.head.named_parameters())
        rates = {id(parameters[name]): rate for name, rate in self.second_stage.rates(self.head).items()}
        for group in list(optimizer.param_groups) if is_new and rates else []:
            for rate in dict.fromkeys(rates[id(p)] for p in group["params"] if id(p) in rates):
                slow = [p for p in group["params"] if rates.get(id(p)) == rate]
                group["params"] = [p for p in group["params"] if rates.get(id(p)) != rate]
                optimizer.add_param_group({**group, "params": slow, "lr": rate * group["lr"]})
        return optimizer

    def identity(self) -> dict[str, Any]:
        stage = describe(SECOND_STAGES, self.second_stage)
        return {
            **super().identity(),
            "loss": describe(LOSSES, self._base_loss),
            "second_stage": {**stage, "first_stage_sha256": self.first_stage_sha256},
        }

    @property
    def whole_model(self) -> nn.Module:
        return self.trunk.model

    def second_stage_facts(self, first_stage: str | None = None) -> dict[str, Any]:
        """As `SavedRuns` has it: the stage, and the run that it started from where that is known by its weights."""
        config = getattr(without_adapter(self.trunk.model), "config", None)
        folder = first_stage or getattr(config, "name_or_path", None) or ""
        is_run = bool(folder) and RunFolder(Path(folder)).has_weights
        if is_run and fingerprint(load_run(folder)) == self.first_stage_sha256:
            origin = first_stage_facts(Path(folder), self.first_stage_sha256)
        elif first_stage is not None:
            raise ValueError(
                f"save_run(first_stage={first_stage!r}) has other weights than the model that the second stage started "
                "from: name the folder of its run, or leave it out."
            )
        else:
            origin = {
                "folder": f"{type(self.trunk.model).__name__} in memory",
                "weights_sha256": self.first_stage_sha256,
            }
        return {**self.second_stage.facts, "first_stage": origin}

    def put_into_model(self) -> nn.Module:
        """The first stage's model, its classifier being now the trained one."""
        self.trunk.set_classifier(self.head.trained_classifier())
        return self.trunk.model

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The whole model, in the way its kind is saved, and beside it what is trained."""
        self.model: Any = self.put_into_model()
        try:
            super()._save(output_dir)
        finally:
            self.model = self.head
        if self.args.should_save:
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            state = {**self.head.state_dict(), **{_TRUNK + name: value for name, value in self.trunk.running.items()}}
            save_file({name: value.contiguous() for name, value in state.items()}, folder / _HEAD_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_head(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        check_best(best)
        self._load_head(best)

    @torch.no_grad()
    def _load_head(self, folder: str | os.PathLike[str]) -> None:
        file = Path(folder) / _HEAD_FILE
        if not file.is_file():
            raise ValueError(f"{folder} is no checkpoint of a second stage: it holds no {_HEAD_FILE}.")
        state: Mapping[str, Any] = load_file(file)
        running = self.trunk.running
        self.head.load_state_dict({name: value for name, value in state.items() if not name.startswith(_TRUNK)})
        for name, value in running.items():
            value.copy_(state[_TRUNK + name])


def first_stage_facts(folder: Path, weights_sha256: str) -> dict[str, Any]:
    """What a record says of the run that a second stage started from.

    Args:
        folder: of its weights: the run's, or that of a checkpoint.
        weights_sha256: of the model that was loaded.
    """
    record = RunFolder(folder).root.record
    facts = {"folder": str(folder), "weights_sha256": weights_sha256}
    return facts if record is None else {**facts, "method": record.method, "loss": record.loss}


def _or_features(collator: Collator) -> Collator:
    """A collator that takes cached features beside its own samples, which are texts, say."""

    def collated(samples: list[Any]) -> Mapping[str, Any]:
        are_features = FEATURES in samples[0]
        return (default_data_collator if are_features else collator)(samples)

    return collator if collator is default_data_collator else collated
