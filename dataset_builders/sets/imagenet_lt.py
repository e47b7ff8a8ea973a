"""ImageNet-LT (Liu et al. 2019): 115,846 of ILSVRC 2012's training images, 1,280 down to 5 per class."""

from __future__ import annotations

from typing import ClassVar

from dataset_builders.sources.class_table import class_table
from dataset_builders.sources.listed_images import ListedImages
from dataset_builders.sources.published_lists import PublishedList
from dataset_builders.sources.published_set import ListedSet

# The lists as kept beside the code of Kang et al. 2020; the first is mirrored by a second repository.
_KANG = "https://raw.githubusercontent.com/facebookresearch/classifier-balancing/22370c64141cc662f62ead89447c838c4a7977b5/data"
_MIRROR = "https://raw.githubusercontent.com/doem97/deblora/57157832b5df881deefda1b42ab2bb0f06239c75/datasets"
_TRAIN = "efdbdad4f050237c310b2f354cf95a8b1d7c8d57a63c4ea4bb6bf2bcb012f37f"
_VALIDATION = "9af7ba688acf9532ff5845a8fb14a1e97fdc4c51ac48bc72c08ea9c3f7ff142e"
_TEST = "d1590191cf8a71fada7b1aaedaa2d139a2aea93ff2f1b755319d0bd8dbaa55d5"


def _list(name: str, counts: tuple[int, ...], sha256: str, *mirrors: str) -> PublishedList:
    return PublishedList((name,), counts, (f"{_KANG}/ImageNet_LT/{name}", *mirrors), f"sha256:{sha256}", sha256)


class ImageNetLT(ListedImages):
    """`data_dir` holds ILSVRC 2012 as folders (`train/n01440764/...`, `val/...` with or without class folders, also in
    Kaggle's `ILSVRC/Data/CLS-LOC`) or as the archives ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar.

    Splits: train 115,846; validation 20,000, from the training folder; test 50,000, ILSVRC's validation images.
    """

    TABLE = "imagenet"
    LISTS: ClassVar = {
        "train": _list(
            "ImageNet_LT_train.txt",
            class_table("imagenet").counts,
            _TRAIN,
            f"{_MIRROR}/ImageNet_LT/ImageNet_LT_train.txt",
        ),
        "validation": _list("ImageNet_LT_val.txt", (20,) * 1000, _VALIDATION),
        "test": _list("ImageNet_LT_test.txt", (50,) * 1000, _TEST),
    }
    LAYOUT: ClassVar = {
        "train": ("train", "ILSVRC/Data/CLS-LOC/train", "ILSVRC2012_img_train", "ILSVRC2012_img_train.tar"),
        "val": ("val", "ILSVRC/Data/CLS-LOC/val", "ILSVRC2012_img_val", "ILSVRC2012_img_val.tar"),
    }


ILSVRC = "https://image-net.org/challenges/LSVRC/2012/"
ILSVRC_TERMS = "ImageNet's terms of access: non-commercial research and education; the images may not be passed on."

IMAGENET_LT = ListedSet(
    builder=ImageNetLT,
    title="ImageNet-LT",
    what="115,846 of ILSVRC 2012's training images, 1,000 classes, 1,280 down to 5 images",
    source=ILSVRC,
    terms=ILSVRC_TERMS,
    construction="A published list (Liu et al. 2019) drawn from a Pareto distribution; test: ILSVRC's 50,000 validation "
    "images.",
)
