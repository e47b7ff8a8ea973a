"""The toy problem of the golden numbers, and a trainer around any small model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer

LABELS = [[0, 0, 0, 0, 1, 1, 2, 3], [0, 1, 0, 2, 0, 1, 3, 0]]  # of step 1 and step 2
STATISTICS = ClassStatistics([500, 120, 20, 5], tail_threshold=20)


class Toy(nn.Module):
    """x (n, 3) -> tanh(fc1) (n, 5) -> classifier (n, 4); the k-th parameter holds 0.5 sin(arange + 10 k)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(3, 5, dtype=torch.float64)
        self.classifier = nn.Linear(5, 4, dtype=torch.float64)
        with torch.no_grad():
            for k, p in enumerate(self.parameters(), start=1):
                p.copy_(0.5 * torch.sin(torch.arange(p.numel(), dtype=torch.float64) + 10 * k).view(p.shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.tanh(self.fc1(x)))

    def flat(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters()])


class ToyBatches(IterableDataset):
    """The inputs of step s are sin(1 + 100 s + arange), its samples one after another."""

    def __iter__(self):
        for s, labels in enumerate(LABELS):
            x = torch.sin(1 + 100 * s + torch.arange(24, dtype=torch.float64)).view(8, 3)
            for row, label in zip(x, labels):
                yield {"x": row, "labels": label}


def toy_trainer(folder, method, model=None, callbacks=None, **settings) -> LTSamTrainer:
    args = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.1,
        "weight_decay": 0.001,
        "decay_all_parameters": True,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_strategy": "no",
        **settings,
    }
    return LTSamTrainer(
        model=Toy() if model is None else model,
        args=LTSamConfig(**args),
        train_dataset=ToyBatches(),
        class_statistics=STATISTICS,
        method=method,
        callbacks=callbacks,
    )
