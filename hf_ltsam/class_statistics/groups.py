"""The reporting groups many, medium and few: classes by their number of training samples, or by rank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Any

GROUPS = ("many", "medium", "few")
USUAL_BOUNDS = (100, 20)  # many_above, few_below: Liu et al. 2019

Groups = dict[str, tuple[int, ...]]  # class indices by group


def groups_by_bounds(counts: Sequence[int], many_above: int, few_below: int) -> Groups:
    """Many have more than `many_above` training samples, few have fewer than `few_below`; a group may be empty."""
    indexed = list(enumerate(counts))
    return {
        "many": tuple(c for c, n in indexed if n > many_above),
        "medium": tuple(c for c, n in indexed if few_below <= n <= many_above),
        "few": tuple(c for c, n in indexed if n < few_below),
    }


def groups_by_rank(counts: Sequence[int], sizes: Sequence[int]) -> Groups:
    """So many classes each, in order of frequency; of equally large classes the lower index comes first."""
    ranked = iter(sorted(range(len(counts)), key=lambda c: -counts[c]))
    return {name: tuple(sorted(islice(ranked, size))) for name, size in zip(GROUPS, sizes)}


def group_bounds(counts: Sequence[int], many_above: int | None = None, few_below: int | None = None) -> tuple[int, int]:
    """The bounds that are stated, and in the place of those that are not the usual ones, or ones that fit the counts.

    A stated bound stays. Where one is stated alone, the other is the usual one, moved as far as the stated one asks.

    Where none is stated, 100 and 20 are taken if some class is many and some class few by them, or if the largest class is
    less than twice as large as the smallest, so that there is no tail to show. Otherwise few is a third of the classes and
    many is half of the others, as nearly as bounds on counts can part them, and at a tie the smaller number. Each bound is
    the roundest number that parts the classes so. Two different counts make a few and a many, without a medium.

    Args:
        counts: training samples of every class (C,).

    Returns:
        many_above, few_below.
    """
    usual_many, usual_few = USUAL_BOUNDS
    if few_below is not None:
        return (max(usual_many, few_below - 1) if many_above is None else many_above), few_below
    if many_above is not None:
        return many_above, min(usual_few, many_above + 1)
    usual = groups_by_bounds(counts, *USUAL_BOUNDS)
    if not counts or max(counts) < 2 * min(counts) or (usual["many"] and usual["few"]):
        return USUAL_BOUNDS
    return _fitting_bounds(counts)


def _fitting_bounds(counts: Sequence[int]) -> tuple[int, int]:
    """Round numbers that part the classes (C,), of two or more different counts, into thirds."""
    sizes = sorted(set(counts))
    up_to = {size: sum(n <= size for n in counts) for size in sizes}  # number of classes
    gaps = list(pairwise(sizes))
    low = min(gaps[:-1] or gaps, key=lambda gap: abs(3 * up_to[gap[0]] - len(counts)))
    others = up_to[low[0]]
    high = min(gaps[gaps.index(low) + 1 :], key=lambda gap: abs(2 * up_to[gap[0]] - others - len(counts)), default=None)
    if high is not None:
        return _roundest(high[0], high[1] - 1), _roundest(low[0] + 1, low[1])
    if low[1] - low[0] == 1:  # 1 and 2
        return low
    bound = _roundest(low[0] + 1, low[1] - 1)
    return bound, bound


def check_group_sizes(sizes: Any, num_classes: int) -> tuple[int, int, int]:
    """Three numbers of classes.

    Raises:
        ValueError: they are not three whole numbers from 0 on that sum to the number of classes.
    """
    statement = f"ClassStatistics(group_sizes={sizes!r})"
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or len(sizes) != len(GROUPS):
        raise ValueError(f"{statement} must be three numbers of classes: many, medium and few.")
    many, medium, few = (whole_number("group_sizes", size) for size in sizes)
    if min(many, medium, few) < 0:
        raise ValueError(f"{statement} must not be negative.")
    if many + medium + few != num_classes:
        raise ValueError(
            f"{statement} must sum to the number of classes, and sums to {many + medium + few} for {num_classes}."
        )
    return many, medium, few


def whole_number(argument: str, value: Any) -> int:
    """An argument of `ClassStatistics` as an integer.

    Raises:
        ValueError: it is none.
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise ValueError(f"ClassStatistics({argument}=...) must be made of whole numbers, got {value!r}.")
    return number


def _roundest(smallest: int, largest: int) -> int:
    """The smallest multiple of the largest of ..., 100, 50, 20, 10, 5, 2, 1 that has one in [smallest, largest]."""
    steps = sorted((m * int(10**e) for e in range(len(str(largest))) for m in (1, 2, 5)), reverse=True)
    multiples = (-(-smallest // step) * step for step in steps)
    return next(multiple for multiple in multiples if multiple <= largest)
