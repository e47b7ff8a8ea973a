"""A small problem whose first stage favours frequent classes: points around class centres, a network with batch norm.

Run as a script it trains a second stage and kills itself: python problem.py FIRST_STAGE OUT STAGE KILL_AT_STEP
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import TrainerCallback

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, ClassStatistics, LTSamConfig
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.training.second_stage import SecondStageTrainer, make_second_stage

COUNTS = (80, 40, 20, 8)
STATISTICS = ClassStatistics(COUNTS, many_above=50, few_below=25)


def images(counts=COUNTS, seed=0, augment=True):
    """Noise with a class-dependent square, uint8 (N, 3, 8, 8)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = rng.integers(0, 256, (len(labels), 3, 8, 8))
    for i, c in enumerate(labels):
        pixels[i, :, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] //= 3
        pixels[i, :, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] += 120
    pixels = torch.tensor(pixels, dtype=torch.uint8)
    return InMemoryImages(
        pixels, torch.tensor(labels), [0.5] * 3, [0.25] * 3, augment, seed=seed, crop_padding=1, flip=False
    )


def network(head="linear", seed=0):
    torch.manual_seed(seed)
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, width=4, num_labels=4, head=head))
    if head == "linear":
        torch.nn.init.normal_(model.classifier.bias, std=0.1)
    for module in model.modules():  # running statistics unlike those of any batch
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def second_stage(model, out, stage="crt", train_dataset=None, callbacks=None, stage_args=None, **settings):
    args = LTSamConfig(**{
        "output_dir": str(out), "num_train_epochs": 3, "per_device_train_batch_size": 16, "optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.0, "lr_scheduler_type": "cosine", "learning_rate": 0.1, "method": "sgd",
        "sampling": "class_aware", "save_strategy": "steps", "save_steps": 5, "report_to": "none", "disable_tqdm": True,
        "use_cpu": True, "logging_steps": 5, "seed": 3, **settings,
    })  # fmt: skip
    data = images() if train_dataset is None else train_dataset
    return SecondStageTrainer(
        model,
        make_second_stage(stage, **(stage_args or {})),
        args,
        data,
        images((10,) * 4, 1, False),
        STATISTICS,
        callbacks=callbacks,
    )


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    first, out, stage, step = sys.argv[1:]
    model = CifarResNetForImageClassification.from_pretrained(Path(first))
    second_stage(model, out, stage, callbacks=[KillAt(int(step))]).train()
