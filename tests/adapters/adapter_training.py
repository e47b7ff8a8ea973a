"""A short training of an adapted model: images without structure, 5 classes with a long tail."""

from __future__ import annotations

import torch
from adapters.tiny import NUM_CLASSES
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer

COUNTS = [50, 20, 10, 4, 2]
TAIL_THRESHOLD = 10
BATCH_LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4])
BATCH = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(11), dtype=torch.float64)


class OneBatch(IterableDataset):
    """Always the same batch in the same order."""

    def __iter__(self):
        yield from ({"pixel_values": x, "labels": int(y)} for x, y in zip(BATCH, BATCH_LABELS))


class Pictures(Dataset):
    """Noise that the data set draws itself, on top of a picture per class."""

    def __init__(self) -> None:
        self.labels = [c for c in range(NUM_CLASSES) for _ in range(COUNTS[c] // 2)]
        self.means = torch.randn(NUM_CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(2))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        c = self.labels[index]
        return {"pixel_values": self.means[c] + torch.randn(3, 8, 8), "labels": c}


def trainer_of(model: nn.Module, folder, dataset, method, eval_dataset=None, **settings) -> LTSamTrainer:
    args = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "tail_threshold": TAIL_THRESHOLD,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "seed": 3,
        **settings,
    }
    statistics = ClassStatistics(COUNTS, tail_threshold=TAIL_THRESHOLD) if isinstance(dataset, OneBatch) else None
    return LTSamTrainer(
        model,
        LTSamConfig(**args),
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        class_statistics=statistics,
        method=method,
    )
