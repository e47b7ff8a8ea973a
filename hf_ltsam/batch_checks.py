"""What the number of samples and the batch size make of the last batch, said before the first epoch is spent."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def check_not_empty(dataset: Any) -> None:
    """Refuse a training set without samples.

    Raises:
        ValueError: it has the length 0.
    """
    if isinstance(dataset, Sized) and len(dataset) == 0:
        raise ValueError("The training set is empty: it has no sample. Look at what selected or filtered it.")


def check_batches(num_samples: int, batch_size: int, processes: int, drop_last: bool, model: nn.Module) -> str | None:
    """A warning of a last batch that batch norm cannot normalise, or None.

    Args:
        batch_size: of one process. Several processes fill their last batches up.

    Raises:
        ValueError: `dataloader_drop_last` drops the only batch.
    """
    if drop_last and num_samples < batch_size * processes:
        raise ValueError(
            f"dataloader_drop_last=True leaves nothing of {num_samples} training samples in batches of "
            f"{batch_size * processes}: set it to False, or per_device_train_batch_size to at most "
            f"{num_samples // processes}."
        )
    last = num_samples % batch_size
    if processes > 1 or drop_last or last != 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return None
    return (
        f"{num_samples} samples in batches of {batch_size} leave a last batch of one. Batch norm has nothing to normalise "
        "there, or fails after all other steps of the epoch: choose another per_device_train_batch_size, or set "
        "dataloader_drop_last=True."
    )
