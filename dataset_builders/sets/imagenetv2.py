"""ImageNetV2 (Recht et al. 2019): new photographs of ImageNet's 1,000 classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from datasets import Version

from dataset_builders.sources.published_set import ShiftedSet
from dataset_builders.sources.shifted_images import ShiftedConfig, ShiftedImages

# variant -> its name in the published archive (imagenetv2-...-format-val)
VARIANTS = {
    "matched-frequency": "matched-frequency",
    "threshold-0.7": "threshold0.7",
    "top-images": "top-images",
}


class ImageNetV2(ShiftedImages):
    """`data_dir` holds `imagenetv2-matched-frequency-format-val/0/...` to `999`, or its .tar (the published .tar.gz
    gunzipped). The folders are class numbers, not to be sorted as text.
    """

    BUILDER_CONFIGS: ClassVar = [ShiftedConfig(name=variant, version=Version("1.0.0")) for variant in VARIANTS]
    DEFAULT_CONFIG_NAME = "matched-frequency"
    PER_CLASS = 10
    TOTAL = 10_000

    def _candidates(self) -> Sequence[str]:
        name = f"imagenetv2-{VARIANTS[self.config.name]}"
        return (f"{name}-format-val", f"{name}.tar", name, f"{name}.tar.gz")

    def _folders(self) -> Sequence[str]:
        return tuple(map(str, range(1000)))


IMAGENETV2 = ShiftedSet(
    builder=ImageNetV2,
    variants=tuple(VARIANTS),
    title="ImageNetV2",
    what="10,000 new photographs of ImageNet's 1,000 classes in three variants: a test set",
    source="https://huggingface.co/datasets/vaishaal/ImageNetV2 (Recht et al. 2019)",
    terms="Photographs from Flickr; the rights are with their authors.",
    construction="Variants matched-frequency, threshold-0.7 and top-images; folders 0 to 999 are class numbers.",
)
