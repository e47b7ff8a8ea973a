"""`ltsam data`: the data sets in a list, one of them in full, and a long-tailed split published on the Hub."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.catalogue import SETS, published_set, sets_of
from dataset_builders.long_tail import PROFILES
from dataset_builders.publish import Draw, publish, refuse_to_publish
from dataset_builders.sources.published_set import DrawnSet, ListedSet, LongTailedSet, PublishedSet, Tail, UserCopy
from hf_ltsam import ClassStatistics
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.hyperparameters import canonical
from hf_ltsam.runs.class_frequencies import draw_curve, group_ranges, text_curve
from hf_ltsam.runs.hub import require_network


def main(words: Sequence[str]) -> None:
    """`ltsam data list`, `ltsam data info NAME` or `ltsam data push NAME REPO`."""
    arguments = _parser().parse_args(words)
    if arguments.command == "list":
        print(sets_page())
        return
    arguments.name = canonical(SETS, arguments.name)
    tail = Tail(arguments.imbalance_ratio, arguments.profile, arguments.seed)
    if arguments.command == "push":
        url = push_draw(arguments.name, arguments.repo, tail, arguments.data_dir, arguments.private)
        print(f"Published: {url}")
        return
    print(set_page(arguments.name, tail, arguments.lists, arguments.figure))


def sets_page() -> str:
    """A line for every data set."""
    lines = [f"{name:16} {published.title}: {published.what}" for name, published in SETS.items()]
    more = "ltsam data info NAME tells more. In Python: load_long_tailed(NAME, data_dir), load_shifted(NAME, data_dir)."
    return "\n".join([*lines, "", more])


def set_page(name: str, tail: Tail | None = None, lists: str | None = None, figure: Path | None = None) -> str:
    """All about one data set; of a long-tailed one the counts, groups, fingerprint and curve of its training images.

    Args:
        tail: of a set that is drawn; None: the published one.
        lists: folder of the user's own lists, of a set that has lists.
        figure: a PNG to draw the curve into.

    Raises:
        ValueError: an unknown set, lists for a set that has none, or a figure of a test set.
    """
    published, tail = published_set(name, SETS), tail or Tail()
    if lists is not None and name not in sets_of(ListedSet):
        raise ValueError(f"--lists is for {', '.join(sets_of(ListedSet))}; {name} has no list.")
    lines = [f"{published.title} ({name}): {published.what}"]
    if isinstance(published, LongTailedSet):
        copy = UserCopy(lists=lists, own_lists=lists is not None)
        statistics = published.statistics(copy, tail)
        lines.append(describe(statistics, published.fingerprint(copy, tail)))
        if figure is not None:
            draw_curve(statistics, _title(published, tail), figure)
            lines.append(f"The curve is in {figure}.")
    elif figure is not None:
        raise ValueError(f"--figure: {name} is a test set and has no training images to draw.")
    lines += [f"construction     {published.construction}", f"source           {published.source}"]
    lines += [f"terms            {published.terms}", "", *_next_steps(name, published, tail, lists)]
    return "\n".join(lines)


def _next_steps(name: str, published: PublishedSet, tail: Tail, lists: str | None) -> list[str]:
    """The commands that use the set."""
    if not isinstance(published, LongTailedSet):
        return [f"test on it       ltsam evaluate --model RUN --sets {name} --data_dir {name}=FOLDER"]
    words = ["ltsam", "train", "--builder", name, "--dataset", published.hub or "FOLDER"]
    if isinstance(published, DrawnSet):
        values = {"profile": tail.profile, "split_seed": tail.seed, "many_above": published.many_above}
        values["few_below"] = published.few_below
        stated = {option: value for option, value in values.items() if value != getattr(DataArguments, option)}
        for option, value in {"imbalance_ratio": f"{tail.imbalance_ratio:g}", **stated}.items():
            words += [f"--{option}", str(value)]
    else:
        words += ["--model", "microsoft/resnet-50", *([] if lists is None else ["--own_lists", "--lists", lists])]
    return [f"train on it      {shlex.join(words)}", f"published rows   ltsam recipes {name}"]


def push_draw(name: str, repo: str, tail: Tail, data_dir: str | None = None, private: bool = False) -> str:
    """Publish a draw of CIFAR-LT on the Hub.

    Args:
        repo: OWNER/NAME.
        data_dir: folder of CIFAR's Parquet files; None: the originals on the Hub.

    Returns:
        Its address.

    Raises:
        ValueError: an unknown set, or one that may not be published.
        HubError: the Hub cannot be reached, or refuses.
    """
    published_set(name, SETS)
    refuse_to_publish(name)
    require_network("ltsam data push")
    return publish(Draw(name, tail), repo, data_dir, private)


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(prog="ltsam data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | info NAME | push NAME REPO")
    commands.add_parser("list", help="the sets")
    info = commands.add_parser("info", help="counts, groups, imbalance ratio, fingerprint and class-frequency curve")
    push = commands.add_parser("push", help="publish a long-tailed split of CIFAR on the Hub, with its card")
    for command in (info, push):
        command.add_argument("name", metavar="NAME", help=f"one of {', '.join(SETS)}")
        command.add_argument(
            "--imbalance_ratio",
            type=float,
            default=100,
            help="CIFAR: largest class over smallest (default: %(default)s)",
        )
        command.add_argument("--profile", default="exponential", choices=PROFILES, help="CIFAR: shape of the tail")
        command.add_argument("--seed", type=int, default=0, help="CIFAR: of the draw; 0 is the published one")
    info.add_argument("--lists", metavar="FOLDER", help="lists of your own, in place of the published ones")
    info.add_argument("--figure", type=Path, metavar="FILE", help="draw the curve into this PNG, too")
    push.add_argument("repo", metavar="REPO", help="OWNER/NAME on the Hub")
    push.add_argument("--data_dir", metavar="FOLDER", help="CIFAR's Parquet files (default: the originals on the Hub)")
    push.add_argument("--private", action="store_true", help="make a private repository")
    return parser


def describe(statistics: ClassStatistics, fingerprint: str) -> str:
    """Counts, groups, imbalance ratio and fingerprint, with the curve."""
    ranges = group_ranges(statistics)
    groups = (
        f"{name:17}{len(classes):,} classes ({ranges[name]}) with {sum(statistics.counts[c] for c in classes):,} images"
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
            "images per class, most frequent first (logarithmic scale)",
            text_curve(statistics),
            "",
        ]
    )


def _title(published: PublishedSet, tail: Tail) -> str:
    if not isinstance(published, DrawnSet):
        return published.title
    return f"{published.title}, imbalance ratio {tail.imbalance_ratio:g}, {tail.profile}"
