"""What the report says first: who is ahead on the rare classes, by how much, whether by more than chance, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

from hf_ltsam.runs.class_frequencies import group_criterion, group_ranges
from hf_ltsam.runs.report.by_group import NAMES
from hf_ltsam.runs.report.comparison.differences import Compared, compare
from hf_ltsam.runs.report.comparison.paired_bootstrap import LEVEL, Interval
from hf_ltsam.runs.report.configurations import (
    Configuration,
    chance_of,
    differing,
    facts,
    samples_of_all,
    setting,
    spread,
)
from hf_ltsam.runs.report.content import Section, Table, are_equal, digits_apart, mean_and_deviation, percent, points
from hf_ltsam.runs.report.cost import cost_of

TITLE = "Conclusion"
_OF_GROUPS = {"many_above", "few_below", "tail_threshold"}
RARE = ("few", "tail", "medium", "balanced")  # the rarest classes of which there are results


@dataclass(frozen=True)
class Ranking:
    """Configurations of one training set by their accuracy on its rare classes.

    Args:
        group: of RARE.
        first: of the report, or of those that can be compared.
        ordered: the best one first.
        behind: of the others, in their order: how far the best one is ahead.
        level: of each interval, so that all of them together hold at LEVEL.
    """

    group: str
    first: Configuration
    ordered: list[Configuration]
    behind: list[Compared]
    level: float

    @property
    def best(self) -> Configuration:
        return self.ordered[0]

    @property
    def reference(self) -> Compared:
        """What the best one is held against: the first configuration, or where that is the best one, the next."""
        return next((c for c in self.behind if c.configuration is self.first), self.behind[0])


def section(configurations: Sequence[Configuration], folder: Path) -> Section:
    tested = [c for c in configurations if c.tested]
    if not tested:
        return Section(TITLE, summary="There are no test results yet.")
    ranking = ranked(tested)
    others = [c.title for c in tested if c not in ranking.ordered]
    notes = (
        [f"Of another training set or without these classes, so left out here: {', '.join(others)}."] if others else []
    )
    if not ranking.behind:
        return Section(TITLE, tables=[_table(ranking)], summary=_alone(ranking), notes=notes)
    return Section(TITLE, tables=[_table(ranking)], summary=_ahead(ranking), notes=[*_explained(ranking), *notes])


def ranked(tested: Sequence[Configuration]) -> Ranking:
    """Those that can be compared with the first one, by accuracy on the rare classes.

    Intervals are as wide as it takes that all of them together fail in one case of twenty at most. The best one is chosen
    after the results are seen, so any pair might have been compared, and every pair counts (Bonferroni).
    """
    first = tested[0]
    group = next((group for group in RARE if first.accuracies(group)), "balanced")
    alike = [c for c in tested if _counts(c) == _counts(first) and c.accuracies(group)]
    ordered = sorted(alike, key=lambda c: -spread(c.accuracies(group))[0])
    level = 1 - (1 - LEVEL) / max(comb(len(ordered), 2), 1)
    return Ranking(group, first, ordered, compare(ordered, level=level) if len(ordered) > 1 else [], level)


def _counts(configuration: Configuration) -> tuple[int, ...]:
    return configuration.statistics.counts if configuration.statistics is not None else ()


def _ahead(ranking: Ranking) -> str:
    """The sentence."""
    reference, lead = ranking.reference, _lead(ranking.reference, ranking.group)
    if are_equal(_by(ranking, reference), 0):
        return _level(ranking)
    highest, lower = (_accuracy(c, ranking.group) for c in (ranking.best, reference.configuration))
    digits = digits_apart(highest, lower)
    best, other = percent(highest, digits), percent(lower, digits)
    by = points(_by(ranking, reference), digits)
    numbers = f"{best} % against {other} % of {reference.configuration.title}, {by} points"
    if lead is None:
        chance, opening = "too few classes to say whether that is chance", f"{ranking.best.title} is ahead"
    elif lead.beyond_chance:
        chance, opening = f"more than chance (95 % interval {_range(lead)})", f"{ranking.best.title} is ahead"
    else:
        chance = f"within chance (95 % interval {_range(lead)})"
        opening = f"{ranking.best.title} is not clearly ahead"
    price = _price(ranking.best, reference.configuration)
    return f"{opening} {_on_the_rare_classes(ranking)}: {numbers}, {chance}, {price}."


def _level(ranking: Ranking) -> str:
    """The sentence where the first configuration is as good as the best one."""
    equals = [
        c for c in ranking.ordered if are_equal(_accuracy(c, ranking.group), _accuracy(ranking.best, ranking.group))
    ]
    titles = f"{', '.join(c.title for c in equals[:-1])} and {equals[-1].title}"
    reached = f"{percent(_accuracy(ranking.best, ranking.group))} %"
    lead = _lead(ranking.reference, ranking.group) if len(equals) == 2 else None
    differ = "" if lead is None or lead.is_empty else f" (95 % interval of the difference {_range(lead)})"
    price = (
        f", {equals[1].title} {_price(equals[1], equals[0], 'the training time of the other')}"
        if len(equals) == 2
        else ""
    )
    return f"{titles} are level {_on_the_rare_classes(ranking)}: {reached} each{differ}{price}."


def _accuracy(configuration: Configuration, group: str) -> float:
    return spread(configuration.accuracies(group))[0]


def _alone(ranking: Ranking) -> str:
    best, chance = ranking.best, _chance(ranking)
    rare, every = (percent(spread(best.accuracies(group))[0]) for group in (ranking.group, "balanced"))
    return (
        f"{best.title} has {rare} % {_on_the_rare_classes(ranking)} and {every} % over all classes, where guesses have "
        f"{chance} %; there is nothing to compare it with."
    )


def _explained(ranking: Ranking) -> list[str]:
    """The next best, the classes that pay for it, and what the intervals rest on."""
    notes, group = _whose_doing(ranking), ranking.group
    following = ranking.behind[0]
    if following is not ranking.reference:
        verdict = _verdict(_lead(following, group))
        by = _by(ranking, following)
        if not are_equal(by, 0):
            notes.append(f"Next is {following.configuration.title}, {percent(by)} points behind{verdict}.")
        elif not are_equal(_by(ranking, ranking.reference), 0):  # otherwise the sentence has named it
            notes.append(f"{following.configuration.title} is level with it{verdict}.")
    if _accuracy(ranking.best, group) <= chance_of(ranking.best):
        notes.append(f"None is better than guesses, which have {_chance(ranking)} %.")
    seeds = [len(c.tested) for c in ranking.ordered]
    over = (
        f"the same test {samples_of_all(ranking.ordered)}" if all(c.over_images for c in ranking.behind) else "classes"
    )
    pairs = comb(len(ranking.ordered), 2)
    several = f" that allow for {pairs} pairs at once" if pairs > 1 else ""
    basis = f"95 % intervals{several}, paired over {over}"
    if min(seeds) > 1:
        notes.append(f"{basis}, with what other seeds would change ({min(seeds)} or more of each configuration).")
    else:
        notes.append(f"{basis}; of one seed each they compare these models, not the methods.")
    return notes


def _whose_doing(ranking: Ranking) -> list[str]:
    """What the lead of the sentence is not: the method's alone, where other things differ too."""
    best, reference = ranking.best, ranking.reference.configuration
    what, others = _differ_in(best, reference)
    if others:
        also = " and ".join(f"{name} ({setting(best, name)} and {setting(reference, name)})" for name in others)
        return [
            f"{best.title} and {reference.title} differ in {also}, too: their difference is not that of the methods."
        ]
    if what != {"loss", "method"}:
        return []
    between = next((c for c in ranking.behind if _is_between(c.configuration, best, reference)), None)
    if between is None:
        return [f"{best.title} and {reference.title} differ in loss and method: how much is due to which is not known."]
    name, of_method = between.configuration.title, _by(ranking, between)
    of_loss = _by(ranking, ranking.reference) - of_method
    (without_method,) = compare([reference, between.configuration], level=ranking.level)
    loss = f"{name} against {reference.title}{_verdict(without_method.intervals.get(ranking.group))}"
    method = f"{best.title} against {name}{_verdict(_lead(between, ranking.group))}"
    return [
        f"Of these points {points(of_loss)} are due to the loss ({loss}), and {points(of_method)} to the method ({method})."
    ]


