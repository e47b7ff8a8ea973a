"""What each set is, where it comes from, and under which terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class SetFacts:
    """
    Args:
        title: its usual name.
        what: in one line.
        source: where the images come from.
        terms: of the images, in words.
        construction: how the set is made of them.
        may_be_published: whether its images may be passed on, as far as their terms go.
    """

    title: str
    what: str
    source: str
    terms: str
    construction: str
    may_be_published: bool = False


_ILSVRC = "https://image-net.org/challenges/LSVRC/2012/"
_ILSVRC_TERMS = "ImageNet's terms of access: non-commercial research and education; the images may not be passed on."
_CIFAR_TERMS = (
    "The authors of CIFAR state no licence; the images have been openly distributed since 2009 with the wish that "
    "Krizhevsky 2009 be cited."
)
_CIFAR_DRAW = (
    "Class c keeps n_c images: exponential, n_c = int(n_max (1/R)^(c / (C - 1))), or step, n_max for the first half of the "
    "classes and int(n_max / R) for the others (Cao et al. 2019). For each class in label order its images in the original "
    "order are shuffled by numpy's RandomState(seed), and the first n_c kept. The test split is the original, balanced one."
)


def _cifar(classes: int) -> SetFacts:
    return SetFacts(
        f"CIFAR-{classes}-LT",
        f"32 x 32 photographs of {classes} classes, any imbalance ratio, exponential or step",
        f"https://huggingface.co/datasets/uoft-cs/cifar{classes} (Krizhevsky 2009)",
        _CIFAR_TERMS,
        _CIFAR_DRAW,
        may_be_published=True,
    )


FACTS = {
    "cifar10_lt": _cifar(10),
    "cifar100_lt": _cifar(100),
    "imagenet_lt": SetFacts(
        "ImageNet-LT",
        "115,846 of ILSVRC 2012's training images, 1,000 classes, 1,280 down to 5 images",
        _ILSVRC,
        _ILSVRC_TERMS,
        "A published list (Liu et al. 2019) drawn from a Pareto distribution; test: ILSVRC's 50,000 validation images.",
    ),
    "inaturalist2018": SetFacts(
        "iNaturalist 2018",
        "437,513 photographs of 8,142 species, 1,000 down to 2 images, long-tailed by nature",
        "https://github.com/visipedia/inat_comp/tree/master/2018 (Van Horn et al. 2018)",
        "The organisers' terms: non-commercial research and education; the images may not be passed on.",
        "The organisers' training split; test: their validation split, three images of every species.",
    ),
    "places_lt": SetFacts(
        "Places-LT",
        "62,500 of Places365's training images, 365 scenes, 4,980 down to 5 images",
        "http://places2.csail.mit.edu/download.html (Zhou et al. 2017)",
        "Places' terms: non-commercial research and education; the images may not be passed on.",
        "Published lists (Liu et al. 2019); test: Places' 36,500 validation images, 100 of every scene.",
    ),
    "imagenet_sketch": SetFacts(
        "ImageNet-Sketch",
        "drawings of ImageNet's 1,000 classes, about 50 of each: a test set",
        "https://github.com/HaohanWang/ImageNet-Sketch (Wang et al. 2019)",
        "Found by image search; the rights are with their authors.",
        "Folders by wnid; labels from the sorted wnids, because 102 labels of the published path list are wrong.",
    ),
    "imagenetv2": SetFacts(
        "ImageNetV2",
        "10,000 new photographs of ImageNet's 1,000 classes in three variants: a test set",
        "https://huggingface.co/datasets/vaishaal/ImageNetV2 (Recht et al. 2019)",
        "Photographs from Flickr; the rights are with their authors.",
        "Variants matched-frequency, threshold-0.7 and top-images; folders 0 to 999 are class numbers.",
    ),
    "imagenet_c": SetFacts(
        "ImageNet-C",
        "ILSVRC's validation images under 15 (and 4 extra) corruptions at 5 severities: a test set",
        "https://zenodo.org/records/2235448 (Hendrycks and Dietterich 2019)",
        _ILSVRC_TERMS,
        "Images of 224 x 224 pixels in corruption/severity/wnid.",
    ),
}


# ---- what is known of the classes of a published data set: folder, name and training images of each ----


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order of their labels.

    Args:
        keys: what the folder of a class is called: a wnid, a category number, a scene. Length C, all different.
        names: for people and for text prompts. Length C, all different.
        counts: images of the published long-tailed training list. Length C.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]

    def called(self, label: int) -> str:
        """A class in a message: n01440764 (tench)."""
        return described(self.keys[label], self.names[label])


def described(key: str, name: str) -> str:
    return key if key == name else f"{key} ({name})"


@cache
def class_table(name: str) -> ClassTable:
    """One of the tables that come with the package: imagenet, inaturalist2018, places365."""
    text = files("dataset_builders.sets").joinpath("class_tables", f"{name}.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:]
    keys, names, counts = zip(*rows)
    return ClassTable(keys, names, tuple(map(int, counts)))
