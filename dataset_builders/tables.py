"""People's own tables: CSV, TSV, JSON, JSON lines or Parquet, with texts, or with paths of images, and labels.

labels.csv              photos/                     news/
    path,species            metadata.csv                train.jsonl.gz
    a.jpg,owl               0001.jpg                    test.jsonl.gz

`datasets` reads them. Of a CSV every value stays as it is written: 007 is no 7, and None is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets, load_dataset
from datasets import Image as ImageFeature
from datasets.exceptions import DatasetGenerationError

from dataset_builders.csv_files import DAMAGED, check_fields, headers, is_image_name, unreadable
from dataset_builders.folders import SPLIT_FOLDERS, check_file_names, image_suffixes
from hf_ltsam.data.decoding import encoded_images, with_images
from hf_ltsam.data.labels import arrow_column
from hf_ltsam.data.texts import holds_text
from hf_ltsam.hyperparameters import nearest

READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
METADATA = "metadata"  # of metadata.csv and the like beside images, as `datasets` names it
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
PATH_COLUMNS = (
    "image",
    "file_name",
    "filename",
    "file",
    "path",
    "image_path",
    "filepath",
    "file_path",
    "img",
    "image_id",
)
_SHOWN = 3


def is_table(file: str | Path) -> bool:
    """Whether a file is a table by its name, packed by gzip or not."""
    return reader_of(Path(file)) is not None


def reader_of(file: Path) -> str | None:
    """csv, json or parquet; None for any other file."""
    suffix = file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix
    return READERS.get(suffix.lower())


def table_files(folder: str | Path) -> list[Path]:
    """The tables in a folder, in its split folders and in `data`, sorted; where there are metadata files, these alone.

    What lies deeper is about single images: many programs write a JSON file for each.
    """
    root = Path(folder)
    inner = [place for place in root.iterdir() if place.is_dir() and place.name.lower() in (*SPLIT_FOLDERS, "data")]
    files = [file for place in (root, *inner) for file in place.iterdir() if is_table(file) and file.is_file()]
    files = sorted(file for file in files if not file.name.startswith((".", "_")))
    metadata = [file for file in files if file.name.partition(".")[0].lower() == METADATA]
    return metadata or files


def describe_images(folder: Path, files: Sequence[Path]) -> bool:
    """Whether tables in a folder are its data, and no notes beside class folders: there are no images, or they name them."""
    suffixes = image_suffixes()
    if not any(file.suffix.lower() in suffixes for file in folder.rglob("*")):
        return not all(reader_of(file) == "parquet" for file in files)
    if files[0].name.partition(".")[0].lower() == METADATA:
        return True
    return any(map(_names_images, files[:_SHOWN]))


def _names_images(file: Path) -> bool:
    try:
        return path_column(read_rows([file])) is not None
    except (ValueError, OSError):  # notes of another form: COCO's annotations, an empty file
        return False


def load_tables(path: str | Path, image_column: str | None = None) -> DatasetDict:
    """The splits of a table, or of the tables in a folder.

    A split is known by its name: of the file (test.csv, data-train.jsonl), of a folder above it (test/metadata.csv), in a
    column `split` or in the first folder of image paths; what has none is "train".

    Args:
        path: a file or a folder.
        image_column: of paths of images, which becomes a column of images; None: the one whose values are such paths.

    Raises:
        FileNotFoundError: no table there, or images that are not where the table says.
        ValueError: tables of several kinds, one that cannot be read, or a column whose paths could mean several images.
    """
    place = Path(path)
    files = [place] if place.is_file() else table_files(place)
    if not files:
        raise FileNotFoundError(f"{path} holds no table ({', '.join(READERS)}).")
    kinds = {reader_of(file): file for file in files}
    if len(kinds) > 1:
        named = " and ".join(str(file) for file in kinds.values())
        raise ValueError(f"{path} holds tables of several kinds, {named}: name the file that is meant.")
    root = place.parent if place.is_file() else place
    by_split = {"train": files} if place.is_file() else _by_split(files, root)
    splits = {split: read_rows(of_split) for split, of_split in by_split.items()}
    return DatasetDict(_with_images(splits, by_split, root, image_column))


def split_named(words: str) -> str | None:
    """train, validation or test, where one of the words of a name says so."""
    return next((SPLIT_FOLDERS[word] for word in re.split(r"[^a-z]+", words.lower()) if word in SPLIT_FOLDERS), None)


def _by_split(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Files by the split that their names tell; where none tells, all are "train"."""
    named: dict[str, list[Path]] = {}
    for file in files:
        parts = reversed(file.relative_to(root).parts)  # the file's own name before that of a folder
        split = next(filter(None, map(split_named, parts)), None)
        named.setdefault(split or "", []).append(file)
    unnamed = named.pop("", [])
    if not named:
        return {"train": unnamed}
    if unnamed and "train" not in named:
        named["train"] = unnamed
    return {split: named[split] for split in ("train", "validation", "test") if split in named}