def _is_between(one: Configuration, best: Configuration, reference: Configuration) -> bool:
    """Whether the method alone leads from it to the best one, and the loss alone to it."""
    return _differ_in(best, one) == ({"method"}, []) and _differ_in(one, reference) == ({"loss"}, [])


def _differ_in(one: Configuration, other: Configuration) -> tuple[set[str], list[str]]:
    """Whether in loss or method, with their arguments, and the names of other settings that make results differ."""
    a, b = (facts(c.runs[0]) for c in (one, other))
    what = {part for part in ("loss", "method") if any(a.get(k) != b.get(k) for k in (part, f"{part}_args"))}
    of_both = {name for c in (a, b) for part in ("loss", "method") for name in (part, *c.get(f"{part}_args", {}))}
    return what, [name for name in differing([one, other]) if name not in of_both | _OF_GROUPS]


def _table(ranking: Ranking) -> Table:
    group, leads = ranking.group, {id(c.configuration): _lead(c, ranking.group) for c in ranking.behind}
    columns = [
        "configuration",
        f"{NAMES[group]} (%)",
        *(["all classes (%)"] if group != "balanced" else []),
        "training time",
    ]
    if ranking.behind:
        columns.append("behind (points)")
    rows = []
    for c in ranking.ordered:
        groups = dict.fromkeys((group, "balanced"))
        row = [c.title, *(mean_and_deviation(*spread(c.accuracies(name)), 100) for name in groups), _time(c) or "-"]
        if ranking.behind:
            lead = leads.get(id(c))
            row.append("-" if lead is None else f"{100 * lead.difference:z.{lead.digits}f} ({_range(lead)})")
        rows.append(row)
    return Table(f"Accuracy {_on_the_rare_classes(ranking)} and over all, the best one first", columns, rows)


