"""Places-LT (Liu et al. 2019): a list of 62,500 images of Places365-Standard, with 4,980 down to 5 per class."""

from __future__ import annotations

from typing import ClassVar

from dataset_builders.sources.class_table import class_table
from dataset_builders.sources.listed_images import ListedImages
from dataset_builders.sources.published_lists import PublishedList
from dataset_builders.sources.published_set import ListedSet

# as kept beside the code of Kang et al. 2020
_KANG = "https://raw.githubusercontent.com/facebookresearch/classifier-balancing/22370c64141cc662f62ead89447c838c4a7977b5/data"
_TRAIN = "726c4871dcbf07ce2f857703bfe32e9a83ffbf52d704239f6d95c4f4f4c247f7"
_VALIDATION = "719e3cf3766c09134ea28f56f1036c78def511ac1ed2c2532a6beef78f2439ba"
_TEST = "44eee8441c8098c59195465abede425721bc35525d75209f9433b161a6eb37bc"


def _list(name: str, counts: tuple[int, ...], sha256: str) -> PublishedList:
    return PublishedList((name,), counts, (f"{_KANG}/Places_LT/{name}",), f"sha256:{sha256}", sha256)


class PlacesLT(ListedImages):
    """`data_dir` holds Places365-Standard in its easy directory structure: `train/airfield/...` and `val/...` (also in
    `places365_standard/`, or in one folder `val_256`), or the archive places365standard_easyformat.tar.

    Splits: train 62,500; validation 7,300, from the training folder; test 36,500, Places' validation images.
    """

    TABLE = "places365"
    LISTS: ClassVar = {
        "train": _list("Places_LT_train.txt", class_table("places365").counts, _TRAIN),
        "validation": _list("Places_LT_val.txt", (20,) * 365, _VALIDATION),
        "test": _list("Places_LT_test.txt", (100,) * 365, _TEST),
    }
    LAYOUT: ClassVar = {
        "train": ("train", "places365_standard/train", "places365standard_easyformat.tar"),
        "val": ("val", "places365_standard/val", "val_256", "val_256.tar", "places365standard_easyformat.tar"),
    }


PLACES_LT = ListedSet(
    builder=PlacesLT,
    title="Places-LT",
    what="62,500 of Places365's training images, 365 scenes, 4,980 down to 5 images",
    source="http://places2.csail.mit.edu/download.html (Zhou et al. 2017)",
    terms="Places' terms: non-commercial research and education; the images may not be passed on.",
    construction="Published lists (Liu et al. 2019); test: Places' 36,500 validation images, 100 of every scene.",
)
