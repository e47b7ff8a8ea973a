"""A training with nothing of this library but `DurableTrainer`, which a signal can end in a process of its own."""

from __future__ import annotations

import sys

import torch
from torch import nn
from training.killed_runs import dies_in
from training.noisy_run import Model
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hf_ltsam import DurableTrainer


class WithLoss(Model):
    """As the stock Trainer wants it; batch norm and dropout inside."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


FORWARD = "training.plain_run.WithLoss.forward"


def vectors(n=22):
    """The same whoever reads them: nothing is random."""
    generator = torch.Generator().manual_seed(5)
    return [{"x": torch.randn(5, generator=generator), "labels": i % 3} for i in range(n)]


def trainer(folder, kind=DurableTrainer, data=None, callbacks=None, **settings):
    given = {
        "output_dir": str(folder),
        "num_train_epochs": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "save_strategy": "steps",
        "save_steps": 4,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        **settings,
    }
    return kind(
        WithLoss(),
        TrainingArguments(**given),
        train_dataset=vectors() if data is None else data,
        callbacks=callbacks,
    )


def train(folder, death, settings):
    """What a process does: go on from the last checkpoint, and leave its weights."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = (folder.parent / f"{folder.name}.log").open("a", buffering=1)
    made = trainer(folder, **settings)
    if death is not None:
        dies_in(*death)
    made.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    torch.save(made.model.state_dict(), folder / "weights.pt")
