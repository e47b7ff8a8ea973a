"""ImageNet-Sketch (Wang et al. 2019): drawings of ImageNet's 1,000 classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from datasets import Version

from dataset_builders.sources.published_set import ShiftedSet
from dataset_builders.sources.shifted_images import ShiftedConfig, ShiftedImages


class ImageNetSketch(ShiftedImages):
    """`data_dir` holds `sketch/n01440764/...`, or the class folders themselves. Labels come from the sorted wnids: the
    published path list has 102 wrong ones. 50,889 images are expected, and another number is only warned of.
    """

    BUILDER_CONFIGS: ClassVar = [ShiftedConfig(name="default", version=Version("1.0.0"))]
    PER_CLASS = None
    TOTAL = 50_889

    def _candidates(self) -> Sequence[str]:
        return (
            "sketch",
            "ImageNet-Sketch/sketch",
            "ImageNet-Sketch",
            "ImageNet-Sketch.tar",
            "ImageNet-Sketch.zip",
            ".",
        )


IMAGENET_SKETCH = ShiftedSet(
    builder=ImageNetSketch,
    title="ImageNet-Sketch",
    what="drawings of ImageNet's 1,000 classes, about 50 of each: a test set",
    source="https://github.com/HaohanWang/ImageNet-Sketch (Wang et al. 2019)",
    terms="Found by image search; the rights are with their authors.",
    construction="Folders by wnid; labels from the sorted wnids, because 102 labels of the published path list are wrong.",
)
