"""Training and test split as they are stored: on the Hub, in Parquet files or in folders of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from torch import Tensor

from dataset_builders.catalogue import load_long_tailed, long_tailed_sets, sets_of
from dataset_builders.folders import load_image_folder, refuse_table
from dataset_builders.long_tail import check_imbalance_ratio, long_tailed, profile_named
from dataset_builders.sets.cifar_lt import load_cifar_lt
from dataset_builders.sources.published_set import ListedSet
from hf_ltsam import ClassStatistics
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.user_errors import check_choice
from hf_ltsam.data.bad_images import NAMED
from hf_ltsam.data.class_columns import class_names_in, with_classes
from hf_ltsam.data.class_names import check_parquet_names, contradiction
from hf_ltsam.data.decoding import unreadable_rows, with_images
from hf_ltsam.data.in_memory.images import CUSTOMARY_NORMALISATION
from hf_ltsam.data.labels import LABEL_NAMES, class_label_columns, read_label_column
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.training.second_stage.tau import hold_out

CIFAR = (
    "cifar_lt"  # whichever of cifar10_lt and cifar100_lt the files are of; recipes have it, the lists of names do not
)


@dataclass(frozen=True)
class Splits:
    """Images not yet decoded, labels read.

    Args:
        train, test: rows with an image column and the label column.
        train_labels, test_labels: class indices (N,).
        label_column: a `ClassLabel`.
        class_names: its C names.
        train_is_readable: all training images have been decoded once.
        reserved: training images that are left out of `train`; None: none are.
    """

    train: Dataset
    test: Dataset
    train_labels: Tensor
    test_labels: Tensor
    label_column: str
    class_names: list[str]
    train_is_readable: bool = False
    reserved: Dataset | None = None

    def statistics(self, arguments: DataArguments, tail_threshold: int | None) -> ClassStatistics:
        """The class statistics of the training split."""
        return ClassStatistics.from_labels(
            self.train_labels,
            len(self.class_names),
            tail_threshold=tail_threshold,
            many_above=arguments.many_above,
            few_below=arguments.few_below,
            group_sizes=arguments.group_sizes,
        )


def load_splits(arguments: DataArguments) -> Splits:
    """Load, draw the long tail, read the labels.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: no such split or label column, a tail that cannot be drawn, or test images without labels.
    """
    splits = builders()[_builder(arguments)](arguments)
    train = _named(splits, arguments.train_split)
    column = _label_column(train, arguments.label_column)
    test = _named(splits, arguments.test_split or ("test" if "test" in splits else "validation"))
    test = _numbered_alike(test, column, train.features[column].names)
    test_labels = read_label_column(test, column)
    if int(test_labels.min()) < 0:
        raise ValueError("The test split is not labelled (it has the label -1): name another one with --test_split.")
    labels, names = read_label_column(train, column), train.features[column].names
    if arguments.reserve is None:
        return Splits(train, test, labels, test_labels, column, names)
    out = hold_out(labels, arguments.reserve, arguments.split_seed)
    kept = torch.ones(len(labels), dtype=torch.bool).index_fill(0, out, False).nonzero().flatten()
    return Splits(train.select(kept), test, labels[kept], test_labels, column, names, reserved=train.select(out))


def without_unreadable(splits: Splits, image_column: str | None, progress: bool = True) -> Splits:
    """The same without training images that cannot be decoded; they are counted, and the first ones named."""
    bad = unreadable_rows(splits.train, image_column, progress)
    if bad:
        named = "\n".join(list(bad.values())[:NAMED])
        warnings.warn(f"{len(bad)} of {len(splits.train)} training images are left out:\n{named}", stacklevel=2)
    good = [row for row in range(len(splits.train)) if row not in bad]
    return replace(
        splits, train=splits.train.select(good), train_labels=splits.train_labels[good], train_is_readable=True
    )


def check_data(arguments: DataArguments) -> None:
    """Refuse what can be refused without loading anything.

    Raises:
        FileNotFoundError: the data set can only be a folder, and is not there.
        ValueError: no data set, a file in place of a folder, or a setting that does not exist or is out of its range.
    """
    source = arguments.dataset
    if source is None:
        raise ValueError("No data set: give --dataset (a name on the Hub, or a folder), or --config with a recipe.")
    if Path(source).is_file():
        refuse_table(source)
        raise ValueError(f"--dataset {source} is a file: give the folder that it lies in.")
    if not Path(source).is_dir() and (source.count("/") > 1 or source.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"--dataset {source}: there is no such folder, and names on the Hub have the form OWNER/NAME."
        )
    if arguments.builder != CIFAR:
        check_choice("builder", arguments.builder, (*(name for name in builders() if name != CIFAR), "auto"))
    check_choice("normalisation", arguments.normalisation, (*CUSTOMARY_NORMALISATION, "auto"))
    profile_named(arguments.profile)
    _check_lists(arguments)
    if arguments.imbalance_ratio is not None:
        check_imbalance_ratio(arguments.imbalance_ratio)
    elif arguments.largest_class is not None:
        raise ValueError(f"--largest_class {arguments.largest_class} is a part of a drawn tail: add --imbalance_ratio.")
    if arguments.reserve is not None and not 0 < arguments.reserve < 1:
        raise ValueError(
            f"--reserve {arguments.reserve:g}: a share of the training images, so it lies between 0 and 1."
        )


def _check_lists(arguments: DataArguments) -> None:
    builder, listed = arguments.builder, sets_of(ListedSet)
    if builder in listed and arguments.imbalance_ratio is not None:
        raise ValueError(f"--imbalance_ratio: the long tail of {builder} is that of its published list. Leave it out.")
    if builder not in listed and (arguments.lists is not None or arguments.own_lists):
        raise ValueError(f"--lists and --own_lists are for --builder {', '.join(listed)}, not {builder}.")


def _from_hub(arguments: DataArguments) -> DatasetDict:
    """Also a local folder of Parquet files, in the Hub's layout."""
    try:
        _check_names(str(arguments.dataset))
        return _with_tail(_with_classes(_load(str(arguments.dataset)), arguments), arguments)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"--dataset {arguments.dataset} is neither a folder here nor a data set on the Hub that can be reached."
        ) from error


