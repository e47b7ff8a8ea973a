"""Random bits as a function of integers: no state, so nothing to save, to restore or to share between workers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the increment of splitmix64 (Steele, Lea, Flood 2014)


def random_key(*words: int | NDArray[np.uint64]) -> Any:
    """64 pseudo-random bits of a sequence of integers such as (seed, epoch, index): one splitmix64 step per word.

    Each step is a bijection, so sequences that differ in one word only have different keys.

    Args:
        words: integers, or uint64 arrays (n,), which are mixed element by element.

    Returns:
        An integer, or a uint64 array (n,) if a word is one.
    """
    key: Any = 0
    for word in words:
        key = _finalize(((key ^ word) + _GOLDEN) & _MASK)
    return key


def _finalize(z: Any) -> Any:
    """The output function of splitmix64 (the mixer "variant 13" of Stafford)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
