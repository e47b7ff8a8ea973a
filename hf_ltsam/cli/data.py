"""`ltsam data`: the data sets in a list, one of them in full, and long-tailed splits in a folder or on the Hub."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_builders.catalogue import SETS, published_set, sets_of
from dataset_builders.long_tail import PROFILES
from dataset_builders.publish import Draw, publish, refuse_to_publish, write_draws, write_lists
from dataset_builders.sources.published_set import (
    USUAL_RATIO,
    DrawnSet,
    ListedSet,
    LongTailedSet,
    PublishedSet,
    Tail,
    UserCopy,
)
from hf_ltsam import ClassStatistics
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.hyperparameters import canonical
from hf_ltsam.runs.class_frequencies import draw_curve, group_ranges, text_curve
from hf_ltsam.runs.hub import require_network


def main(words: Sequence[str]) -> None:
    """`ltsam data list`, `info NAME`, `write NAME FOLDER` or `push NAME REPO`."""
    arguments = _parser().parse_args(words)
    if arguments.command == "list":
        print(sets_page())
        return
    arguments.name = canonical(SETS, arguments.name)
    stated = {
        name: value
        for name in ("imbalance_ratio", "profile", "seed")
        if (value := getattr(arguments, name)) is not None
    }
    _refuse_unused(arguments.name, stated, getattr(arguments, "configurations", []))
    tail = Tail(**stated)
    if arguments.command == "info":
        print(set_page(arguments.name, tail, arguments.lists, arguments.figure))
        return
    tails = [Tail.named(name) for name in arguments.configurations] or [tail]
    if arguments.command == "push":
        url = push_draws(arguments.name, arguments.repo, tails, arguments.data_dir, arguments.private)
        print(f"Published: {url}")
        return
    names = write_data(arguments.name, arguments.folder, tails, arguments.data_dir, arguments.lists)
    print(f"Written: {arguments.folder}, with {', '.join(names)}.")
    print(f'Load it: load_dataset("{arguments.folder}", "{names[0]}"), from datasets import load_dataset.')


def _refuse_unused(name: str, stated: Mapping[str, object], configurations: Sequence[str]) -> None:
    """Refuse settings of a draw where nothing is drawn, or where names of configurations say them all.

    Raises:
        ValueError: the first of them.
    """
    first = next((f"--{option}" for option in [*stated, *(["configurations"] if configurations else [])]), None)
    if first is not None and name in SETS and name not in sets_of(DrawnSet):
        raise ValueError(f"{first} is for {', '.join(sets_of(DrawnSet))}; {name} is not drawn. Leave it out.")
    if stated and configurations:
        raise ValueError(
            f"{first} and --configurations: a name says the whole draw, such as step_r10 or r100_seed1. Leave {first} out."
        )


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
        values = {"profile": tail.profile, "split_seed": tail.seed}
        stated = {option: value for option, value in values.items() if value != getattr(DataArguments, option)}
        for option, value in {"imbalance_ratio": f"{tail.imbalance_ratio:g}", **stated}.items():
            words += [f"--{option}", str(value)]
    else:
        words += ["--model", "microsoft/resnet-50", *([] if lists is None else ["--own_lists", "--lists", lists])]
    return [f"train on it      {shlex.join(words)}", f"published rows   ltsam recipes {name}"]


def push_draws(name: str, repo: str, tails: Sequence[Tail], data_dir: str | None = None, private: bool = False) -> str:
    """Publish draws of CIFAR-LT as configurations of one data set on the Hub, beside those that it has.

    Args:
        repo: OWNER/NAME.
        data_dir: folder of CIFAR's Parquet files; None: the originals on the Hub.

    Returns:
        Its address.

    Raises:
        ValueError: an unknown set, one that may not be published, or a repository of another data set.
        HubError: the Hub cannot be reached, or refuses.
    """
    published_set(name, SETS)
    refuse_to_publish(name)
    require_network("ltsam data push")
    return publish([Draw(name, tail) for tail in tails], repo, data_dir, private)


def write_data(
    name: str, folder: str, tails: Sequence[Tail], data_dir: str | None = None, lists: str | None = None
) -> list[str]:
    """The same in a local folder; of a set that is a published list its paths and labels.

    Args:
        lists: folder of the user's own lists.

    Returns:
        The configurations in the folder.

    Raises:
        FileNotFoundError, ValueError: no such set, images or lists; a test set; a folder of another data set.
    """
    published = published_set(name, SETS)
    if isinstance(published, ListedSet):
        return write_lists(name, folder, UserCopy(data_dir, lists, own_lists=lists is not None))
    if lists is not None:
        raise ValueError(f"--lists is for {', '.join(sets_of(ListedSet))}; {name} has no list.")
    if not isinstance(published, DrawnSet):
        raise ValueError(f"{name} is a test set, which is read where it is: load_shifted.")
    return write_draws([Draw(name, tail) for tail in tails], folder, data_dir)


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(prog="ltsam data", description=__doc__)
    forms = "list | info NAME | write NAME FOLDER | push NAME REPO"
    commands = parser.add_subparsers(dest="command", required=True, metavar=forms)
    commands.add_parser("list", help="the sets")
    info = commands.add_parser("info", help="counts, groups, imbalance ratio, fingerprint and class-frequency curve")
    write = commands.add_parser(
        "write", help="a long-tailed split of CIFAR, or a split list, for load_dataset(FOLDER, ...)"
    )
    push = commands.add_parser("push", help="publish a long-tailed split of CIFAR on the Hub, with its card")
    for command in (info, write, push):
        command.add_argument("name", metavar="NAME", help=f"one of {', '.join(SETS)}")
        command.add_argument(
            "--imbalance_ratio",
            type=float,
            help=f"CIFAR: largest class over smallest (default: {USUAL_RATIO:g})",
        )
        command.add_argument("--profile", choices=PROFILES, help="CIFAR: shape of the tail (default: exponential)")
        command.add_argument("--seed", type=int, help="CIFAR: of the draw; left out, the published one")
    write.add_argument("folder", metavar="FOLDER", help="made where it does not exist; configurations in it stay")
    push.add_argument("repo", metavar="REPO", help="OWNER/NAME on the Hub; configurations in it stay")
    for command in (write, push):
        command.add_argument(
            "--configurations",
            nargs="+",
            default=[],
            metavar="NAME",
            help="CIFAR: several draws at once, by name: r10 r50 r100 r200 step",
        )
        command.add_argument(
            "--data_dir", metavar="FOLDER", help="CIFAR's Parquet files (default: the originals on the Hub)"
        )
    for command in (info, write):
        command.add_argument("--lists", metavar="FOLDER", help="lists of your own, in place of the published ones")
    info.add_argument("--figure", type=Path, metavar="FILE", help="draw the curve into this PNG, too")
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
