"""`ltsam corrupt`: write the -C set of any images."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, load_dataset

from dataset_builders.corruptions.apply import check_settings
from dataset_builders.corruptions.parameters import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from dataset_builders.corruptions.writer import write_corrupted
from dataset_builders.hub import NOT_FOUND, load_from_hub, stated_as
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.data.decoding import with_images
from hf_ltsam.runs.record import split_revision


def main(words: Sequence[str]) -> None:
    """`ltsam corrupt`."""
    options = _parser().parse_args(words)
    files = corrupt_dataset(
        options.dataset,
        options.output,
        options.split,
        options.corruptions,
        options.severities,
        options.seed,
        options.workers,
        options.image_column,
        options.size,
    )
    print(f"{len(files)} files of {options.output}: CORRUPTION/SEVERITY.parquet")


def corrupt_dataset(
    dataset: str,
    output: Path,
    split: str = "test",
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    workers: int | None = None,
    image_column: str | None = None,
    size: int | None = None,
) -> list[Path]:
    """Write the -C set of a data set by its name; settings are checked before it is loaded.

    Args:
        dataset: a Parquet file, a folder of Parquet files or of images in class folders, or a name on the Hub.
        output: the folder to write to.
        corruptions, severities, seed, workers, image_column, size: as `write_corrupted` takes them.

    Returns:
        The files, CORRUPTION/SEVERITY.parquet.

    Raises:
        ValueError, FileNotFoundError: no such corruption, severity, data set or split.
    """
    for corruption, severity in itertools.product(corruptions, severities):
        check_settings(corruption, severity)
    return write_corrupted(
        _load(dataset, split),
        output,
        corruptions=corruptions,
        severities=severities,
        seed=seed,
        workers=workers,
        image_column=image_column,
        size=size,
    )


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="ltsam corrupt",
        description="Write the -C set of any images: every corruption of ImageNet-C at 5 severities, as Parquet files. "
        "An interrupted run is continued by the same command.",
        epilog=f"further corruptions: {', '.join(EXTRA_CORRUPTIONS)}",
    )
    parser.add_argument(
        "--dataset",
        required=True,
        help="a Parquet file, a folder of Parquet files or of images in class folders, or OWNER/NAME on the Hub, also "
        "OWNER/NAME@REVISION",
    )
    parser.add_argument("--split", default="test", help="of the data set (default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write to")
    parser.add_argument(
        "--corruptions", nargs="+", default=list(CORRUPTIONS), metavar="NAME", help="default: those of ImageNet-C"
    )
    parser.add_argument("--severities", nargs="+", type=int, default=list(SEVERITIES), metavar="N", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (default: one per CPU)")
    parser.add_argument("--image_column", help="default: the only one")
    parser.add_argument(
        "--size", type=int, help="bring images to SIZE x SIZE first, 224 as in ImageNet-C (default: as they are)"
    )
    return parser


def _load(source: str, split: str) -> Dataset:
    """One split, from local files or from the Hub."""
    path = Path(source)
    files = [path] if path.is_file() else sorted(f for p in (f"{split}-*", split) for f in path.glob(f"**/{p}.parquet"))
    with stated_as(f"--dataset {source}"):
        try:
            if files:
                parquet = {split: [str(file) for file in files]}
                return with_images(load_dataset("parquet", data_files=parquet, split=split))
            name, revision = split_revision(source)
            splits = load_from_hub(name, revision=revision)
        except NOT_FOUND:
            raise
        except (OSError, ValueError) as error:
            raise ValueError(f"--dataset {source} cannot be read: {error}") from error
    if split not in splits:
        raise ValueError(f"--split {split}: {source} has {', '.join(splits)}.")
    return with_images(splits[split])
