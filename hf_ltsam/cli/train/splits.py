"""Training and test split as they are stored: on the Hub, in tables, in Parquet files or in folders of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from datasets import Image as ImageColumn
from torch import Tensor

from dataset_builders.catalogue import load_long_tailed, long_tailed_sets, published_bounds
from dataset_builders.configurations import load_configuration
from dataset_builders.folders import load_image_folder
from dataset_builders.hub import stated_as
from dataset_builders.long_tail import hold_out_per_class, long_tailed
from dataset_builders.sets.cifar_lt import load_cifar_lt
from dataset_builders.tables import describe_images, load_tables, table_files
from hf_ltsam import ClassStatistics
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.data.bad_images import NAMED
from hf_ltsam.data.class_columns import class_names_in, unknown_classes, with_classes
from hf_ltsam.data.class_names import contradiction, some
from hf_ltsam.data.decoding import image_column_of, unreadable_rows, with_images
from hf_ltsam.data.labels import LABEL_WORDS, class_label_columns, read_label_column
from hf_ltsam.data.texts import require_columns, text_columns_of, warn_of_empty
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.training.second_stage.tau import hold_out

IMAGE, TEXT = "image", "text"
TASKS = ("auto", IMAGE, TEXT)
CIFAR = (
    "cifar_lt"  # whichever of cifar10_lt and cifar100_lt the files are of; recipes have it, the lists of names do not
)


@dataclass(frozen=True)
class Splits:
    """Images not yet decoded or texts, labels read.

    Args:
        train, test: rows with an image column or text columns, and the label column.
        train_labels, test_labels: class indices (N,).
        label_column: a `ClassLabel`.
        class_names: its C names.
        train_is_readable: all training images have been decoded once.
        reserved: training images that are left out of `train`; None: none are.
        text_columns: of a text, or of the two of a pair; empty: these are images.
    """

    train: Dataset
    test: Dataset
    train_labels: Tensor
    test_labels: Tensor
    label_column: str
    class_names: list[str]
    train_is_readable: bool = False
    reserved: Dataset | None = None
    text_columns: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        return TEXT if self.text_columns else IMAGE

    def statistics(self, arguments: DataArguments, tail_threshold: int | None) -> ClassStatistics:
        """The class statistics of the training split."""
        many_above, few_below = arguments.many_above, arguments.few_below
        if many_above is few_below is None:
            many_above, few_below = published_bounds(arguments.builder)
        return ClassStatistics.from_labels(
            self.train_labels,
            len(self.class_names),
            tail_threshold=tail_threshold,
            many_above=many_above,
            few_below=few_below,
            group_sizes=arguments.group_sizes,
        )


def load_splits(arguments: DataArguments) -> Splits:
    """Load, draw the long tail, read the labels.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: no such split or label column, a tail that cannot be drawn, or test images without labels.
    """
    splits = builders()[builder_of(arguments)](arguments)
    train = _named(splits, arguments.train_split)
    column = _label_column(train, arguments)
    train = _without_empty_classes(train, column)
    names = train.features[column].names
    test = _numbered_alike(_test_split(splits, arguments), column, names, arguments.only_known_classes)
    test_labels = read_label_column(test, column)
    if int(test_labels.min()) < 0:
        raise ValueError("The test split is not labelled (it has the label -1): name another one with --test_split.")
    texts = _text_columns(train, arguments, column)
    require_columns(test, texts)
    labels = read_label_column(train, column)
    warn_of_empty("training", train, texts, labels.tolist())
    warn_of_empty("test", test, texts, test_labels.tolist())
    if arguments.reserve is None:
        return Splits(train, test, labels, test_labels, column, names, text_columns=texts)
    out = hold_out(labels, arguments.reserve, arguments.split_seed)
    kept = torch.ones(len(labels), dtype=torch.bool).index_fill(0, out, False).nonzero().flatten()
    return Splits(
        train.select(kept),
        test,
        labels[kept],
        test_labels,
        column,
        names,
        reserved=train.select(out),
        text_columns=texts,
    )


def _text_columns(train: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Of texts; none where these are images.

    Raises:
        ValueError: there is no such column, or several could be meant.
    """
    is_image = any(isinstance(feature, ImageColumn) for feature in train.features.values())
    if arguments.task == IMAGE or (arguments.task == "auto" and arguments.image_column is not None):
        image_column_of(train, arguments.image_column)
        return ()
    if arguments.task == "auto" and arguments.text_column is None and is_image:
        return ()
    return text_columns_of(train, arguments.text_column, label_column)