def read_rows(files: Sequence[Path]) -> Dataset:
    """One split, as it is written.

    Raises:
        ValueError: no rows, or a file that cannot be read; `datasets` alone does not always say which.
    """
    kind = str(reader_of(files[0]))
    options: dict[str, Any] = {}
    if kind == "csv":
        separators, header = headers(files)
        if len(set(separators)) > 1:
            return concatenate_datasets([read_rows([file]) for file in files])
        separator = separators[0]
        for file in files:
            check_fields(file, separator)
        as_written = Features({name: Value("string") for name in header})
        options = {"sep": separator, "features": as_written, "keep_default_na": False, "na_values": [""]}
    rows: Dataset | None = None
    try:
        rows = load_dataset(kind, data_files={"train": [str(file) for file in files]}, split="train", **options)
    except (DatasetGenerationError, *DAMAGED, ValueError) as error:
        if "no data" not in str(error):  # 'Instruction "train" corresponds to no data!'
            raise unreadable(files, error) from error
    if not rows:
        raise ValueError(f"{files[0]} has no rows.")
    return rows


def _by_column(table: Dataset) -> dict[str, Dataset] | None:
    """The splits that a column names; None where no column does."""
    for column in SPLIT_COLUMNS:
        values = _values(table, column) if column in table.column_names else [None]
        splits = [None if value is None else SPLIT_FOLDERS.get(str(value).strip().lower()) for value in values]
        if splits and None not in splits and len(set(splits)) > 1:
            return _parted(table.remove_columns(column), splits)
    return None


def _parted(table: Dataset, splits: Sequence[str | None]) -> dict[str, Dataset]:
    return {
        split: table.select([row for row, of_row in enumerate(splits) if of_row == split])
        for split in ("train", "validation", "test")
        if split in splits
    }


def _with_images(
    splits: Mapping[str, Dataset], files: Mapping[str, Sequence[Path]], root: Path, stated: str | None
) -> Mapping[str, Dataset]:
    """The splits, a column of paths being one of images; a single split is parted by a column or the paths' first folder."""
    first = next(iter(splits.values()))
    column = path_column(first) if stated is None else stated
    if column is None or column not in first.column_names or not holds_text(first, column):
        return (_by_column(first) if len(splits) == 1 else None) or splits
    located = dict(splits)
    for split, table in splits.items():
        if column in table.column_names:
            beside = [file.parent for file in files[split]]  # a name may lie in the folders of two splits
            paths = _Images([*beside, root], root).located(_values(table, column), column, files[split])
            located[split] = _as_images(table, column, paths, "" if stated is None else stated)
    if len(located) > 1:
        return located
    ((split, only),) = located.items()
    folders = [
        SPLIT_FOLDERS.get(str(path).replace("\\", "/").partition("/")[0].lower()) for path in _values(first, column)
    ]
    by_folder = None if None in folders or len(set(folders)) < 2 else _parted(only, folders)
    return _by_column(only) or by_folder or located


def images_of(table: Dataset, file: Path, image_column: str | None = None) -> tuple[Dataset, list[str]]:
    """The images of a table, one of each row in their order, encoded; and their paths as written, or FILE:ROW, from 1.

    Args:
        table: the rows of `file`, as `read_rows` gives them.
        image_column: of images or of their paths; None: found as `load_tables` finds it.

    Raises:
        FileNotFoundError: an image that is not where the table says.
        ValueError: it has no such column.
    """
    if image_column is not None and image_column not in table.column_names:
        raise ValueError(f"{file} has no column {image_column!r}.{nearest(image_column, table.column_names)}")
    column = path_column(table) if image_column is None else image_column
    if column is not None and holds_text(table, column):
        paths = _values(table, column)
        located = _Images([file.parent], file.parent).located(paths, column, [file])
        return encoded_images(_as_images(table.select_columns(column), column, located)), paths
    try:
        return encoded_images(with_images(table), image_column), [f"{file}:{row + 1}" for row in range(len(table))]
    except ValueError as error:
        raise ValueError(
            f"{file} has no one column of images, or of paths of images, among {', '.join(table.column_names)}: "
            "--image_column names it."
        ) from error


