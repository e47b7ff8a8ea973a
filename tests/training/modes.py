"""Small trainings in every mode: what the loss is made of, and what reaches into the passes.

RANK=0 WORLD_SIZE=2 ... python modes.py FOLDER trains each on two processes and leaves its weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import SequentialSampler
from transformers import BertConfig

from hf_ltsam import LTSamConfig, LTSamTrainer

METHOD = "momentum_focal_sam"  # where a mode has no other
LABELS = [0, 1, 0, 2, 0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1]
GENERATOR = torch.Generator().manual_seed(0)
TOKENS = torch.randint(20, (16, 6), generator=GENERATOR)
VECTORS = torch.randn(16, 6, generator=GENERATOR)
SHARES = torch.rand(16, 3, generator=GENERATOR) + F.one_hot(torch.tensor(LABELS), 3)
SHARES = SHARES / SHARES.sum(1, keepdim=True)
SEVERAL = ((SHARES > 0.3) | (torch.rand(16, 3, generator=GENERATOR) < 0.2)).float()


class Words(nn.Module):
    """input_ids (n, 6) -> logits (n, 3), and the loss where labels are given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.middle, self.classifier = nn.Embedding(20, 6), nn.Linear(6, 8), nn.Linear(8, 3)
        self.config = BertConfig()

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, labels=None):
        logits = self.classifier(torch.tanh(self.middle(self.embedding(input_ids).mean(1))))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Plain(nn.Module):
    """x (n, 6) -> logits (n, 3)"""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x):
        return self.body(x)


def rows(inputs, labels):
    name = "x" if inputs is VECTORS else "input_ids"
    return [{name: x, "labels": y} for x, y in zip(inputs, labels)]


# mode -> model, rows, settings
MODES = {
    'loss="model"': (Words, rows(TOKENS, LABELS), {"loss": "model", "method": "msam"}),
    "soft labels": (Plain, rows(VECTORS, SHARES), {}),
    "mixup": (Plain, rows(VECTORS, LABELS), {"mixup_alpha": 1.0}),
    "several labels": (Plain, rows(VECTORS, SEVERAL), {"loss": "binary_cross_entropy", "loss_args": {"tau": 1.0}}),
    "label smoothing": (Words, rows(TOKENS, LABELS), {"label_smoothing_factor": 0.2}),
    "NEFTune": (Words, rows(TOKENS, LABELS), {"neftune_noise_alpha": 5.0}),
    "torch_compile": (Plain, rows(VECTORS, LABELS), {"torch_compile": True, "torch_compile_backend": "eager"}),
    "auto_find_batch_size": (
        Plain,
        rows(VECTORS, LABELS),
        {"auto_find_batch_size": True, "ascent_size": 4, "ascent_scope": "step"},
    ),
}
# what is drawn for each micro-batch: several of them are not one large one
DRAWN = {"mixup", "NEFTune"}
# the other batch size of these would be the one that is found
FIXED = {"auto_find_batch_size"}


class InOrder(LTSamTrainer):
    """The samples as they come."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)


def trainer_of(mode, folder, dtype=torch.float64, kind=LTSamTrainer, batch=4, **changes):
    model, data, settings = MODES[mode]
    data = [{k: v.to(dtype) if k == "x" else v for k, v in row.items()} for row in data]
    args = {
        "output_dir": str(folder),
        "max_steps": 6,
        "per_device_train_batch_size": batch,
        "learning_rate": 0.5,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "ddp_backend": "gloo" if "RANK" in os.environ else None,
        "method": METHOD,
        **settings,
        **changes,
    }
    return kind(model().to(dtype), LTSamConfig(**args), train_dataset=data)


def weights_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {}
    for mode in MODES:
        trainer = trainer_of(mode, folder / "run", kind=InOrder, max_steps=3, ascent_scope="step")
        trainer.train()
        results[mode] = weights_of(trainer)
    torch.save(results, folder / f"rank{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()
