"""Train many steps and look for memory that grows with them.

    python benchmarks/soak.py --steps 2000

For every method: resident memory of the process, live tensors and live Python objects, after a tenth of the steps and at
the end. On a GPU its allocated memory takes the place of the resident one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer

METHODS = ("sgd", "sam", "looksam", "msam", "friendly_sam", "sse_sam", "focal_sam", "cc_sam", "lpf_sgd")


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    step: int
    megabytes: float
    tensors: int
    objects: int

    @classmethod
    def at(cls, step: int) -> Held:
        gc.collect()
        objects = gc.get_objects()
        return cls(step, _megabytes(), sum(type(o) is torch.Tensor for o in objects), len(objects))


def _megabytes() -> float:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Images(Dataset):
    """100 random images of 10 classes with a tail."""

    def __init__(self) -> None:
        self.labels = [c for c, n in enumerate((30, 20, 14, 10, 8, 6, 5, 3, 2, 2)) for _ in range(n)]
        self.images = torch.randn(len(self.labels), 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


class Watches(TrainerCallback):
    def __init__(self, steps: Sequence[int]) -> None:
        self.steps, self.held = steps, []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.steps:
            self.held.append(Held.at(state.global_step))


def soak(method: str, steps: int, folder: str) -> list[Held]:
    """What is held after a tenth of the steps, after half of them and at the end; logs and checkpoints on the way."""
    torch.manual_seed(0)
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=10))
    args = LTSamConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=0.01,
        optim="sgd",
        optim_args="momentum=0.9",
        lr_scheduler_type="cosine",
        max_grad_norm=0.0,
        method=method,
        tail_threshold=5,
        save_steps=max(steps // 4, 1),
        save_total_limit=1,
        logging_steps=max(steps // 100, 1),
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    watches = Watches((steps // 10, steps // 2, steps))
    trainer = LTSamTrainer(model, args, train_dataset=Images(), callbacks=[watches, Silent()])
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    return watches.held


class Silent(TrainerCallback):
    """The history of logs is the user's and grows; what is watched here is everything else."""

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.log_history.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="per method")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    for method in arguments.methods:
        with tempfile.TemporaryDirectory() as folder:
            early, half, late = soak(method, arguments.steps, folder)
        grown = {
            "MB": round(late.megabytes - early.megabytes, 2),
            "MB in the second half": round(late.megabytes - half.megabytes, 2),
            "tensors": late.tensors - early.tensors,
            "objects": late.objects - early.objects,
        }
        steps = f"from step {early.step} to {late.step}"
        print(f"{method}, {late.megabytes:.0f} MB: grown {steps} by {json.dumps(grown)}", flush=True)


if __name__ == "__main__":
    main()