def path_column(table: Dataset) -> str | None:
    """The column whose values are file names of images; None where there is none."""
    texts = [name for name in table.column_names if holds_text(table, name)]
    named = [name for name in PATH_COLUMNS if name in texts]
    for name in dict.fromkeys([*named, *texts]):
        some = [value for value in _values(table.select(range(min(len(table), 100))), name) if value]
        if some and all(map(is_image_name, some)):
            return name
    return None


def _values(table: Dataset, column: str) -> list[Any]:
    values: list[Any] = arrow_column(table, column).to_pylist()
    return values


def _as_images(table: Dataset, column: str, paths: list[str], name: str = "") -> Dataset:
    """The same rows in the same order, without a name under that which `metadata.csv` folders have on the Hub."""
    name = name or ("image" if column == "file_name" and "image" not in table.column_names else column)
    rest = table.remove_columns(column)
    feature = ImageFeature()
    if not rest.column_names:
        return Dataset.from_dict({name: paths}).cast_column(name, feature)
    return rest.add_column(name, paths).cast_column(name, feature)


def _row_named(row: int, num_rows: int, tables: Sequence[Path]) -> str:
    """A row as it is numbered where a person opens the table: the first line of a CSV names the columns."""
    if len(tables) == 1:
        return f"row {row + 2 if reader_of(tables[0]) == 'csv' else row + 1} of {tables[0].name}"
    return f"row {row + 1} of {num_rows} in {', '.join(table.name for table in tables)}"


class _Images:
    """Where the images of a table lie: beside the table, below its folder, or where an absolute path says.

    Args:
        places: folders that paths may start from, in this order.
        root: below which a bare name is looked for.
    """

    def __init__(self, places: Sequence[Path], root: Path) -> None:
        self._places, self._root = [place.absolute() for place in places], root.absolute()
        self._below: dict[str, list[str]] | None = None  # file name, with and without suffix -> files

    def located(self, paths: Sequence[str | None], column: str, tables: Sequence[Path]) -> list[str]:
        """The file of each path.

        Args:
            column: that holds the paths.
            tables: whose rows these are, one table after the other.

        Raises:
            FileNotFoundError: one is not there; the first rows are named.
            ValueError: a bare name that several files have.
        """
        found = [self._located(path, column) for path in paths]
        missing = [row for row, file in enumerate(found) if file is None]
        if missing:
            named = ", ".join(f"{paths[row]!r} ({_row_named(row, len(paths), tables)})" for row in missing[:_SHOWN])
            raise FileNotFoundError(
                f"{len(missing)} of {len(paths)} images that the column {column!r} names are not there: {named}. They "
                f"were looked for in {', '.join(map(str, dict.fromkeys(self._places)))} and below: paths "
                "are relative to the table."
            )
        files = [str(file) for file in found]
        check_file_names(files)
        return files

    def _located(self, path: str | None, column: str) -> str | None:
        if not path:
            return None
        plain = path.replace("\\", "/")
        for place in self._places:
            if (place / plain).is_file():
                return str(place / plain)
        below = self._index().get(plain.rpartition("/")[2], []) if "/" not in plain else []
        if len(below) > 1:
            raise ValueError(
                f"{path!r} of the column {column!r} could be {below[0]} or {below[1]}: give paths with folders."
            )
        return below[0] if below else None

    def _index(self) -> dict[str, list[str]]:
        if self._below is None:
            self._below = {}
            for file in self._files():
                for name in dict.fromkeys((file.name, file.stem)):
                    self._below.setdefault(name, []).append(str(file))
        return self._below

    def _files(self) -> Iterator[Path]:
        suffixes = image_suffixes()
        return (file for file in sorted(self._root.rglob("*")) if file.suffix.lower() in suffixes and file.is_file())
