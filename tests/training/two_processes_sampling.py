"""Run by two processes: trains with class-aware sampling, resumes in mid-epoch, and leaves what every rank saw in a folder.

RANK=0 WORLD_SIZE=2 ... python two_processes_sampling.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset
from transformers import TrainerCallback

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer

COUNTS = [26, 8, 5, 3]  # 42: no whole number of batches of 4 or 8


class Points(Dataset):
    def __init__(self):
        self.labels = [c for c, n in enumerate(COUNTS) for _ in range(n)]
        self.x = torch.randn(42, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 42

    def __getitem__(self, index):
        return {"input": self.x[index] + torch.randn(6) / 10, "labels": self.labels[index]}


class Stream(IterableDataset):
    def __iter__(self):
        points = Points()
        return (points[int(i)] for i in torch.randperm(42, generator=torch.Generator().manual_seed(1)))


class Recorder(TrainerCallback):
    """Keeps what the model was given."""

    def __init__(self):
        self.seen, self.labels = [], []

    def watch(self, trainer):
        step = trainer.training_step

        def recorded(model, inputs, num_items_in_batch=None):
            self.labels.append(inputs["labels"].clone())
            self.seen.append(next(v for k, v in inputs.items() if k != "labels").clone())
            return step(model, inputs, num_items_in_batch)

        trainer.training_step = recorded


def trainer_of(data: str, folder: Path, batch_size: int = 4) -> LTSamTrainer:
    args = LTSamConfig(
        output_dir=str(folder / data),
        max_steps=12,
        per_device_train_batch_size=batch_size,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo" if "RANK" in os.environ else None,
        save_strategy="steps",
        save_steps=7,
        logging_strategy="no",
        method="sgd",
        sampling="class_aware" if data == "points" else "class_balanced",
    )
    torch.manual_seed(0)
    dataset = Points() if data == "points" else Stream()
    trainer = LTSamTrainer(nn.Linear(6, 4), args, train_dataset=dataset, class_statistics=ClassStatistics(COUNTS))
    trainer.recorder = Recorder()
    trainer.recorder.watch(trainer)
    return trainer


def run(data: str, folder: Path) -> dict:
    whole, resumed = trainer_of(data, folder), trainer_of(data, folder)
    whole.train()
    resumed.train(resume_from_checkpoint=str(folder / data / "checkpoint-7"))
    return {
        "seen": whole.recorder.seen,
        "state": whole.model.state_dict(),
        "resumed": resumed.recorder.seen,
        "resumed_state": resumed.model.state_dict(),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {data: run(data, folder) for data in ("points", "stream")}
    torch.save(results, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
