"""Run by two processes: trains and leaves weights, gradients and batches of every rank in a folder.

    RANK=0 WORLD_SIZE=2 ... python two_processes.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_ltsam import LTSamConfig, LTSamTrainer


class Points(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels = [i % 4 if i < 12 else 0 for i in range(32)]
        self.x = torch.randn(32, 6, dtype=torch.float64, generator=generator)

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return {"input": self.x[index], "labels": self.labels[index]}


def model(batch_norm: bool) -> nn.Module:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(7)] if batch_norm else []
    return nn.Sequential(nn.Linear(6, 7), *middle, nn.Tanh(), nn.Linear(7, 4)).double()


class Recording(LTSamTrainer):
    """Keeps the batches it was given and the gradients that the optimizer was given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = []
        self.gradients = []
        self.weights = []
        self.add_callback(_Gradients(self))

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.batches.append((inputs["input"].clone(), inputs["labels"].clone()))
        self.weights.append([p.detach().clone() for p in self.model.parameters()])
        return super().training_step(model, inputs, num_items_in_batch)


class _Gradients(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args, state, control, **_):
        self.trainer.gradients.append([p.grad.clone() for p in self.trainer.model.parameters()])


def run(
    folder: Path, batch_norm: bool, accumulation: int, method: str = "focal_sam", swa_start: float | None = None,
    **method_args: float,
) -> dict:
    args = LTSamConfig(
        output_dir=str(folder), max_steps=3, per_device_train_batch_size=4, gradient_accumulation_steps=accumulation,
        learning_rate=0.1, report_to="none", disable_tqdm=True, use_cpu=True, ddp_backend="gloo", save_strategy="no",
        logging_strategy="no", method=method, method_args=method_args,
        swa_start=swa_start, swa_interval=None if swa_start is None else 1,
    )
    trainer = Recording(model(batch_norm), args, train_dataset=Points())
    trainer.train()
    return {
        "batches": trainer.batches, "gradients": trainer.gradients, "weights": trainer.weights,
        "state": trainer.model.state_dict(), "counts": trainer.class_statistics.counts,
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {
        (batch_norm, accumulation): run(folder, batch_norm, accumulation)
        for batch_norm in (False, True) for accumulation in (1, 2)
    }
    results["pgd"] = run(folder, False, 2, "pgd", sigma=0.5)
    results["averaged"] = run(folder, True, 1, "sam", swa_start=0.0)
    torch.save(results, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
