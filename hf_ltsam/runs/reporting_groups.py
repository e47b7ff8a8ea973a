"""What many, medium and few are, in words: by numbers of training images, or by rank."""

from __future__ import annotations

from itertools import accumulate

from hf_ltsam.class_statistics import GROUPS, ClassStatistics


def group_ranges(statistics: ClassStatistics) -> dict[str, str]:
    """What puts a class into a group, by group; `group_criterion` says of what they are ranges."""
    if statistics.group_sizes is not None:
        starts = list(accumulate(statistics.group_sizes, initial=1))
        return {name: _ranks(start, next_start - 1) for name, start, next_start in zip(GROUPS, starts, starts[1:])}
    low, high = statistics.few_below, statistics.many_above
    return {"many": f"more than {high}", "medium": f"{low} to {high}", "few": f"fewer than {low}"}


def group_criterion(statistics: ClassStatistics) -> str:
    """The head of a column of ranges."""
    return "training images per class" if statistics.group_sizes is None else "rank of the class by frequency"


def describe_groups(statistics: ClassStatistics, sizes: bool = False) -> str:
    """One sentence.

    Args:
        sizes: whether it states the number of classes of each group.
    """
    words = {name: f"{len(classes)}{' classes' * (name == 'many')}" for name, classes in statistics.groups.items()}
    many, medium, few = (f" ({words[name]})" * sizes for name in GROUPS)
    if statistics.group_sizes is not None:
        ranks = group_ranges(statistics)
        return (
            f"Groups by rank of a class in order of frequency: many {ranks['many']}{many}, medium {ranks['medium']}{medium}, "
            f"few {ranks['few']}{few}."
        )
    low, high = f"{statistics.few_below:,}", f"{statistics.many_above:,}"
    return (
        f"Groups by training images of a class: many above {high}{many}, medium {low} to {high}{medium}, few below "
        f"{low}{few}."
    )


def _ranks(first: int, last: int) -> str:
    return "none" if last < first else f"{first:,}" if last == first else f"{first:,} to {last:,}"
