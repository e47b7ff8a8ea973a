"""Checkpoints whose weights have other names than the model's."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def load_renamed(model: nn.Module, folder: str | os.PathLike[str]) -> bool:
    """Load a checkpoint whose weights have other names than the model's, and say whether it was one.

    transformers saves some architectures (ViT, DINOv2) under the names of its earlier versions. `from_pretrained` translates
    them back, but the stock Trainer does not: it would go on with the weights that the model happens to have.
    """
    if not isinstance(model, PreTrainedModel):
        return False
    saved = _saved_names(Path(folder))
    if not saved or saved <= set(model.state_dict()):
        return False
    widest = max((p.dtype for p in model.parameters()), key=lambda dtype: dtype.itemsize)
    model.load_state_dict(type(model).from_pretrained(folder, dtype=widest).state_dict())
    return True


def _saved_names(folder: Path) -> set[str]:
    """The names in the weights of a folder, in one file or several; none where there are no such files."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        with safe_open(folder / SAFE_WEIGHTS_NAME, framework="pt") as file:
            return set(file.keys())
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    return set(json.loads(index.read_text())["weight_map"]) if index.is_file() else set()
