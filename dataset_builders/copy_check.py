"""Whether a user's copy has what a list names, and what exactly it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dataset_builders.class_table import ClassTable
from dataset_builders.image_files import Found
from dataset_builders.split_lists import SplitList

SHOWN = 5


def places_of(listed: SplitList, found: Found, table: ClassTable) -> list[str]:
    """Where every listed image lies (N).

    Raises:
        FileNotFoundError: how many images of which classes are missing or empty, with the first of them.
    """
    keys = ["/".join(path.split("/")[-2:]) for path in listed.paths]
    places = [found.place_of(key) for key in keys]
    absent = np.asarray([place is None for place in places])
    empty = np.asarray([found.is_empty(key) for key in keys]) & ~absent
    if absent.any() or empty.any():
        raise FileNotFoundError(_describe(listed, found, table, absent, empty))
    return [place for place in places if place is not None]


def _describe(
    listed: SplitList, found: Found, table: ClassTable, absent: NDArray[np.bool_], empty: NDArray[np.bool_]
) -> str:
    parts = []
    for verb, which in (("lacks", absent), ("has no content in", empty)):
        if which.any():
            first = [listed.paths[i] for i in np.flatnonzero(which)[:SHOWN]]
            missing = np.bincount(listed.labels[which], minlength=len(table.keys))
            parts.append(
                f"{verb} {which.sum():,} of the {len(which):,} images that {listed.origin} names: "
                f"{by_class(listed.counts(len(table.keys)), missing, table)}. The first: {', '.join(first)}"
            )
    return f"{found.root} {'; it '.join(parts)}. Complete the copy."


def by_class(expected: Sequence[int] | NDArray[np.int64], missing: NDArray[np.int64], table: ClassTable) -> str:
    """`all 50 of n01440764 (tench), 3 of 250 of n01443537 (goldfish)`; whole classes first."""
    short = np.flatnonzero(missing)
    order = sorted(short.tolist(), key=lambda c: (missing[c] < expected[c], c))
    share = ("all" if missing[c] == expected[c] else f"{missing[c]} of" for c in order[:SHOWN])
    shown = ", ".join(f"{part} {expected[c]} of {table.called(c)}" for part, c in zip(share, order))
    return shown + (f", and so on ({short.size} classes)" if short.size > SHOWN else "")
