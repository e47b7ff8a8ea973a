"""What a checkpoint was trained with, so that nobody resumes it with anything else or replaces it unawares."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from hf_ltsam.runs.experiment import OF_THE_EXPERIMENT, OF_THE_OPTIMIZER, SEEDS
from hf_ltsam.runs.files import DamagedFileError, plain
from hf_ltsam.runs.folder import IDENTITY, RECORD, SETTINGS, RunFolder
from hf_ltsam.runs.record import hub_name
from hf_ltsam.schedules import SCHEDULES, schedule_to_config

# Told apart by a sum, of which the beginning is shown.
_CONTENTS = {"training_labels_sha256": "labels of the training set"}
_FEW, _SHORT = 100, 16  # entries of a list, letters of a name: of what is written of objects of the user's own
logger = logging.get_logger(__name__)


def describe(registry: Mapping[str, type], instance: Any) -> dict[str, Any]:
    """`{"name": ..., "args": {...}}` of a registered object, as a recipe would write it.

    An object whose class is not registered is named by its class, a function by its name, and its numbers and words are
    `"own"`: what tells two of a class apart, as far as attributes or a partial's arguments do.
    """
    if isinstance(instance, partial):
        inner = describe(registry, instance.func)
        name = f"partial_{inner['name']}" if inner["name"] in registry else inner["name"]
        given = {**{str(place): value for place, value in enumerate(instance.args)}, **instance.keywords}
        return {"name": name, "args": inner["args"], "own": {**inner.get("own", {}), **_own(given)}}
    if inspect.isroutine(instance):
        return {"name": _written(instance), "args": {}}
    names = {cls: name for name, cls in registry.items()}
    name = names.get(type(instance), type(instance).__qualname__)
    if not dataclasses.is_dataclass(instance):
        own = _own(getattr(instance, "__dict__", {}))
        own.pop("training", None)  # the mode of a module
        return {"name": name, "args": {}, **({"own": own} if own else {})}
    fields = sorted(dataclasses.fields(instance), key=lambda field: bool(field.kw_only))  # what all methods share last
    values = {field.name: getattr(instance, field.name) for field in fields}
    return {"name": name, "args": {key: _written(value) for key, value in values.items()}}


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, names such as "mean", and short lists of them, without what a leading underscore hides."""
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: value for name, value in shown.items() if not name.startswith("_") and _is_short(value)}


def _is_short(value: Any) -> bool:
    """Whether it is a number or a name, which no secret is, or a few."""
    if type(value) is list:
        return len(value) <= _FEW and all(type(item) is not list and _is_short(item) for item in value)
    if type(value) is str:
        return len(value) <= _SHORT and value.isidentifier()
    return value is None or type(value) in (bool, int, float)


def own_optimizer(optimizer: Any, stated: type, stated_args: Mapping[str, Any], weight_decay: float) -> dict[str, Any]:
    """`{"name": ..., "args": {...}}` of an optimizer that is not the one the settings state; else empty.

    Args:
        optimizer: that trained, its arguments in `defaults` and `param_groups` as those of torch are.
        stated, stated_args: class and arguments by the settings.
        weight_decay: by the settings, of all groups but those that decay nothing.

    Returns:
        Where groups differ in an argument, its values in their order.
    """
    given, groups = getattr(optimizer, "defaults", None), getattr(optimizer, "param_groups", None)
    if not isinstance(given, dict) or not groups:  # a wrapper, of which the class alone is known
        return {"name": type(optimizer).__qualname__, "args": {}}
    given = {name: _number(value) for name, value in given.items()}
    expected = {**_defaults(stated), **stated_args}
    groups = [{**given, **group, "lr": _number(group.get("initial_lr", given.get("lr")))} for group in groups]
    as_stated = (
        type(optimizer) is stated
        and all(given[name] == value for name, value in expected.items() if name in given)
        and all(group["lr"] == given.get("lr") for group in groups)
        and {group.get("weight_decay", 0.0) for group in groups} <= {weight_decay, 0.0}
    )
    if as_stated:
        return {}
    values = {name: [group[name] for group in groups] for name in given}
    args = {name: of[0] if all(value == of[0] for value in of) else of for name, of in values.items()}
    return {"name": type(optimizer).__qualname__, "args": _own(args)}


