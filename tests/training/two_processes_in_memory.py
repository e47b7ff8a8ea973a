"""Run by two processes: trains on in-memory images, resumes in mid-epoch, and leaves what every rank saw in a folder.

RANK=0 WORLD_SIZE=2 ... python two_processes_in_memory.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.data.in_memory.images import InMemoryImages

COUNTS = [24, 10, 6]  # 40: five steps of eight


class Flat(nn.Module):
    """pixel_values (n, 3, 6, 6) -> logits (n, 3)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.classifier = nn.Conv2d(3, 4, 3), nn.Linear(64, 3)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.conv(pixel_values)).flatten(1))


def numbered(augment=True, **settings) -> InMemoryImages:
    """Image k holds k + 1 everywhere, so that a pixel of its centre tells which one it is."""
    images = torch.arange(1, 41, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 3, 6, 6)
    labels = [c for c, n in enumerate(COUNTS) for _ in range(n)]
    return InMemoryImages(images, labels, [0.0] * 3, [1 / 255] * 3, augment, seed=5, crop_padding=1, **settings)


def trainer_of(folder: Path, dataset, batch_size: int = 4, steps: int = 10, **settings) -> LTSamTrainer:
    given = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 1e-4,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "steps",
        "save_steps": 7,
        "ddp_backend": "gloo" if "RANK" in os.environ else None,
        "logging_strategy": "no",
        "method": "sgd",
        **settings,
    }
    collator, evaluated = given.pop("data_collator", None), given.pop("eval_dataset", None)
    trainer = LTSamTrainer(
        Flat(),
        LTSamConfig(**given),
        data_collator=collator,
        train_dataset=dataset,
        eval_dataset=evaluated,
        class_statistics=ClassStatistics(COUNTS),
    )
    trainer.seen = []
    step = trainer.training_step

    def recorded(model, inputs, num_items_in_batch=None):
        trainer.seen.append(inputs["pixel_values"].clone())
        return step(model, inputs, num_items_in_batch)

    trainer.training_step = recorded
    return trainer


def run(folder: Path) -> dict:
    whole, resumed = trainer_of(folder, numbered()), trainer_of(folder, numbered())
    whole.train()
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-7"))
    last = trainer_of(folder / "last", numbered(), channels_last=True, save_strategy="no")
    last.train()
    return {
        "seen": whole.seen,
        "state": whole.model.state_dict(),
        "resumed": resumed.seen,
        "resumed_state": resumed.model.state_dict(),
        "channels_last_state": last.model.state_dict(),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.save(run(folder / "run"), folder / f"rank{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()
