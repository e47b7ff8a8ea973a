"""Reading a -C set that `write_corrupted` made."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builders.corruptions.apply import check_settings
from dataset_builders.corruptions.manifest import read_manifest
from dataset_builders.corruptions.parameters import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES


@dataclass
class CorruptionConfig(datasets.BuilderConfig):
    """One corruption at one severity."""

    corruption: str = CORRUPTIONS[0]
    severity: int = 1


class CorruptedSet(datasets.ArrowBasedBuilder):
    """A builder with one config per corruption and severity ("gaussian_noise-1"); the files are given to it."""

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = CorruptionConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 (datasets reads the class attribute)
        CorruptionConfig(
            name=f"{corruption}-{severity}",
            version=datasets.Version("1.0.0"),
            description=f"{corruption} at severity {severity} of 5",
            corruption=corruption,
            severity=severity,
        )
        for corruption in (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
        for severity in SEVERITIES
    ]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Images corrupted as in ImageNet-C (Hendrycks & Dietterich 2019); frost uses computed textures.",
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        files = [str(file) for file in self.config.data_files["test"]]
        self.info.features = datasets.Features.from_arrow_schema(pq.read_schema(files[0]))
        return [datasets.SplitGenerator(name=datasets.Split.TEST, gen_kwargs={"files": files})]

    def _generate_tables(self, files: Sequence[str]) -> Iterator[tuple[Any, pa.Table]]:
        for number, path in enumerate(files):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield (number, group), file.read_row_group(group)


def load_corrupted(
    folder: str | Path, corruption: str, severity: int, cache_dir: str | Path | None = None
) -> datasets.Dataset:
    """One file of a -C set as a data set.

    Args:
        folder: that `write_corrupted` wrote to.
        corruption, severity: which file.
        cache_dir: where `datasets` keeps it as Arrow; None: its usual place.

    Raises:
        FileNotFoundError: no such set, or this corruption is not (or not yet) in it.
        ValueError: unknown corruption or severity, or a damaged set.
    """
    check_settings(corruption, severity)
    path = Path(folder) / corruption / f"{severity}.parquet"
    read_manifest(Path(folder))
    if not path.is_file():
        there = sorted(f"{file.parent.name} {file.stem}" for file in Path(folder).glob("*/*.parquet"))
        raise FileNotFoundError(
            f"{folder} holds no {corruption} of severity {severity}; there are {', '.join(there) or 'no finished files'}."
        )
    files = {"test": [glob.escape(str(path.absolute()))]}
    builder = CorruptedSet(
        config_name=f"{corruption}-{severity}",
        data_files=files,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )
    builder.download_and_prepare()
    return builder.as_dataset(split="test")