def _load(dataset: str) -> DatasetDict:
    return DatasetDict({name: with_images(split) for name, split in load_dataset(dataset).items()})


def _check_names(dataset: str) -> None:
    """Of Parquet files in a folder, as `datasets` will read them."""
    if Path(dataset).is_dir():
        files = load_dataset_builder(dataset).config.data_files or {}
        check_parquet_names(file for of_split in files.values() for file in of_split if str(file).endswith(".parquet"))


def _with_classes(splits: DatasetDict, arguments: DataArguments) -> DatasetDict:
    """The training split's label column as a `ClassLabel`, also where it holds numbers or words."""
    train = _named(splits, arguments.train_split)
    column = _label_column(train, arguments.label_column)
    return DatasetDict({**splits, arguments.train_split: with_classes(train, column, class_names_in(train, column))})


def _numbered_alike(test: Dataset, column: str, names: list[str]) -> Dataset:
    """The test split with the class numbers of the training split."""
    if column not in test.column_names:
        raise ValueError(f"The test split has no column {column!r}, only {', '.join(test.column_names)}.")
    before = getattr(test.features[column], "names", None)
    if before is not None and contradiction(names, before) is not None:
        warnings.warn("The test split numbers classes otherwise than the training split: taken by name.", stacklevel=2)
    return with_classes(test, column, names)


def _from_image_folder(arguments: DataArguments) -> DatasetDict:
    return _with_tail(load_image_folder(str(arguments.dataset), arguments.held_out_per_class), arguments)


def _from_cifar(arguments: DataArguments) -> DatasetDict:
    ratio = 1 if arguments.imbalance_ratio is None else arguments.imbalance_ratio
    return load_cifar_lt(
        str(arguments.dataset), ratio, arguments.profile, arguments.split_seed, arguments.largest_class
    )


def _from_catalogue(arguments: DataArguments) -> DatasetDict:
    """The two splits of the run are looked for, and no other."""
    return load_long_tailed(
        arguments.builder,
        arguments.dataset,
        imbalance_ratio=1 if arguments.imbalance_ratio is None else arguments.imbalance_ratio,
        profile=arguments.profile,
        seed=arguments.split_seed,
        largest_class=arguments.largest_class,
        lists=arguments.lists,
        own_lists=arguments.own_lists,
        splits=(arguments.train_split, arguments.test_split or "test"),
    )


def builders() -> dict[str, Callable[[DataArguments], DatasetDict]]:
    """How data are read, by the names that `--builder` takes: every long-tailed set of the catalogue among them."""
    return {
        "hub": _from_hub,
        "image_folder": _from_image_folder,
        CIFAR: _from_cifar,
        **dict.fromkeys(long_tailed_sets(), _from_catalogue),
    }


def _builder(arguments: DataArguments) -> str:
    if arguments.builder != "auto":
        return arguments.builder
    folder = Path(str(arguments.dataset))
    return "image_folder" if folder.is_dir() and not any(folder.rglob("*.parquet")) else "hub"


def _with_tail(splits: DatasetDict, arguments: DataArguments) -> DatasetDict:
    if arguments.imbalance_ratio is None:
        return splits
    train = _named(splits, arguments.train_split)
    column = _label_column(train, arguments.label_column)
    drawn = long_tailed(
        train, arguments.imbalance_ratio, arguments.profile, arguments.split_seed, column, arguments.largest_class
    )
    return DatasetDict({**splits, arguments.train_split: drawn})


def _label_column(dataset: Dataset, name: str | None = None) -> str:
    """The named column, the only `ClassLabel`, or where there is none a column called `label`, `labels` or `label_ids`.

    Raises:
        ValueError: there is no such column, or several could be meant.
    """
    if name is not None:
        if name not in dataset.column_names:
            raise ValueError(f"The data set has no column {name!r}.{nearest(name, dataset.column_names)}")
        return name
    columns = class_label_columns(dataset) or [c for c in LABEL_NAMES if c in dataset.column_names][:1]
    if len(columns) == 1:
        return columns[0]
    what = f"several columns of classes ({', '.join(columns)})" if columns else "no column of classes"
    raise ValueError(f"The data set has {what} among {', '.join(dataset.column_names)}: name one by --label_column.")


def _named(splits: DatasetDict, name: str) -> Dataset:
    if name not in splits:
        raise ValueError(f"The data set has no split {name!r} (--train_split, --test_split).{nearest(name, splits)}")
    return splits[name]
