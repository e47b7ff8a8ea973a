"""`ltsam data`: which sets there are, what one looks like, and publishing a draw."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from dataset_builders.catalogue import SETS, published_set, sets_of
from dataset_builders.long_tail import PROFILES
from dataset_builders.publish import Draw, publish, refuse_to_publish
from dataset_builders.sources.published_set import DrawnSet, ListedSet, LongTailedSet, PublishedSet, Tail, UserCopy
from hf_ltsam import ClassStatistics
from hf_ltsam.runs.class_curve import draw_curve, text_curve
from hf_ltsam.runs.hub import require_network


def main(words: Sequence[str]) -> None:
    """`list`, `info NAME` or `push NAME REPO`."""
    arguments = _parser().parse_args(words)
    run: Callable[[argparse.Namespace], None] = arguments.run
    run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ltsam data", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="list | info NAME | push NAME REPO")
    commands.add_parser("list", help="the sets").set_defaults(run=_list)
    info = commands.add_parser("info", help="counts, groups, imbalance ratio, fingerprint and class-frequency curve")
    info.set_defaults(run=_info)
    push = commands.add_parser("push", help="publish a draw of CIFAR-LT on the Hub, with its card")
    push.set_defaults(run=_push)
    for command in (info, push):
        command.add_argument("name", metavar="NAME", help=f"one of {', '.join(SETS)}")
        command.add_argument(
            "--imbalance_ratio", type=float, default=100, help="CIFAR: largest class over smallest (100)"
        )
        command.add_argument("--profile", default="exponential", choices=PROFILES, help="CIFAR: shape of the tail")
        command.add_argument("--seed", type=int, default=0, help="CIFAR: of the draw; 0 is the published one")
    info.add_argument("--lists", metavar="FOLDER", help="lists of your own, in place of the published ones")
    info.add_argument("--figure", type=Path, metavar="FILE", help="draw the curve into this PNG, too")
    push.add_argument("repo", metavar="REPO", help="OWNER/NAME on the Hub")
    push.add_argument("--data_dir", metavar="FOLDER", help="CIFAR's Parquet files (default: the originals on the Hub)")
    push.add_argument("--private", action="store_true", help="make a private repository")
    return parser


def _list(_: argparse.Namespace) -> None:
    for name, published in SETS.items():
        print(f"{name:16} {published.title}: {published.what}")
    print(
        "\nltsam data info NAME tells more. In Python: load_long_tailed(NAME, data_dir), load_shifted(NAME, data_dir)."
    )


def _info(arguments: argparse.Namespace) -> None:
    name = arguments.name
    published = published_set(name, SETS)
    print(f"{published.title} ({name}): {published.what}")
    if isinstance(published, LongTailedSet):
        copy, tail = _copy(arguments), _tail(arguments)
        statistics = published.statistics(copy, tail)
        print(describe(statistics, published.fingerprint(copy, tail)))
        if arguments.figure is not None:
            draw_curve(statistics, _title(published, tail), arguments.figure)
            print(f"The curve is in {arguments.figure}.")
    elif arguments.figure is not None:
        raise ValueError(f"--figure: {name} is a test set and has no training images to draw.")
    print(f"construction     {published.construction}")
    print(f"source           {published.source}\nterms            {published.terms}")


def _copy(arguments: argparse.Namespace) -> UserCopy:
    """Lists of the user's own, where `--lists` names their folder."""
    if arguments.lists is not None and arguments.name not in sets_of(ListedSet):
        raise ValueError(f"--lists is for {', '.join(sets_of(ListedSet))}; {arguments.name} has no list.")
    return UserCopy(lists=arguments.lists, own_lists=arguments.lists is not None)


def _tail(arguments: argparse.Namespace) -> Tail:
    return Tail(arguments.imbalance_ratio, arguments.profile, arguments.seed)


def describe(statistics: ClassStatistics, fingerprint: str) -> str:
    """Counts, groups, imbalance ratio and fingerprint, with the curve."""
    bounds = {
        "many": f"more than {statistics.many_above}",
        "medium": f"{statistics.few_below} to {statistics.many_above}",
        "few": f"fewer than {statistics.few_below}",
    }
    groups = (
        f"{name:17}{len(classes):,} classes ({bounds[name]}) with {sum(statistics.counts[c] for c in classes):,} images"
        for name, classes in statistics.groups.items()
    )
    largest, smallest = max(statistics.counts), min(statistics.counts)
    return "\n".join(
        [
            f"training images  {statistics.total:,} of {statistics.num_classes:,} classes, {largest:,} down to {smallest:,}",
            f"imbalance ratio  {statistics.imbalance_ratio:g}",
            *groups,
            f"fingerprint      {fingerprint}",
            "",
            text_curve(statistics),
            "",
        ]
    )


def _title(published: PublishedSet, tail: Tail) -> str:
    if not isinstance(published, DrawnSet):
        return published.title
    return f"{published.title}, imbalance ratio {tail.imbalance_ratio:g}, {tail.profile}"


def _push(arguments: argparse.Namespace) -> None:
    published_set(arguments.name, SETS)
    refuse_to_publish(arguments.name)
    require_network("ltsam data push")
    draw = Draw(arguments.name, _tail(arguments))
    print(f"Published: {publish(draw, arguments.repo, arguments.data_dir, arguments.private)}")
