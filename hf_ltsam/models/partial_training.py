"""Training of chosen weights, such as the upper blocks of a pretrained model; the rest stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn

from hf_ltsam.hyperparameters import did_you_mean


def train_only(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freeze all weights but the chosen ones, in place.

    Modules without a trained weight are in evaluation mode from now on, in training too: no dropout, and batch norm keeps
    the statistics it has.

    Args:
        patterns: names in `model.named_parameters()`, with * for any text: "classifier.*", "bert.encoder.layer.[45].*".

    Returns:
        The names of the trained weights.

    Raises:
        ValueError: a pattern that no weight matches.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = did_you_mean(pattern, names)
            raise ValueError(f"train_only={pattern!r} matches no weight of {type(model).__name__}.{close}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
    frozen = tuple(name for name, part in model.named_modules() if name and _is_frozen(part))
    model.register_forward_pre_hook(partial(_rest, frozen))
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _rest(frozen: Sequence[str], model: nn.Module, _: Any) -> None:
    """`model.train()` reaches all modules; this takes the frozen ones back."""
    for name in frozen if model.training else ():
        model.get_submodule(name).eval()