def _number(value: Any) -> Any:
    """A tensor of one number as that number: compiled and captured steps keep rates as such."""
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _defaults(kind: type) -> dict[str, Any]:
    """Of the arguments of a class that have some, where it says so."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _written(value: Any) -> Any:
    """A schedule as its configuration, any other function by its name, which is the same in every process."""
    if type(value) in SCHEDULES.values():
        return schedule_to_config(value)
    return f"{value.__module__}.{value.__qualname__}" if inspect.isroutine(value) else value


def settings_compared(args: Any, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a training is resumed with, by name: the experiment's, its seeds, and how many processes it has.

    Args:
        args: a `TrainingArguments`; method and loss stand in an identity as they are, and not by these settings.
        optimizer: what `own_optimizer` gives; that stands in an identity as well, and the settings' do not act.
    """
    names = (OF_THE_EXPERIMENT | SEEDS) - {"method", "method_args", "loss", "loss_args"}
    if optimizer:
        names -= OF_THE_OPTIMIZER
    settings = {field.name: getattr(args, field.name) for field in dataclasses.fields(args) if field.name in names}
    alike = {  # what is written otherwise and trains the same
        "data_seed": args.seed if args.data_seed is None else args.data_seed,
        "optim": str(getattr(args.optim, "value", args.optim)).removesuffix("_fused"),
    }
    settings |= {name: value for name, value in alike.items() if name in settings}
    return {**{name: None if value == {} else value for name, value in settings.items()}, "processes": args.world_size}


def save_identity(folder: str | Path, identity: Mapping[str, Any], start: str | None = None) -> None:
    """Write down beside the weights what they were trained with, and what the name of the model they started from means."""
    name = hub_name(start)
    RunFolder(Path(folder)).write_identity({**_plain(identity), "hub": {} if name is None else {"model": name}})


def check_identity(folder: str | Path, identity: Mapping[str, Any]) -> None:
    """Refuse to resume a checkpoint of another method, loss or data set, or with settings that would not act.

    A checkpoint brings its optimizer, with rate and weight decay, and by another seed the rest of its epoch would have
    another order. Other settings act from there on: a change is warned of. A checkpoint without an identity, of the stock
    Trainer for example, is not refused.

    Raises:
        ValueError: every difference, or a damaged file.
    """
    saved, now = RunFolder(Path(folder)).identity or {}, _plain(identity)
    before, after = ({**of.pop(SETTINGS, {}), **_own_of(of)} for of in (saved, now))
    kept = OF_THE_OPTIMIZER | SEEDS
    differences = _differences(saved, now) + [d for name in sorted(kept) for d in _differences(before, after, name)]
    if differences:
        raise ValueError(
            f"{folder} cannot be resumed with these settings. " + "; ".join(differences) + ". Resume with the "
            "checkpoint's settings, or begin a new run in another folder from this checkpoint's weights, without resuming "
            "(--model CHECKPOINT, in Python from_pretrained)."
        )
    if others := _differences(before, after):
        logger.warning(
            f"{folder} goes on with other settings: {'; '.join(others)}. They act from here on: the training does not end "
            "as one that had them from its start."
        )


def _own_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of objects of the user's own, taken out: they may count or collect, and such a change refuses nothing."""
    described = {key: value for key, value in identity.items() if isinstance(value, dict) and "own" in value}
    return {f"{key} {name}": of for key, value in described.items() for name, of in value.pop("own").items()}


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any], *names: str) -> list[str]:
    """What both have and have otherwise, in words; names: of these alone."""
    return [
        f"{_CONTENTS.get(name, name)}: {_shown(name, saved)} in the checkpoint, {_shown(name, now)} now"
        for name in names or now
        if name in saved and name in now and saved[name] != now[name]
    ]


def earlier_run(folder: Path) -> str | None:
    """What a training of this library has left in a folder: method, loss, and when it ended or wrote its last checkpoint.

    None where there is nothing of it; checkpoints of the stock Trainer are nobody's run.
    """
    run = RunFolder(folder)
    if run.has(RECORD):
        return f"{_what(run)}ended {_when(folder / RECORD)}"
    checkpoints = [checkpoint for checkpoint in run.checkpoints.values() if checkpoint.has(IDENTITY)]
    if checkpoints:
        last = checkpoints[-1]
        return f"{_what(last)}not ended, {last.path.name} of {_when(last.path / IDENTITY)}"
    return f"{_what(run)}saved {_when(folder / IDENTITY)}" if run.has(IDENTITY) else None


def _what(run: RunFolder) -> str:
    """Method and loss; nothing where the files do not say it."""
    try:
        described: Any = run.identity or {}
        return f"{described['method']['name']} with {described['loss']['name']}, "
    except (DamagedFileError, KeyError, TypeError):
        return ""


def _when(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m-%d %H:%M")


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as it is read again; what JSON cannot hold is named by its repr."""
    values: dict[str, Any] = plain(json.loads(json.dumps(identity, default=repr)))
    return values


def _shown(name: str, of: Mapping[str, Any]) -> str:
    if name in _CONTENTS and isinstance(of[name], str):
        return f"SHA-256 {of[name][:8]}..."
    text = json.dumps(of[name])
    return text if len(text) <= 200 else text[:200] + "..."
