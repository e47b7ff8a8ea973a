"""Spectral normalisation of chosen layers, through torch's own parametrization.

W becomes W / sigma(W), with sigma the largest singular value of W as a matrix, as the power iteration estimates it (Miyato
et al. 2018): a linear layer then stretches no vector. W is trained. The quotient is saved, under the layer's ordinary name:
`from_pretrained` sees an ordinary model and needs nothing of this library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm

from hf_ltsam.hyperparameters import COUNT, nearest, require

FILE_NAME = "spectral_norm.pt"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Power iterations after weights were replaced: torch's number for a new layer
_SETTLING = 15


def normalise_spectrally(model: nn.Module, patterns: Sequence[str], iterations: int = 5) -> list[str]:
    """Divide the weights of chosen linear and convolutional layers by their largest singular value, in place.

    Args:
        patterns: names of layers in `model.named_modules()`, with * for any text: "classifier", "resnet.layers.2.*".
        iterations: of the power method in every training pass, >= 1 (Zhou et al. 2023b C.2: 5).

    Returns:
        The names of the layers.

    Raises:
        ValueError: a pattern that no layer matches.
    """
    require(COUNT, "normalise_spectrally", iterations=iterations)
    layers = {name: m for name, m in model.named_modules() if name and isinstance(m, _LAYERS)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ValueError(
                f"Spectral normalisation: {pattern!r} matches no linear or convolutional layer of "
                f"{type(model).__name__}.{nearest(pattern, layers)}"
            )
    normalised = normalised_layers(model)
    chosen = [n for n in layers if n not in normalised and any(fnmatchcase(n, pattern) for pattern in patterns)]
    for name in chosen:
        spectral_norm(layers[name], n_power_iterations=int(iterations))
        layers[name].register_load_state_dict_pre_hook(_take_folded)
    return chosen


def normalised_layers(model: nn.Module) -> dict[str, _SpectralNorm]:
    """Name -> parametrization of every layer with a spectrally normalised weight."""
    return {
        name: m.parametrizations["weight"][0]
        for name, m in model.named_modules()
        if parametrize.is_parametrized(m, "weight") and isinstance(m.parametrizations["weight"][0], _SpectralNorm)
    }


@contextmanager
def power_iterations_at_rest(model: nn.Module) -> Iterator[None]:
    """Estimate sigma with the present singular vectors: torch moves them whenever a weight is read in training."""
    moving = [m for m in model.modules() if isinstance(m, _SpectralNorm) and m.training]
    try:
        for module in moving:
            module.training = False
        yield
    finally:
        for module in moving:
            module.training = True


@torch.no_grad()
def folded_state(model: nn.Module, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """The state of the same model without parametrizations, bit for bit the weights of its evaluation mode.

    Args:
        state: of the model; None: `model.state_dict()`.
    """
    state = dict(model.state_dict() if state is None else state)
    with power_iterations_at_rest(model):
        for name, norm in normalised_layers(model).items():
            parts = _parts(state, name)
            for key in parts:
                del state[key]
            state[f"{name}.weight"] = norm(parts[_original(name)])
    return state


def fold(model: nn.Module) -> None:
    """Make it an ordinary model, in place: needed before it is saved without the trainer."""
    for name in normalised_layers(model):
        layer = model.get_submodule(name)
        with power_iterations_at_rest(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def settle(model: nn.Module) -> None:
    """Let the power iteration catch up after weights were replaced."""
    for name, norm in normalised_layers(model).items():
        weight = model.get_parameter(_original(name)).detach()
        norm._power_method(norm._reshape_weight_to_matrix(weight), _SETTLING)


def save_originals(model: nn.Module, folder: str | Path) -> None:
    """Save W and its singular vectors, which a resumed training needs beside the folded weights; no file without any."""
    state = model.state_dict()
    originals = {key: value for name in normalised_layers(model) for key, value in _parts(state, name).items()}
    if originals:
        torch.save(originals, Path(folder) / FILE_NAME)


def load_originals(model: nn.Module, folder: str | Path) -> None:
    """The inverse of `save_originals`; in a folder without its file, the folded weights serve as W."""
    if not normalised_layers(model):
        return
    file = Path(folder) / FILE_NAME
    if file.is_file():
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), strict=False)
    else:
        settle(model)


def check_checkpointing(model: nn.Module, checkpointing: bool) -> None:
    """Refuse activation checkpointing, which reads weights twice while the power iteration moves them.

    Raises:
        ValueError: the model has normalised layers and checkpoints its activations.
    """
    if checkpointing and normalised_layers(model):
        raise ValueError(
            "activation_checkpointing=True does not go with spectral normalisation: the repeated forward pass would see "
            "weights that the power iteration has moved. Switch one of them off."
        )


def _original(name: str) -> str:
    return f"{name}.parametrizations.weight.original"


def _parts(state: dict[str, Any], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(f"{name}.parametrizations.weight.")}


def _take_folded(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a normalised layer load an ordinary weight, as `folded_state` returns it, as its W."""
    if f"{prefix}weight" in state and f"{prefix}parametrizations.weight.original" not in state:
        for name, buffer in module.named_buffers():
            state.setdefault(f"{prefix}{name}", buffer.clone())
        state[f"{prefix}parametrizations.weight.original"] = state.pop(f"{prefix}weight")
