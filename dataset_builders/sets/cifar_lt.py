"""CIFAR-10-LT and CIFAR-100-LT, from the Hub by name or from Parquet files in a local folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, Image

from dataset_builders.hub import load_from_hub, stated_as
from dataset_builders.long_tail import (
    check_imbalance_ratio,
    class_counts,
    exponential_profile,
    long_tailed,
    n_max_of,
    profile_named,
)
from dataset_builders.sources.published_set import DrawnSet
from hf_ltsam.data.labels import read_label_column

# fmt: off
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_NAMES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
)
# fmt: on
OFFICIAL_NAMES = {"label": CIFAR10_NAMES, "fine_label": CIFAR100_NAMES}  # label column on the Hub -> class names

DRAWN_FILE = "train_ir10.parquet"  # a training split that is drawn already: every ratio from 10 on is a prefix of it
DRAWN_RATIO = 10


def load_cifar_lt(
    source: str | Path,
    imbalance_ratio: float = 100,
    profile: str = "exponential",
    seed: int = 0,
    largest_class: int | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """The long-tailed training split and the full, balanced test split.

    Args:
        source: a name on the Hub ("uoft-cs/cifar10", "uoft-cs/cifar100"), or a folder with Parquet files: the Hub's own
            (train-*.parquet and test-*.parquet, also in a sub-folder), or `train_ir10.parquet` (the draw at ratio 10
            with a column `rank`, the position within the class) and `test.parquet`.
        imbalance_ratio: R, at least 1; at least 10 with `train_ir10.parquet`.
        profile: "exponential" or "step".
        seed: of the draw; 0 is the published one.
        largest_class: training images of class 0, for a smaller set of the same shape; None: all it has.
        revision: of a name on the Hub: a branch, a tag or a commit; None: as it is now.

    Returns:
        "train" (rows class by class in draw order) and "test", with two columns: the image `img` and the `ClassLabel`
        column, `label` (CIFAR-10) or `fine_label` (CIFAR-100).

    Raises:
        FileNotFoundError: no such folder, files or data set.
        ValueError: settings that cannot be drawn from this source, or files that are not what they are named.
    """
    profile_named(profile)
    check_imbalance_ratio(imbalance_ratio)
    if revision is not None and _is_folder(source):
        raise ValueError(
            f"revision={revision!r}: {source} is a folder here, and only data sets on the Hub have revisions."
        )
    drawn = Path(source) / DRAWN_FILE
    if drawn.is_file():
        _refuse_other_draws(drawn, imbalance_ratio, profile, seed)
        train = _prefix_of_draw(_read_parquet([drawn]), drawn, imbalance_ratio, largest_class)
        return DatasetDict(train=train, test=_read_split(Path(source), "test"))
    splits = _read_folder(Path(source)) if _is_folder(source) else _from_hub(str(source), revision)
    train = long_tailed(splits["train"], imbalance_ratio, profile, seed, largest_class=largest_class)
    return DatasetDict(train=train, test=splits["test"])


def _is_folder(source: str | Path) -> bool:
    """Whether the source is a folder here; what can only be a path and is not there is refused."""
    if Path(source).is_dir():
        return True
    text = str(source)
    if isinstance(source, Path) or text.count("/") > 1 or text.startswith((".", "~", os.sep)):
        raise FileNotFoundError(f"There is no folder {text}.")
    return False


def _from_hub(name: str, revision: str | None) -> DatasetDict:
    with stated_as(name):
        splits = load_from_hub(name, revision=revision)
    return DatasetDict({split: _two_columns(splits[split], name) for split in ("train", "test")})


def _read_folder(folder: Path) -> DatasetDict:
    return DatasetDict({split: _read_split(folder, split) for split in ("train", "test")})


def _read_split(folder: Path, split: str) -> Dataset:
    files = sorted(file for name in (f"{split}-*", split) for file in folder.glob(f"**/{name}.parquet"))
    if not files:
        other = f" and no {DRAWN_FILE}" if split == "train" else ""
        raise FileNotFoundError(f"{folder} holds no {split}-*.parquet or {split}.parquet{other}.")
    if len({file.parent for file in files}) > 1:
        raise ValueError(f"{split} files lie in several folders ({files[0]}, {files[-1]}): name one data set's folder.")
    return _two_columns(_read_parquet(files), str(files[0]))


def _read_parquet(files: list[Path]) -> Dataset:
    """Parquet files as one data set in memory, with an `Image` column and class names."""
    table = pa.concat_tables([pq.read_table(file) for file in files])
    image, label = _columns(table.column_names, str(files[0]))
    position = table.column_names.index(label)
    table = table.set_column(position, pa.field(label, pa.int64()), table[label].cast(pa.int64()))
    features = Features.from_arrow_schema(table.schema)
    features[image] = Image()
    if not isinstance(features[label], ClassLabel):
        features[label] = ClassLabel(names=list(OFFICIAL_NAMES[label]))
    return Dataset(table, info=DatasetInfo(features=features))


def _columns(names: list[str], where: str) -> tuple[str, str]:
    """The image column and the label column."""
    label = next((name for name in ("fine_label", "label") if name in names), None)
    if "img" not in names or label is None:
        raise ValueError(
            f"{where} needs a column 'img' and a column 'label' (CIFAR-10) or 'fine_label' (CIFAR-100), "
            f"it has {', '.join(names)}."
        )
    return "img", label


def _two_columns(dataset: Dataset, where: str) -> Dataset:
    """Without CIFAR-100's coarse labels there is one `ClassLabel` column, which all code downstream finds by itself."""
    return dataset.select_columns(list(_columns(dataset.column_names, where)))


