"""What is chosen by name: which names and which numbers are valid, and the facts of the class behind a name."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from types import FunctionType
from typing import Any, ClassVar


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
PROBABILITY = Domain("strictly between 0 and 1", lambda x: 0 < x < 1)
SHARE = Domain("a share of training in [0, 1]", lambda x: 0 <= x <= 1)
INNER_SHARE = Domain("a share of training strictly between 0 and 1", lambda x: 0 < x < 1)
_PROPOSED = 3  # names in "Did you mean"
_SHORTEST_PART = 3  # letters of a part of a name: fewer are in too many


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


def require_choice(owner: object, valid: Iterable[str], **values: str) -> None:
    """Refuse a name that is none of the valid ones.

    Raises:
        ValueError: naming class, argument, value and what is valid.
    """
    for name, value in values.items():
        if value not in valid:
            raise ValueError(f"{type(owner).__name__}({name}={value!r}) does not exist.{nearest(str(value), valid)}")


def require_name(owner: object, objects_go: str, **values: Any) -> None:
    """Refuse what is no name, where something is chosen by its name.

    Args:
        objects_go: where an object or a function goes instead.

    Raises:
        ValueError: naming class, argument and value.
    """
    for name, value in values.items():
        if not isinstance(value, str):
            way_out = (
                "Leave it out." if value is None else f"An object or a function goes to {objects_go.format(name)}."
            )
            raise ValueError(
                f"{type(owner).__name__}({name}=...) takes the name of a {name}, got {_in_words(value)}. {way_out}"
            )


def _in_words(value: object) -> str:
    kind = "class" if isinstance(value, type) else "function" if isinstance(value, FunctionType) else ""
    return f"the {kind} {getattr(value, '__name__', '')}" if kind else repr(value)


def require_finite(owner: str | object, values: Mapping[str, Any], unbounded: Iterable[str] = ()) -> None:
    """Refuse NaN and infinity, also inside lists and mappings: every comparison with NaN is false, so bounds let it pass.

    Args:
        owner: as in `require`.
        values: argument name -> value; what is no number is passed over.
        unbounded: arguments that may be infinite.

    Raises:
        ValueError: naming owner, argument and value.
    """
    for argument, value in values.items():
        for number in _floats(value):
            if not math.isfinite(number) and not (number == math.inf and argument in unbounded):
                require(FINITE, owner, **{argument: number})


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        yield from itertools.chain.from_iterable(map(_floats, value.values()))
    elif isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(map(_floats, value))


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The end of an error message where all names would hide those that come closest; empty where none does.

    Names that begin with this one, or one of whose parts does, come before those that are spelled nearly alike.
    """
    names = sorted(set(valid))
    longer = [each for each in names if len(name) >= _SHORTEST_PART and f"_{name}" in f"_{each}"]
    close = [
        *difflib.get_close_matches(name, longer, n=_PROPOSED, cutoff=0),
        *difflib.get_close_matches(name, names, n=_PROPOSED, cutoff=0.5),
    ]
    close = list(dict.fromkeys(close))[:_PROPOSED]
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: the names that come closest, then all of them."""
    valid = sorted(valid)
    return f"{did_you_mean(name, valid)} Valid: {', '.join(valid) or '(none)'}."


def canonical(registry: Mapping[str, Any], name: str) -> str:
    """The key that a name stands for, however it is spelled; a name that stands for none as it is.

    A class is known by its key, its own name and its title in the tables of papers: `focal_sam`, FocalSAM and Focal-SAM are
    one method, `logit_adjustment`, logit-adjustment and LA one loss.
    """
    if name in registry:
        return name
    known = {key: (key, getattr(entry, "__name__", ""), getattr(entry, "title", "")) for key, entry in registry.items()}
    return next((key for key, names in known.items() if _letters(name) in map(_letters, names)), name)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("loss")


def build(kind: str, registry: Mapping[str, type], name: str, arguments: Mapping[str, Any]) -> Any:
    """`registry[name](**arguments)`; an unknown name or argument is answered with the nearest valid ones.

    The name may be spelled as `canonical` knows it.

    Raises:
        ValueError: the name is not in the registry, or the class has no such argument.
        TypeError: it is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f"A {kind} is made by its name, got {_in_words(name)}: an object is used as it is.")
    name = canonical(registry, name)
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


class Documented:
    """A class that is chosen by name, with the facts that lists, cards, reports and pages show. Each is written once.

    `citations` is stated in the class, and `title` where papers abbreviate the heading of the docstring. The others are read
    from the docstring when the class is made:

        Focal-SAM: g = G(1 - lam f) + lam G(f, rho unit(G(f))).     heading and equation, the first paragraph

        Cost: 2 forwards, 3 backwards.
        Source: Li et al. 2025 Eq. 5 to 8.

    Nothing is inherited: a class without a docstring has no equation, and its name as its title. No hyper-parameter may have
    the name of a fact.

    Class attributes:
        title: as the tables of papers write it.
        summary: the first paragraph in one line.
        equation: what follows the heading, without the full stop; `cost` and `source` likewise.
        citations: the papers to cite, the one that proposed it first: keys of `runs/card/sources.bib`, or whole BibTeX
            entries where a class outside this package has a paper of its own.
    """

    title: ClassVar[str]
    summary: ClassVar[str]
    equation: ClassVar[str]
    cost: ClassVar[str]
    source: ClassVar[str]
    citations: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        stated = vars(cls)
        for name, value in _facts(cls.__name__, inspect.cleandoc(stated.get("__doc__") or "")).items():
            if "ClassVar" not in str(inspect.get_annotations(cls).get(name, "ClassVar")):
                raise TypeError(
                    f"{cls.__name__}.{name} is a hyper-parameter by its annotation, and {name!r} is a fact that cards and "
                    f"reports show: give the hyper-parameter another name, or annotate the fact as ClassVar."
                )
            if name not in stated:
                setattr(cls, name, value)
        if not isinstance(cls.citations, tuple):
            raise TypeError(f"{cls.__name__}.citations must be a tuple of keys, got {cls.citations!r}.")


def title_of(registry: Mapping[str, type], name: str) -> str:
    """The title of a registered class; of any other object, the last part of the name it is recorded under.

    Args:
        name: a key of the registry, or what `runs.identity.describe` writes of an object of the user's own, such as
            "__main__.smoothed".
    """
    if name not in registry:
        return name.rpartition(".")[2]
    return str(getattr(registry[name], "title", registry[name].__name__))


def _facts(name: str, docstring: str) -> dict[str, Any]:
    summary = " ".join(docstring.partition("\n\n")[0].split())
    heading, _, equation = summary.partition(": ")
    return {
        "title": heading if equation else name,
        "summary": summary,
        "equation": equation.rstrip("."),
        "cost": _entry(docstring, "Cost"),
        "source": _entry(docstring, "Source"),
        "citations": (),
    }


def _entry(docstring: str, name: str) -> str:
    """The text behind "Cost:" or "Source:", to the next line that is not indented; empty where there is none."""
    _, _, text = docstring.partition(f"\n{name}: ")
    first, *others = text.splitlines() or [""]
    continued = itertools.takewhile(lambda line: line.startswith(" "), others)
    return " ".join([first, *(line.strip() for line in continued)]).rstrip(".")
