"""Objects that are chosen by name, and the answer to a name that does not exist."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: the names that come closest, then all of them."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    suggestion = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return f"{suggestion} Valid: {', '.join(valid) or '(none)'}."


def build(kind: str, registry: Mapping[str, type], name: str, arguments: Mapping[str, Any]) -> Any:
    """`registry[name](**arguments)`, where an unknown name or argument is answered with the nearest valid ones.

    Raises:
        ValueError: the name is not in the registry, or the class has no such argument.
    """
    if name not in registry:
        raise ValueError(f"Unknown {kind} {name!r}.{nearest(name, registry)}")
    valid = [field.name for field in dataclasses.fields(registry[name]) if field.init]
    for argument in arguments:
        if argument not in valid:
            raise ValueError(f"The {kind} {name!r} has no argument {argument!r}.{nearest(argument, valid)}")
    numeric = {field.name for field in dataclasses.fields(registry[name]) if isinstance(field.default, int | float)}
    return registry[name](**{k: _number(v) if k in numeric else v for k, v in arguments.items()})


def _number(value: Any) -> Any:
    """YAML reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
