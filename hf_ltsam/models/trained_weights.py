"""Which weights of a model are trained, and whether their type and their optimizer let them be."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

SINGLE = torch.float32
NAMES_SHOWN = 3


def trained_parameters(model: nn.Module, optimizer: Any = None, of_loss: bool = False) -> list[Tensor]:
    """The parameters that require a gradient and that the optimizer holds; without an optimizer all that require one.

    Args:
        of_loss: whether those that only the optimizer holds come after them: of a loss outside the model.
    """
    held = None if optimizer is None else set(map(id, held_by(optimizer)))
    trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad and (held is None or id(p) in held)]
    if not of_loss or optimizer is None:
        return trained
    of_model = set(map(id, model.parameters()))
    return trained + [p for p in held_by(optimizer) if p.requires_grad and id(p) not in of_model]


def held_by(optimizer: Any) -> list[Tensor]:
    """The parameters in all groups of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def is_half(tensor: Tensor) -> bool:
    """Whether it holds floating-point numbers of less than 32 bits."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < SINGLE.itemsize


def train_in_single(model: nn.Module) -> nn.Module:
    """The model, whose trainable weights are now float32 at least; frozen ones stay as they are.

    Modules with such weights compute in float32, and take and give the half precision of the others, as peft's adapters do.
    """
    for module in model.modules():
        narrow = [p for p in module.parameters(recurse=False) if p.requires_grad and is_half(p)]
        if narrow:
            module.register_forward_pre_hook(_in_single)
            module.register_forward_hook(partial(_in_type, narrow[0].dtype))
        for p in narrow:
            p.data = p.data.to(SINGLE)
    return model


def _in_single(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.to(SINGLE) if isinstance(a, Tensor) and is_half(a) else a for a in arguments)


def _in_type(dtype: torch.dtype, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    return output.to(dtype) if isinstance(output, Tensor) else output


def check_optimizer_of(optimizer: Any, model: nn.Module, of_loss: bool = False) -> list[str]:
    """Warnings of weights that nobody trains, and of what an optimizer holds besides the model's weights.

    Args:
        of_loss: whether these may be trained, as in `trained_parameters`.

    Raises:
        ValueError: the optimizer holds none of the model's trainable weights.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = set(map(id, trained_parameters(model, optimizer)))
    if not trained:
        raise ValueError(
            f"The optimizer holds none of the {len(trainable)} trainable tensors of {type(model).__name__}: it was made "
            "from another model, or before this one was changed (get_peft_model, copy.deepcopy). Make it from the model "
            "that the trainer is given: [p for p in model.parameters() if p.requires_grad]."
        )
    remarks = []
    left_out = [name for name, p in trainable.items() if id(p) not in trained]
    if left_out:
        remarks.append(
            f"The optimizer holds {len(trained)} of {len(trainable)} trainable tensors. The others are not trained, get no "
            f"perturbation and no gradient, and clipping does not count them: {_listed(left_out)}. Give them to the "
            "optimizer, or freeze them (requires_grad_(False))."
        )
    of_model = {id(p) for p in model.parameters()}
    foreign = sum(id(p) not in of_model for p in held_by(optimizer))
    if foreign and not of_loss:
        remarks.append(
            f"The optimizer holds {foreign} tensors that are not weights of {type(model).__name__}: nothing gives them a "
            "gradient, so they stay as they are. Were they made before the model was changed (get_peft_model, "
            "copy.deepcopy)? A loss with weights of its own needs them in the model."
        )
    return remarks


def check_sparse_gradients(model: nn.Module, trained: Collection[Tensor]) -> None:
    """Refuse layers whose trained weights get sparse gradients: a method's vector is dense.

    Raises:
        ValueError: naming the layer.
    """
    members = set(map(id, trained))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse and id(layer.weight) in members:
            kind = type(layer).__name__
            raise ValueError(
                f"{name!r} of {type(model).__name__} is an {kind}(sparse=True), and no method takes sparse gradients. "
                "Set sparse=False in it, or freeze its weight (requires_grad_(False))."
            )


def check_types_of(parameters: Collection[Tensor], scaled: bool) -> str | None:
    """A warning of weights that are trained in half precision, or None.

    Args:
        parameters: those that are trained.
        scaled: whether a gradient scaler is used (fp16).

    Raises:
        ValueError: a gradient scaler beside trained float16 weights, whose gradients it refuses.
    """
    half = [p for p in parameters if is_half(p)]
    if scaled and any(p.dtype == torch.float16 for p in half):
        raise ValueError(
            "fp16=True scales the gradients of float32 weights, and these are float16 themselves: load the model with "
            "dtype=torch.float32, or call model.float(); its passes are float16 all the same."
        )
    if not half:
        return None
    dtype = Counter(p.dtype for p in half).most_common(1)[0][0]
    name, vanishing = str(dtype).removeprefix("torch."), torch.finfo(dtype).eps / 4
    return (
        f"{_share(half, parameters)} of the trained weights are {name}: what changes a weight by less than {vanishing:.2%} "
        "of it is rounded away, most of a small update or perturbation. Load the model with dtype=torch.float32, or call "
        "model.float() before the trainer is made; bf16=True keeps the passes as fast."
    )


def _share(part: Iterable[Tensor], whole: Iterable[Tensor]) -> str:
    return f"{sum(p.numel() for p in part) / sum(p.numel() for p in whole):.0%}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def architecture(model: nn.Module) -> dict[str, str]:
    """What tells models of one class apart: their size, a digest of names and shapes, and which weights are trained."""
    shapes = "\n".join(f"{name} {tuple(getattr(value, 'shape', ()))}" for name, value in model.state_dict().items())
    count = sum(parameter.numel() for parameter in model.parameters())
    trained = trained_in_words(model)
    return {
        "architecture": f"{count:,} weights, {hashlib.sha256(shapes.encode()).hexdigest()[:8]}",
        **({} if trained is None else {"trained_weights": trained}),
    }


def trained_in_words(model: nn.Module) -> str | None:
    """Which weights are trained: their number and a digest of their names, whose order is that of an optimizer's state.

    None where all are: then a checkpoint of other weights is one of another model.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if len(names) == sum(1 for _ in model.parameters()):
        return None
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"{len(names)} of {sum(1 for _ in model.parameters())}, names {digest}"
