"""Model and batches in channels-last order, where convolutions are faster; the numbers and the files stay what they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from .config import LTSamConfig


class TrainsChannelsLast(Trainer):
    """The stock Trainer, which keeps images and weights of convolutions in channels-last order if `channels_last` is set."""

    args: LTSamConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.channels_last:
            in_channels_last(self.model)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        model = super().call_model_init(trial)
        return in_channels_last(model) if self.args.channels_last else model

    def _prepare_input(self, data: Any) -> Any:
        data = super()._prepare_input(data)
        if self.args.channels_last and isinstance(data, Tensor) and data.ndim == 4:
            return data.contiguous(memory_format=torch.channels_last)
        return data

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As stock; files hold tensors in the usual order, whatever this training makes of them."""
        if self.args.channels_last:
            given = self.model.state_dict() if state_dict is None else state_dict
            state_dict = {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in given.items()}
        super()._save(output_dir, state_dict)


def in_channels_last(model: nn.Module) -> nn.Module:
    """The model itself, its weights of four dimensions in channels-last order."""
    return model.to(memory_format=torch.channels_last)
