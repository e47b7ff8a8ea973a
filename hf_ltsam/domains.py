"""Which numbers a hyper-parameter may be, and the refusal of any other."""

from __future__ import annotations

import math
from collections.abc import Callable
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
