"""`ltsam data`: which sets there are, what one looks like, and publishing a draw."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from dataset_builders.catalogue import (
    CIFAR,
    LISTED,
    LONG_TAILED,
    listed_builder,
    long_tail_statistics,
    training_fingerprint,
)
from dataset_builders.long_tail import PROFILES
from dataset_builders.publish import Draw, publish, refuse_to_publish
from dataset_builders.sets.facts import FACTS
from hf_ltsam import ClassStatistics
from hf_ltsam.hyperparameters import nearest
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
        command.add_argument("name", metavar="NAME", help=f"one of {', '.join(FACTS)}")
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
    for name, facts in FACTS.items():
        print(f"{name:16} {facts.title}: {facts.what}")
    print(
        "\nltsam data info NAME tells more. In Python: load_long_tailed(NAME, data_dir), load_shifted(NAME, data_dir)."
    )


def _info(arguments: argparse.Namespace) -> None:
    name = _known(arguments.name)
    facts = FACTS[name]
    print(f"{facts.title} ({name}): {facts.what}")
    if name in LONG_TAILED:
        statistics, fingerprint = _training_set(arguments)
        print(describe(statistics, fingerprint))
        if arguments.figure is not None:
            draw_curve(statistics, _title(arguments), arguments.figure)
            print(f"The curve is in {arguments.figure}.")
    elif arguments.figure is not None:
        raise ValueError(f"--figure: {name} is a test set and has no training images to draw.")
    print(f"construction     {facts.construction}\nsource           {facts.source}\nterms            {facts.terms}")


def _training_set(arguments: argparse.Namespace) -> tuple[ClassStatistics, str]:
    name = arguments.name
    if arguments.lists is not None:
        if name not in LISTED:
            raise ValueError(f"--lists is for {', '.join(LISTED)}; {name} has no list.")
        builder = listed_builder(name, None, arguments.lists, own_lists=True, splits=("train",))
        return ClassStatistics(builder.classes().counts), builder.split_lists["train"].sha256
    statistics = long_tail_statistics(name, imbalance_ratio=arguments.imbalance_ratio, profile=arguments.profile)
    return statistics, training_fingerprint(name, arguments.imbalance_ratio, arguments.profile, arguments.seed)


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


def _title(arguments: argparse.Namespace) -> str:
    title = FACTS[arguments.name].title
    if arguments.name not in CIFAR:
        return title
    return f"{title}, imbalance ratio {arguments.imbalance_ratio:g}, {arguments.profile}"


def _push(arguments: argparse.Namespace) -> None:
    name = _known(arguments.name)
    refuse_to_publish(name)
    require_network("ltsam data push")
    draw = Draw(name, arguments.imbalance_ratio, arguments.profile, arguments.seed)
    print(f"Published: {publish(draw, arguments.repo, arguments.data_dir, arguments.private)}")


def _known(name: str) -> str:
    if name not in FACTS:
        raise ValueError(f"There is no data set {name!r}.{nearest(name, FACTS)}")
    return name
