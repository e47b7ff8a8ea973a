"""ImageNet-Sketch (Wang et al. 2019), ImageNetV2 (Recht et al. 2019), ImageNet-C (Hendrycks and Dietterich 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import ClassVar

from datasets import Version

from dataset_builders.sources.shifted_images import ShiftedConfig, ShiftedImages

VERSION = Version("1.0.0")

# variant -> its name in the published archive (imagenetv2-...-format-val)
VARIANTS = {
    "matched-frequency": "matched-frequency",
    "threshold-0.7": "threshold0.7",
    "top-images": "top-images",
}

# ImageNet-C's archives -> corruptions in them; `extra` are the four of its validation set
CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
ARCHIVE_OF = {corruption: archive for archive, corruptions in CORRUPTIONS.items() for corruption in corruptions}
SEVERITIES = (1, 2, 3, 4, 5)


class ImageNetSketch(ShiftedImages):
    """`data_dir` holds `sketch/n01440764/...`, or the class folders themselves. Labels come from the sorted wnids: the
    published path list has 102 wrong ones. 50,889 images are expected, and another number is only warned of.
    """

    BUILDER_CONFIGS: ClassVar = [ShiftedConfig(name="default", version=VERSION)]
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


class ImageNetV2(ShiftedImages):
    """`data_dir` holds `imagenetv2-matched-frequency-format-val/0/...` to `999`, or its .tar (the published .tar.gz
    gunzipped). The folders are class numbers, not to be sorted as text.
    """

    BUILDER_CONFIGS: ClassVar = [ShiftedConfig(name=variant, version=VERSION) for variant in VARIANTS]
    DEFAULT_CONFIG_NAME = "matched-frequency"
    PER_CLASS = 10
    TOTAL = 10_000

    def _candidates(self) -> Sequence[str]:
        name = f"imagenetv2-{VARIANTS[self.config.name]}"
        return (f"{name}-format-val", f"{name}.tar", name, f"{name}.tar.gz")

    def _folders(self) -> Sequence[str]:
        return tuple(map(str, range(1000)))


class ImageNetC(ShiftedImages):
    """`data_dir` holds `gaussian_noise/1/n01440764/...`, also below the archive's name (`noise/`), or the archives
    noise.tar, blur.tar, weather.tar, digital.tar and extra.tar. Images have 224 x 224 pixels already.

    A configuration is a corruption and a severity: `gaussian_noise_1`.
    """

    BUILDER_CONFIGS: ClassVar = [
        ShiftedConfig(name=f"{corruption}_{severity}", version=VERSION)
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
