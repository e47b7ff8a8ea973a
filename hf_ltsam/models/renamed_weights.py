"""Checkpoints that name their weights differently from the model."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def load_renamed(model: nn.Module, folder: str | os.PathLike[str]) -> bool:
    """Load a checkpoint that names its weights differently from the model; False, and nothing loaded, for any other.

    transformers saves some architectures (ViT, DINOv2) under the names of its earlier versions. `from_pretrained` translates
    them back, but the stock Trainer does not: it would continue with the weights that the model happens to have.
    """
    if not isinstance(model, PreTrainedModel):
        return False
    names = _saved_names(Path(folder))
    if not names or names <= set(model.state_dict()):
        return False
    widest = max((p.dtype for p in model.parameters()), key=lambda dtype: dtype.itemsize)
    model.load_state_dict(type(model).from_pretrained(folder, dtype=widest).state_dict())
    return True


def _saved_names(folder: Path) -> set[str]:
    """The names of the weights in a folder, of one file or several; none without such files."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        with safe_open(folder / SAFE_WEIGHTS_NAME, framework="pt") as file:
            return set(file.keys())
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    return set(json.loads(index.read_text())["weight_map"]) if index.is_file() else set()
