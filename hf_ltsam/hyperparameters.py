"""Which numbers a hyper-parameter may be, and the refusal of any other."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True)
class Domain:
    """A set of numbers, in words and as a test."""

    words: str
    contains: Callable[[float], bool]


FINITE = Domain("a finite number", math.isfinite)
NON_NEGATIVE = Domain("non-negative and finite", lambda x: 0 <= x < math.inf)
POSITIVE = Domain("positive and finite", lambda x: 0 < x < math.inf)
BELOW_ONE = Domain("in [0, 1)", lambda x: 0 <= x < 1)
UNIT_INTERVAL = Domain("in [0, 1]", lambda x: 0 <= x <= 1)
COUNT = Domain("a whole number of at least 1", lambda x: x >= 1 and float(x).is_integer())
SHARE = Domain("a share of training in [0, 1]", lambda x: 0 <= x <= 1)
INNER_SHARE = Domain("a share of training strictly between 0 and 1", lambda x: 0 < x < 1)


def require(domain: Domain, owner: str | object, **values: Any) -> None:
    """Refuse a value outside its domain.

    Args:
        owner: the class or function the values are arguments of, or an instance of the class.
        values: argument name -> value.

    Raises:
        ValueError: naming owner, argument, domain and value.
    """
    name = owner if isinstance(owner, str) else type(owner).__name__
    for argument, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not domain.contains(float(value)):
            raise ValueError(f"{name}({argument}=...) must be {domain.words}, got {value!r}.")


# ---- objects that are chosen by name, and the answer to a name that does not exist ----


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


# ---- what the docstring of a method or loss states, for lists and cards: its name, its equation, its entr ----


def first_line(documented: object) -> str:
    """One line of what it is."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def title(documented: object) -> str:
    """The name before the colon of the first line, such as "Focal-SAM"."""
    return first_line(documented).partition(":")[0].rstrip(".")


def equation(documented: object) -> str:
    """What follows that colon, with the lines up to the next paragraph; empty where there is no colon."""
    paragraph = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    return paragraph.partition(": ")[2].rstrip(".")


def entry(documented: object, name: str) -> str:
    """The text behind "Cost:" or "Source:", to the end of its paragraph or to the next entry; empty where there is none."""
    _, _, text = (inspect.getdoc(documented) or "").partition(f"\n{name}: ")
    lines: list[str] = []
    for line in text.splitlines():
        if lines and not line.startswith(" "):
            break
        lines.append(line.strip())
    return " ".join(lines)
