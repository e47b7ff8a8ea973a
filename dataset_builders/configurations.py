"""A data set with several configurations in one folder or repository, as `load_dataset(FOLDER_OR_REPO, NAME)` reads it.

Every configuration is a folder of Parquet files; the header of `README.md` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets import (
    Dataset,
    DatasetDict,
    DatasetInfo,
    SplitDict,
    SplitInfo,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
)
from datasets.info import DatasetInfosDict
from datasets.table import embed_table_storage
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from dataset_builders.hub import check_configuration, load_from_hub
from hf_ltsam.data.class_names import check_parquet_names
from hf_ltsam.data.decoding import with_images

CARD = "README.md"


def write_configurations(configurations: Mapping[str, DatasetDict], folder: Path, header: DatasetCardData) -> None:
    """Write the Parquet files, and name them in the header beside the configurations that it has already.

    Args:
        configurations: name -> its splits.
        folder: made where it does not exist.
        header: of the card; changed. Its default configuration stays; where it has none, the first becomes it.
    """
    header_before = MetadataConfigs.from_dataset_card_data(header)
    default = header_before.get_default_config_name() or next(iter(header_before or configurations))
    described = {name: _write(name, splits, folder) for name, splits in configurations.items()}
    files = MetadataConfigs({name: {"data_files": _data_files(name, of)} for name, of in configurations.items()})
    if default != "default":  # that name alone says it
        files[default] = {**header_before.get(default, {}), **files.get(default, {}), "default": True}
    files.to_dataset_card_data(header)
    DatasetInfosDict(described).to_dataset_card_data(header)


def configuration_names(header: DatasetCardData) -> list[str]:
    """The default one first."""
    files = MetadataConfigs.from_dataset_card_data(header)
    default = files.get_default_config_name()
    return sorted(files, key=lambda name: name != default)


def load_configuration(
    dataset: str, dataset_config_name: str | None = None, dataset_revision: str | None = None
) -> DatasetDict:
    """One of them, from a folder or the Hub, with its images as images.

    Args:
        dataset: the folder, or OWNER/NAME.
        dataset_config_name: None: the default one.
        dataset_revision: of the Hub, as in `load_from_hub`.

    Raises:
        ValueError: no such configuration, a revision of a folder, or Parquet files that contradict each other in names.
        RevisionError: no such revision.
        datasets.exceptions.DatasetNotFoundError, ConnectionError: no such data set, or the Hub cannot be reached.
    """
    if Path(dataset).is_dir():
        splits = _from_folder(dataset, dataset_config_name, dataset_revision)
    else:
        splits = load_from_hub(dataset, dataset_config_name, dataset_revision)
    return DatasetDict({name: with_images(split) for name, split in splits.items()})


def _from_folder(folder: str, dataset_config_name: str | None, dataset_revision: str | None) -> DatasetDict:
    if dataset_revision is not None:
        raise ValueError(
            f"dataset_revision={dataset_revision!r}: {folder} is a folder here; only data sets on the Hub have revisions."
        )
    if dataset_config_name is not None:
        check_configuration(folder, dataset_config_name, get_dataset_config_names(folder))
    files = load_dataset_builder(folder, dataset_config_name).config.data_files or {}
    check_parquet_names(file for of_split in files.values() for file in of_split if str(file).endswith(".parquet"))
    return load_dataset(folder, dataset_config_name)


def header_of(readme: Path) -> DatasetCardData:
    """The header of a card; an empty one where there is no card."""
    return DatasetCard.load(readme).data if readme.is_file() else DatasetCardData()


def parquet_files(folder: Path, names: Mapping[str, DatasetDict]) -> dict[str, Path]:
    """path in the repository -> file."""
    return {
        f"{name}/{_file_name(split)}": folder / name / _file_name(split) for name, of in names.items() for split in of
    }


def _data_files(name: str, splits: DatasetDict) -> list[dict[str, str]]:
    return [{"split": str(split), "path": f"{name}/{split}-*"} for split in splits]


def _file_name(split: str) -> str:
    """One file for a split: the draws and lists that may be passed on have at most some hundred megabytes."""
    return f"{split}-00000-of-00001.parquet"


def _write(name: str, splits: DatasetDict, folder: Path) -> DatasetInfo:
    (folder / name).mkdir(parents=True, exist_ok=True)
    described, stored = SplitDict(), 0
    for split, rows in splits.items():
        file = folder / name / _file_name(split)
        aside = file.with_suffix(".part")  # a killed process leaves what was there
        described.add(SplitInfo(str(split), _with_content(rows).to_parquet(aside), len(rows)))
        stored += aside.stat().st_size
        aside.replace(file)
    size = sum(split.num_bytes for split in described.values())
    features = next(iter(splits.values())).features
    return DatasetInfo(
        config_name=name,
        features=features,
        splits=described,
        download_size=stored,
        dataset_size=size,
        size_in_bytes=stored + size,
    )


def _with_content(rows: Dataset) -> Dataset:
    """The bytes of images in place of their paths."""
    if not any(hasattr(feature, "embed_storage") for feature in rows.features.values()):
        return rows
    embedded = rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=1000, keep_in_memory=True)
    return embedded.with_format(None)