def without_unreadable(splits: Splits, arguments: DataArguments, progress: bool = True) -> Splits:
    """The same without training images that cannot be decoded; they are counted, and the first ones named."""
    bad = unreadable_rows(splits.train, arguments.image_column, progress, arguments.pixel_values)
    if bad:
        named = "; ".join([*list(bad.values())[:NAMED], *["..."] * (len(bad) > NAMED)])
        warnings.warn(f"{len(bad)} of {len(splits.train)} training images are left out: {named}", stacklevel=2)
    good = [row for row in range(len(splits.train)) if row not in bad]
    lost = sorted(set(splits.train_labels.tolist()) - set(splits.train_labels[good].tolist()))
    if lost:
        names = some([splits.class_names[c] for c in lost])
        raise ValueError(f"No training image of {names} can be read, so nothing could be learned of such classes.")
    return replace(
        splits, train=splits.train.select(good), train_labels=splits.train_labels[good], train_is_readable=True
    )


def _from_hub(arguments: DataArguments) -> DatasetDict:
    """Also a local folder of Parquet files, in the Hub's layout."""
    name, revision = str(arguments.dataset), arguments.dataset_revision
    with stated_as(f"--dataset {name}" + (f" --dataset_revision {revision}" if revision else "")):
        splits = load_configuration(name, arguments.dataset_config_name, revision)
    return _with_tail(_held_out(_with_classes(splits, arguments), arguments), arguments)


def _from_tables(arguments: DataArguments) -> DatasetDict:
    """Texts, or paths of images, with their labels; Parquet files in a folder are in the Hub's layout."""
    tables = load_tables(str(arguments.dataset), arguments.image_column if arguments.task != TEXT else None)
    splits = DatasetDict({name: with_images(split) for name, split in tables.items()})
    return _with_tail(_held_out(_with_classes(splits, arguments), arguments), arguments)


def _held_out(splits: DatasetDict, arguments: DataArguments) -> DatasetDict:
    """With a test split drawn from the training split, where one is asked for and needed.

    Raises:
        ValueError: there is a test split already, or neither one nor a wish for one.
    """
    wish, there = arguments.held_out_per_class, [name for name in ("test", "validation") if name in splits]
    there = there if arguments.test_split is None else [arguments.test_split]
    if wish and there:
        raise ValueError(
            f"--held_out_per_class {wish}, but the data set has the split {there[0]!r} to test on: leave the one out, or "
            "name the file of the training split alone."
        )
    if wish:
        train = _named(splits, arguments.train_split)
        drawn = hold_out_per_class(train, wish, arguments.split_seed, _label_column(train, arguments))
        return DatasetDict({arguments.train_split: drawn["train"], "validation": drawn["validation"]})
    if not there:
        raise ValueError(
            f"{arguments.dataset} has no held-out images or texts, so nothing could be measured: there is "
            f"{', '.join(map(repr, splits))} alone. --held_out_per_class K sets K of every class aside, at most half "
            "of each."
        )
    return splits


def _with_classes(splits: DatasetDict, arguments: DataArguments) -> DatasetDict:
    """The training split's label column as a `ClassLabel`, also where it holds numbers or words."""
    train = _named(splits, arguments.train_split)
    column = _label_column(train, arguments)
    return DatasetDict({**splits, arguments.train_split: with_classes(train, column, class_names_in(train, column))})


def _without_empty_classes(train: Dataset, column: str) -> Dataset:
    """The training split, its classes being those that it has samples of."""
    names: list[str] = train.features[column].names
    labels = read_label_column(train, column)
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"{int((labels < 0).sum())} training samples have the label -1, which stands for no class.")
    present = [names[c] for c in labels.unique().tolist()]
    empty = [name for name in names if name not in set(present)]
    if not empty:
        return train
    warnings.warn(
        f"{len(empty)} of {len(names)} classes have no training sample and are left out: {some(empty)}.", stacklevel=3
    )
    return with_classes(train, column, present)


def _test_split(splits: DatasetDict, arguments: DataArguments) -> Dataset:
    return _named(splits, arguments.test_split or ("test" if "test" in splits else "validation"))