def _refuse_other_draws(file: Path, imbalance_ratio: float, profile: str, seed: int) -> None:
    wrong = None
    if imbalance_ratio < DRAWN_RATIO:
        wrong = f"imbalance_ratio={imbalance_ratio:g} (it supports {DRAWN_RATIO} or more)"
    elif profile != "exponential":
        wrong = f"profile={profile!r}"
    elif seed != 0:
        wrong = f"seed={seed}"
    if wrong:
        raise ValueError(
            f"{file} is the draw of seed 0 at ratio {DRAWN_RATIO} with an exponential profile and cannot give {wrong}. "
            "That needs the full training split: uoft-cs/cifar10 or uoft-cs/cifar100 from the Hub (or its files)."
        )


def _prefix_of_draw(dataset: Dataset, file: Path, imbalance_ratio: float, largest_class: int | None) -> Dataset:
    """rank < int(n_max (1/R)^(c/(C-1))), class by class in the order of rank."""
    column = _columns(dataset.column_names, str(file))[1]
    labels, ranks = (read_label_column(dataset, name).numpy() for name in (column, "rank"))
    names = dataset.features[column].names
    sizes = np.bincount(labels, minlength=len(names))
    order = np.lexsort((ranks, labels))
    if tuple(sizes) != exponential_profile(int(sizes[0]), len(names), DRAWN_RATIO):
        raise ValueError(f"{file} does not have the class counts of a draw at ratio {DRAWN_RATIO}: {sizes.tolist()}.")
    if not np.array_equal(ranks[order], np.concatenate([np.arange(size) for size in sizes])):
        raise ValueError(f"{file}: the column rank does not number the images of every class from 0.")
    counts = class_counts(n_max_of(int(sizes[0]), largest_class), names, imbalance_ratio, "exponential")
    keep = order[ranks[order] < np.asarray(counts)[labels[order]]]
    return _two_columns(dataset.select(keep), str(file))


def _drawn(class_names: tuple[str, ...], per_class: int, many_above: int, few_below: int) -> DrawnSet:
    classes = len(class_names)
    return DrawnSet(
        title=f"CIFAR-{classes}-LT",
        what=f"32 x 32 photographs of {classes} classes, any imbalance ratio, exponential or step",
        source=f"https://huggingface.co/datasets/uoft-cs/cifar{classes} (Krizhevsky 2009)",
        terms="The authors of CIFAR state no licence; the images have been openly distributed since 2009 with the wish that "
        "Krizhevsky 2009 be cited.",
        construction="Class c keeps n_c images: exponential, n_c = int(n_max (1/R)^(c / (C - 1))), or step, n_max for the "
        "first half of the classes and int(n_max / R) for the others (Cao et al. 2019). For each class in label order its "
        "images in the original order are shuffled by numpy's RandomState(seed), and the first n_c kept. The test split is "
        "the original, balanced one.",
        citations=("krizhevsky2009", "cao2019"),
        original=f"cifar{classes}",
        repository=f"uoft-cs/cifar{classes}",
        loader=load_cifar_lt,
        class_names=class_names,
        per_class=per_class,
        many_above=many_above,
        few_below=few_below,
        may_be_published=True,
    )


CIFAR10_LT = _drawn(CIFAR10_NAMES, 5000, many_above=1000, few_below=200)
CIFAR100_LT = _drawn(CIFAR100_NAMES, 500, many_above=100, few_below=20)