def _lead(compared: Compared, group: str) -> Interval | None:
    """By how much the best one is ahead of it; None where there are too few classes to draw from."""
    difference = compared.intervals.get(group)
    return None if difference is None else Interval(-difference.difference, -difference.high, -difference.low)


def _verdict(lead: Interval | None) -> str:
    """Behind a number: whether it is chance; nothing where that is not known."""
    return "" if lead is None else f", {'more than' if lead.beyond_chance else 'within'} chance ({_range(lead)})"


def _by(ranking: Ranking, other: Compared) -> float:
    return _accuracy(ranking.best, ranking.group) - _accuracy(other.configuration, ranking.group)


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:z.{interval.digits}f} to {100 * interval.high:z.{interval.digits}f}"


def _on_the_rare_classes(ranking: Ranking) -> str:
    statistics, group = ranking.best.statistics, ranking.group
    if group == "balanced" or statistics is None:
        return "over all classes"
    if group == "tail":
        return f"on the rare classes (tail: at most {statistics.tail_threshold:,} training {ranking.best.samples})"
    by_number, by_rank = f"training {ranking.best.samples}", group_criterion(statistics)
    unit = by_number if statistics.group_sizes is None else by_rank
    ranges = group_ranges(statistics)[group]
    return f"on the rare classes ({group}: {ranges} {unit})"


def _chance(ranking: Ranking) -> str:
    return percent(chance_of(ranking.best))


def _price(best: Configuration, other: Configuration, of_other: str = "its training time") -> str:
    """The training time of one beside that of the other, and how that is called."""
    ours, theirs = cost_of(0, best), cost_of(0, other)
    if ours is None or theirs is None:
        return "at a cost that the runs do not state"
    if set(ours.hardware) != set(theirs.hardware):
        return "at a cost that other hardware hides"
    ratio = spread(ours.seconds)[0] / spread(theirs.seconds)[0]
    return f"at {ratio:.2f} times {of_other} ({_time(best)} against {_time(other)})"


def _time(configuration: Configuration) -> str | None:
    cost = cost_of(0, configuration)
    if cost is None:
        return None
    seconds = spread(cost.seconds)[0]
    if seconds < 600:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