def _numbered_alike(test: Dataset, column: str, names: list[str], only_known: bool = False) -> Dataset:
    """The test split with the class numbers of the training split; without classes that it has not, where that is meant.

    Raises:
        ValueError: no such column, or classes that the training split has not.
    """
    if column not in test.column_names:
        raise ValueError(
            f"The test split has no column {column!r}, only {', '.join(test.column_names)}: --test_split names another one, "
            "and --held_out_per_class K draws one where --dataset names the file of the training split alone."
        )
    before = getattr(test.features[column], "names", None)
    same_order = before is not None and [name for name in before if name in names] == names
    if before is not None and not same_order and contradiction(names, before) is not None:
        warnings.warn("The test split numbers classes otherwise than the training split: taken by name.", stacklevel=2)
    unknown = unknown_classes(test, column, names)
    if not unknown:
        return with_classes(test, column, names)
    rows = {row for of_class in unknown.values() for row in of_class}
    if not only_known:
        raise ValueError(
            f"The test split has {len(unknown)} classes that the training set has not ({some(list(unknown))}; {len(rows)} "
            f"of {len(test)} rows): its classes are {some(names)}. Correct the names, or --only_known_classes true leaves "
            "these rows out."
        )
    if len(rows) == len(test):
        raise ValueError(
            f"The test split has no class of the training split ({some(names)}), only {some(list(unknown))}."
        )
    warnings.warn(
        f"{len(rows)} test samples of classes without training samples are left out: {some(list(unknown))}.",
        stacklevel=2,
    )
    return with_classes(test.select([row for row in range(len(test)) if row not in rows]), column, names)


def _from_image_folder(arguments: DataArguments) -> DatasetDict:
    root, held_out = str(arguments.dataset), arguments.held_out_per_class
    return _with_tail(load_image_folder(root, held_out, arguments.split_seed, arguments.only_known_classes), arguments)


def _from_cifar(arguments: DataArguments) -> DatasetDict:
    ratio = 1 if arguments.imbalance_ratio is None else arguments.imbalance_ratio
    return load_cifar_lt(
        str(arguments.dataset),
        ratio,
        arguments.profile,
        arguments.split_seed,
        arguments.largest_class,
        arguments.dataset_revision,
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
        revision=arguments.dataset_revision,
        splits=(arguments.train_split, arguments.test_split or "test"),
    )


def builders() -> dict[str, Callable[[DataArguments], DatasetDict]]:
    """How data are read, by the names that `--builder` takes: every long-tailed set of the catalogue among them."""
    return {
        "hub": _from_hub,
        "image_folder": _from_image_folder,
        "table": _from_tables,
        CIFAR: _from_cifar,
        **dict.fromkeys(long_tailed_sets(), _from_catalogue),
    }


def builder_of(arguments: DataArguments) -> str:
    """How the data are read: as stated, or by what is there."""
    if arguments.builder != "auto":
        return arguments.builder
    place = Path(str(arguments.dataset))
    if not place.is_dir():
        return "table" if place.is_file() else "hub"
    tables = table_files(place)
    if not tables or not (arguments.task == TEXT or arguments.text_column or describe_images(place, tables)):
        return "hub" if any(place.rglob("*.parquet")) else "image_folder"
    return "table"


def _with_tail(splits: DatasetDict, arguments: DataArguments) -> DatasetDict:
    if arguments.imbalance_ratio is None:
        return splits
    train = _named(splits, arguments.train_split)
    column = _label_column(train, arguments)
    drawn = long_tailed(
        train, arguments.imbalance_ratio, arguments.profile, arguments.split_seed, column, arguments.largest_class
    )
    return DatasetDict({**splits, arguments.train_split: drawn})


def _label_column(dataset: Dataset, arguments: DataArguments) -> str:
    """The named column, the only `ClassLabel`, one that is called as labels are, or the only one beside images.

    Raises:
        ValueError: there is no such column, or several could be meant.
    """
    name = arguments.label_column
    if name is not None:
        if name not in dataset.column_names:
            raise ValueError(f"The data set has no column {name!r}.{nearest(name, dataset.column_names)}")
        return name
    columns = class_label_columns(dataset) or [c for c in LABEL_WORDS if c in dataset.column_names][:1]
    others = [name for name, feature in dataset.features.items() if not isinstance(feature, ImageColumn)]
    if not columns and len(others) == 1 < len(dataset.column_names):
        return others[0]
    if len(columns) == 1:
        return columns[0]
    what = f"several columns of classes ({', '.join(columns)})" if columns else "no column of classes"
    raise ValueError(f"The data set has {what} among {', '.join(dataset.column_names)}: name one by --label_column.")


def _named(splits: DatasetDict, name: str) -> Dataset:
    if name not in splits:
        raise ValueError(f"The data set has no split {name!r} (--train_split, --test_split).{nearest(name, splits)}")
    return splits[name]
