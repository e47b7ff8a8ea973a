"""Messages about settings, which name arguments in Python, as messages about the options of a command line."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Collection
from importlib import import_module
from typing import Any

# Registries whose classes are chosen by name: the option that holds their arguments, and where they are registered.
_CHOSEN = {
    "method_args": ("hf_ltsam.methods", "METHODS"),
    "loss_args": ("hf_ltsam.losses", "LOSSES"),
    "second_stage_args": ("hf_ltsam.training.second_stage.stages", "SECOND_STAGES"),
    "adapter_args": ("hf_ltsam.adapters.factory", "ADAPTERS"),
}
_SCHEDULES = ("Piecewise", "Linear", "Cosine")
_OTHERWISE = {  # arguments whose option has another name
    ("Reweighting", "scheme"): "reweighting",
    ("Reweighting", "start"): "reweighting_start",
    ("WeightAveraging", "start"): "swa_start",
    ("RandAugment", "operations"): "randaugment",
    ("RandAugment", "magnitude"): "randaugment_magnitude",
    ("normalise_spectrally", "iterations"): "spectral_norm_iterations",
    ("corrupt", "severity"): "severities",
    ("load_shifted", "complete"): "incomplete_copies",
    ("decode_images", "channels"): "num_channels",
    ("decode_images", "size"): "image_size",
}
_VALUE = r"""'[^']*'|"[^"]*"|\[[^\]]*\]|\{[^{}]*\}|\.\.\.|[\w+-]+(?:\.\w+)*"""
_OF_OWNER = re.compile(rf"`?\b(\w+)\((\w+)=({_VALUE})\)`?")
_BEFORE = r"(?<![\w./'\"=-])(?<!\w\()(?<!--search )"


def in_options(message: str, options: Collection[str], flags: Collection[str] = ()) -> str:
    """A message in the words of a command line.

    "LTSamConfig(swa_start=...)" and "swa_start=0.5" become --swa_start and --swa_start 0.5, "FocalSAM(rho=...)" becomes
    rho in --method_args, and a name such as tail_threshold gets its dashes. What is in quotes is a value and stays.

    Args:
        options: of the command, without dashes.
        flags: those of them that take no value.
    """
    if not options:
        return message
    message = _OF_OWNER.sub(lambda found: _of_owner(found, options, flags), message)
    names = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    message = re.sub(rf"{_BEFORE}`?({names})=({_VALUE})`?", lambda found: _option(found[1], found[2], flags), message)
    long_names = "|".join(sorted((re.escape(name) for name in options if "_" in name), key=len, reverse=True))
    if long_names:
        message = re.sub(rf"{_BEFORE}(`?)({long_names})\1(?![\w(=/'\"]|[.-]\w)", r"--\2", message)
    return message.replace(" in LTSamConfig", "")


def holders_of(argument: str) -> list[str]:
    """The options that hold arguments of classes chosen by name of which one has an argument of this name."""
    holders = []
    for option in ("method_args", "loss_args"):
        module, registry = _CHOSEN[option]
        entries = getattr(import_module(module), registry).values()
        if any(argument == field.name for entry in entries for field in dataclasses.fields(entry) if field.init):
            holders.append(option)
    return holders


def _of_owner(found: re.Match[str], options: Collection[str], flags: Collection[str]) -> str:
    owner, argument, value = found[1], found[2], found[3]
    holder = _holder(owner)
    if holder in options:
        shown = argument if value == "..." else f"{argument} {_plain(value)}"
        return f"{shown} in --{holder}"
    name = _OTHERWISE.get((owner, argument), argument)
    return _option(name, value, flags) if name in options else found[0]


def _holder(owner: str) -> str | None:
    """The option that holds the arguments of a class which is chosen by name."""
    if owner in _SCHEDULES:
        return "method_args"
    for option, (module, registry) in _CHOSEN.items():
        entries: dict[str, Any] = getattr(sys.modules.get(module), registry, {})
        if owner in {getattr(entry, "config", entry).__name__ for entry in entries.values()}:
            return option
    return None


def _option(name: str, value: str, flags: Collection[str]) -> str:
    return f"--{name}" if value == "..." or name in flags else f"--{name} {_plain(value)}"


def _plain(value: str) -> str:
    """As on a command line: without the quotes of a text, true and not True, JSON and not a dictionary."""
    if value.startswith("{"):
        return "'" + value.replace("'", '"') + "'"
    return {"True": "true", "False": "false"}.get(value, value.strip("'\""))
