"""`ltsam corrupt`: write the -C set of any images."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.corruptions.parameters import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES


def main(words: Sequence[str]) -> None:
    """Run the command with these words, those behind `ltsam corrupt`."""
    options = _parser().parse_args(words)

    from dataset_builders.corruptions.apply import check_settings
    from dataset_builders.corruptions.writer import write_corrupted

    for corruption, severity in itertools.product(options.corruptions, options.severities):
        check_settings(corruption, severity)  # before the data set is loaded
    files = write_corrupted(
        _load(options.dataset, options.split),
        options.output,
        corruptions=options.corruptions,
        severities=options.severities,
        seed=options.seed,
        workers=options.workers,
        image_column=options.image_column,
        size=options.size,
    )
    print(f"{len(files)} files of {Path(options.output)}: CORRUPTION/SEVERITY.parquet")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ltsam corrupt",
        description="Write the -C set of any images: every corruption of ImageNet-C at 5 severities, as Parquet files. "
        "An interrupted run is continued by the same command.",
        epilog=f"further corruptions: {', '.join(EXTRA_CORRUPTIONS)}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dataset",
        required=True,
        help="a Parquet file, a folder of Parquet files or of images in class folders, or a name on the Hub",
    )
    parser.add_argument("--split", default="test", help="of the data set (default: test)")
    parser.add_argument("--output", required=True, help="the folder to write to")
    parser.add_argument(
        "--corruptions", nargs="+", default=list(CORRUPTIONS), metavar="NAME", help="default: the 15 of ImageNet-C"
    )
    parser.add_argument(
        "--severities", nargs="+", type=int, default=list(SEVERITIES), metavar="N", help="default: 1 to 5"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (default: one per CPU)")
    parser.add_argument("--image_column", help="default: the only one")
    parser.add_argument(
        "--size", type=int, help="bring images to SIZE x SIZE first, 224 as in ImageNet-C (default: as they are)"
    )
    return parser


def _load(source: str, split: str):
    """One split, from local files or from the Hub."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    path = Path(source)
    files = [path] if path.is_file() else sorted(f for p in (f"{split}-*", split) for f in path.glob(f"**/{p}.parquet"))
    if files:
        return load_dataset("parquet", data_files={split: [str(file) for file in files]}, split=split)
    try:
        splits = load_dataset(source)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"--dataset {source} is no file, no folder and no data set on the Hub that can be reached."
        ) from error
    if split not in splits:
        raise ValueError(f"--split {split}: {source} has {', '.join(splits)}.")
    return splits[split]
