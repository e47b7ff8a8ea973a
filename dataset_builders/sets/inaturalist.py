"""iNaturalist 2018 (Van Horn et al. 2018): 437,513 images of 8,142 species, 1,000 down to 2 per species."""

from __future__ import annotations

from typing import ClassVar

from dataset_builders.sources.class_table import class_table
from dataset_builders.sources.listed_images import ListedImages
from dataset_builders.sources.published_lists import PublishedList
from dataset_builders.sources.published_set import ListedSet

_ORGANISERS = "https://ml-inat-competition-datasets.s3.amazonaws.com/2018"
_VALIDATION = "efaeff65f80641b60864470e6f255aa69453406ef5717eec8c6681748f3a61f3"  # iNaturalist18_val.txt


class INaturalist2018(ListedImages):
    """`data_dir` holds `train_val2018/Plantae/7291/...` or train_val2018.tar (the organisers' archive is compressed:
    gunzip it once).

    The lists are the organisers' train2018.json and val2018.json, or iNaturalist18_train.txt and iNaturalist18_val.txt
    with lines `path label`, as Kang et al. 2020 keep them. Of the training list the class counts are checked; the
    organisers state no SHA-256, so what is fetched is held against their MD5.

    Splits: train 437,513; test 24,426, three of every species: the organisers' validation images.
    """

    TABLE = "inaturalist2018"
    LISTS: ClassVar = {
        "train": PublishedList(
            ("train2018.json.tar.gz", "train2018.json", "iNaturalist18_train.txt"),
            class_table("inaturalist2018").counts,
            (f"{_ORGANISERS}/train2018.json.tar.gz",),
            "md5:bfa29d89d629cbf04d826a720c0a68b0",
        ),
        "test": PublishedList(
            ("val2018.json.tar.gz", "val2018.json", "iNaturalist18_val.txt"),
            (3,) * 8142,
            (f"{_ORGANISERS}/val2018.json.tar.gz",),
            "md5:f2ed8bfe3e9901cdefceb4e53cd3775d",
            sha256=_VALIDATION,
        ),
    }
    LAYOUT: ClassVar = {"train_val2018": ("train_val2018", "train_val2018.tar", "train_val2018.tar.gz")}


INATURALIST2018 = ListedSet(
    builder=INaturalist2018,
    title="iNaturalist 2018",
    what="437,513 photographs of 8,142 species, 1,000 down to 2 images, long-tailed by nature",
    source="https://github.com/visipedia/inat_comp/tree/master/2018 (Van Horn et al. 2018)",
    terms="The organisers' terms: non-commercial research and education; the images may not be passed on.",
    construction="The organisers' training split; test: their validation split, three images of every species.",
)
