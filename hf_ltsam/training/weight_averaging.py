"""Stochastic weight averaging: the model that leaves the training is the mean of those on its way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, update_bn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import has_length
from transformers.utils import logging

from hf_ltsam.data.random_states import random_numbers_of, random_state
from hf_ltsam.hyperparameters import BELOW_ONE, COUNT, require
from hf_ltsam.landscape.reduction import average_running_statistics
from hf_ltsam.losses.protocol import wide
from hf_ltsam.models.spectral_norm import settle
from hf_ltsam.training.checkpoint_folders import load_tensors
from hf_ltsam.training.durable_trainer import CheckpointedCallback

logger = logging.get_logger(__name__)

_FILE_NAME = "weight_average.pt"


class WeightAveraging(CheckpointedCallback):
    """Average the trainable weights over the last part of the training, through torch's own `swa_utils`.

    When the training ends, the mean is written into the model, and batch norm's running statistics are computed anew in
    one pass over the training data. Until then model, checkpoints and evaluations are those of the ordinary training;
    what is evaluated, saved and pushed afterwards is the mean. `LTSamConfig(swa_start=...)` adds this callback;
    `DurableTrainer` and `LTSamTrainer` keep the running mean in their checkpoints; the stock Trainer cannot resume it.

    Args:
        start: share of training, in [0, 1), from which weights are averaged; 0.75 in Izmailov et al. 2018 and Zhou et al.
            2023b C.1.
        interval: average after every `interval` steps, >= 1; None: at the end of every epoch.

    Cost: one more copy of the trainable weights (in float32 at least), and forward passes over one epoch at the end where
        the model has batch norm.
    Source: Izmailov et al. 2018 Alg. 1.
    """

    def __init__(self, start: float = 0.75, interval: int | None = None) -> None:
        require(BELOW_ONE, self, start=start)
        if interval is not None:
            require(COUNT, self, interval=interval)
        self.start, self.interval = start, interval
        self._every = 0
        self._names: list[str] = []
        self._mean: AveragedModel | None = None

    def put_among(self, callbacks: list[TrainerCallback]) -> None:
        """Behind what brings its state back, and before others, which may save the model at the end of the training.

        Raises:
            ValueError: weights are averaged already.
        """
        if any(isinstance(callback, WeightAveraging) for callback in callbacks):
            raise ValueError(
                "Weights are averaged once: set swa_start, or pass a WeightAveraging callback, but not both."
            )
        callbacks.insert(1, self)

    @property
    def settings(self) -> dict[str, Any]:
        """As a run states them."""
        return {"start": self.start, "interval": self.interval}

    @property
    def count(self) -> int:
        """How many models the mean is of."""
        return 0 if self._mean is None else int(self._mean.n_averaged)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.load_best_model_at_end:
            raise ValueError(
                "load_best_model_at_end=True does not go with weight averaging: the mean would take the place of the best "
                "checkpoint. Set it to False."
            )
        if state.global_step == 0:
            self._mean = None
        self._every = int(self.interval or _steps_per_epoch(args, kwargs["train_dataloader"]))
        self._check(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._averages_after(state.global_step, state.max_steps):
            self._take(kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._mean is None:
            logger.warning("The training stopped before any weights were averaged: the model keeps its last ones.")
            return
        model = kwargs["model"]
        with torch.no_grad():
            for name, mean in zip(self._names, self._mean.module.parameters(), strict=True):
                model.get_parameter(name).copy_(mean)
        settle(model)
        loader = kwargs["train_dataloader"]
        with random_numbers_of(random_state(args.device), args.device):  # afterwards generators are as before
            torch.manual_seed(args.seed)  # the same batches and dropout masks whether the run was resumed or not
            if isinstance(loader, DataLoaderShard | DataLoaderDispatcher):
                loader.set_epoch(max(math.ceil(state.epoch) - 1, 0))
            refresh_batch_norm(model, _batches(args, loader), args.label_names or ["labels"])

    def save_state(self, folder: Path, args: TrainingArguments) -> None:
        state = self.mean_state()
        if state is not None and args.should_save:
            torch.save(state, folder / _FILE_NAME)

    def load_state(self, folder: Path | None, args: TrainingArguments, model: nn.Module) -> None:
        file = None if folder is None else folder / _FILE_NAME
        self.load_mean_state(load_tensors(file, args.device) if file and file.is_file() else None, model)

    def mean_state(self) -> dict[str, Any] | None:
        """The running mean, as tensors; None before there is any."""
        return None if self._mean is None else {"names": self._names, "mean": self._mean.state_dict()}

    def load_mean_state(self, saved: dict[str, Any] | None, model: nn.Module) -> None:
        """The inverse of `mean_state`."""
        self._mean = None
        if saved is None:
            return
        self._names = list(saved["names"])
        self._mean = AveragedModel(self._current(model))
        self._mean.load_state_dict(saved["mean"])

    def _take(self, model: nn.Module) -> None:
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        if self._mean is None:
            self._names = trained
            self._mean = AveragedModel(self._current(model))
        elif not set(trained) <= set(self._names):
            thawed = next(name for name in trained if name not in self._names)
            raise ValueError(
                f"{thawed!r} was thawed while weights are averaged, so that its mean would lack the first ones. Thaw it "
                f"before start={self.start} of the training, or average from a later start."
            )
        self._mean.update_parameters(self._current(model))

    def _current(self, model: nn.Module) -> nn.ParameterList:
        """In float32 at least: bfloat16 cannot hold the small differences between a mean and the next one."""
        return nn.ParameterList(wide(model.get_parameter(name).detach()) for name in self._names)

    def _averages_after(self, step: int, max_steps: int) -> bool:
        return step % self._every == 0 and step / max_steps >= self.start

    def _check(self, state: Any) -> None:
        last = state.max_steps - state.max_steps % self._every
        if not last or not self._averages_after(last, state.max_steps):
            raise ValueError(
                f"Weights would never be averaged: of {state.max_steps} steps, none from start={self.start} on is a "
                f"multiple of {self._every} ({'interval' if self.interval else 'one epoch'}). Set a smaller interval "
                "(swa_interval), or start earlier (swa_start)."
            )
        done = range(self._every, state.global_step + 1, self._every)
        expected = sum(self._averages_after(step, state.max_steps) for step in done)
        if self.count != expected:
            raise ValueError(
                f"The checkpoint is resumed at step {state.global_step}, where {expected} models should have been averaged, "
                f"but its mean is of {self.count}. Resume with DurableTrainer or LTSamTrainer, from a checkpoint of a run "
                "with the same start and interval."
            )


def refresh_batch_norm(model: nn.Module, batches: Iterable[dict[str, Any]], label_names: Iterable[str]) -> None:
    """Running statistics anew, as the mean over these batches of the training set; nothing without batch norm.

    A batch norm that is in evaluation mode in training too (`train_only`) keeps its own, which `update_bn` has cleared.
    """
    labels = set(label_names)
    before = {part: deepcopy(dict(part.named_buffers())) for part in model.modules() if isinstance(part, _BatchNorm)}
    inputs = ({name: value for name, value in batch.items() if name not in labels} for batch in batches)
    update_bn(inputs, _TakesOne(model))
    average_running_statistics(model)
    for part, buffers in before.items():
        if part.num_batches_tracked is not None and not part.num_batches_tracked:
            part.load_state_dict(buffers, strict=False)


class _TakesOne(nn.Module):
    """torch's `update_bn` calls a model with one positional argument."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Any]) -> Any:
        return self.model(**inputs)


def _steps_per_epoch(args: Any, loader: Any) -> int:
    if not has_length(loader):
        raise ValueError(
            "Weights are to be averaged at the end of every epoch, but the training set has no length: set swa_interval, a "
            "number of steps."
        )
    return max(math.ceil(len(loader) / args.gradient_accumulation_steps), 1)


def _batches(args: Any, loader: Any) -> Iterable[dict[str, Any]]:
    """One epoch; of a training set without an end, as much as the training has seen."""
    return loader if has_length(loader) else islice(loader, args.max_steps * args.gradient_accumulation_steps)
