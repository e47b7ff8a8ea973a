"""ImageNet-C (Hendrycks and Dietterich 2019): ILSVRC's validation images under corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import ClassVar

from datasets import Version

from dataset_builders.corruptions.parameters import SEVERITIES
from dataset_builders.sets.imagenet_lt import ILSVRC_TERMS
from dataset_builders.sources.published_set import StoredCorruptions
from dataset_builders.sources.shifted_images import ShiftedConfig, ShiftedImages

# ImageNet-C's archives -> corruptions in them; `extra` are the four of its validation set
ARCHIVES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
ARCHIVE_OF = {corruption: archive for archive, corruptions in ARCHIVES.items() for corruption in corruptions}


class ImageNetC(ShiftedImages):
    """`data_dir` holds `gaussian_noise/1/n01440764/...`, also below the archive's name (`noise/`), or the archives
    noise.tar, blur.tar, weather.tar, digital.tar and extra.tar. Images have 224 x 224 pixels already.

    A configuration is a corruption and a severity: `gaussian_noise_1`.
    """

    BUILDER_CONFIGS: ClassVar = [
        ShiftedConfig(name=f"{corruption}_{severity}", version=Version("1.0.0"))
        for corruption, severity in product(ARCHIVE_OF, SEVERITIES)
    ]
    PER_CLASS = 50
    TOTAL = 50_000

    def _candidates(self) -> Sequence[str]:
        corruption, severity = self._above()
        archive = ARCHIVE_OF[corruption]
        return (f"{corruption}/{severity}", f"{archive}/{corruption}/{severity}", f"{archive}.tar")

    def _above(self) -> Sequence[str]:
        corruption, _, severity = self.config.name.rpartition("_")
        return corruption, severity


IMAGENET_C = StoredCorruptions(
    builder=ImageNetC,
    corruptions=tuple(ARCHIVE_OF),
    severities=SEVERITIES,
    title="ImageNet-C",
    what="ILSVRC's validation images under 15 (and 4 extra) corruptions at 5 severities: a test set",
    source="https://zenodo.org/records/2235448 (Hendrycks and Dietterich 2019)",
    terms=ILSVRC_TERMS,
    construction="Images of 224 x 224 pixels in corruption/severity/wnid.",
)
