"""A small training whose data set draws random numbers in `__getitem__`; run as a script, it kills itself.

python noisy_run.py OUTPUT_DIR WORKERS METHOD KILL_AT_STEP
"""

from __future__ import annotations

import os
import random
import signal
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_ltsam import LTSamConfig, LTSamTrainer

COUNTS = [12, 7, 3]
METHOD_ARGS = {"sse_sam": {"rho_head": 0.05, "rho_tail": 0.1, "gamma": 0.5}, "focal_sam": {"rho": 0.1}}


class Noisy(Dataset):
    """Vectors with noise from all three global generators."""

    def __init__(self, num_classes=3):
        self.labels = [c for c in range(num_classes) for _ in range(COUNTS[c])]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        noise = torch.randn(5) + torch.from_numpy(np.random.randn(5)).float() + random.gauss(0, 1)
        return {"x": noise + self.labels[index], "labels": self.labels[index]}


class Model(nn.Module):
    """Batch norm and dropout: running statistics and the trainer's own random numbers must resume too."""

    def __init__(self, num_classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, num_classes)
        )

    def forward(self, x):
        return self.body(x)


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def noisy_trainer(
    folder,
    workers=0,
    method="sam",
    callbacks=None,
    num_classes=3,
    eval_dataset=None,
    compute_metrics=None,
    kind=LTSamTrainer,
    **settings,
):
    threshold = 6 if method in {"sse_sam", "sam_ext", "imbsam"} else None
    args = {
        "output_dir": str(folder),
        "num_train_epochs": 4,
        "per_device_train_batch_size": 4,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "save_strategy": "steps",
        "save_steps": 4,
        "save_run": False,  # checkpoints alone
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        "dataloader_num_workers": workers,
        "method": method,
        "method_args": METHOD_ARGS.get(method),
        "tail_threshold": threshold,
        "reweighting": "effective_number",
        "reweighting_start": 0.5,
        "logging_steps": 3,
        "dataloader_pin_memory": False,
        **settings,
    }
    return kind(
        Model(num_classes),
        LTSamConfig(**args),
        train_dataset=Noisy(num_classes),
        eval_dataset=eval_dataset,
        callbacks=callbacks,
        compute_metrics=compute_metrics,
    )


if __name__ == "__main__":
    folder, workers, method, step = sys.argv[1:]
    noisy_trainer(folder, int(workers), method, [KillAt(int(step))]).train()
