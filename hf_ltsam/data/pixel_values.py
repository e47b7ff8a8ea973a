"""Images of more bits or channels than a model takes: which of their channels it sees, and which values are black and white.

PixelValues(channels=(3, 2, 1))             # red, green and blue are bands or pages 3, 2 and 1, from 0
PixelValues(value_range=(0, 4095))          # 12 bits in files of 16
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

HIGH_EFFICIENCY = {".heic", ".heif", ".hif"}  # which PIL opens by a plugin alone
MODERN = {*HIGH_EFFICIENCY, ".avif"}
_DEEP = ("I", "F")  # modes of more than 8 bits begin with these
_WHITE = 65535  # of 16 bits


@dataclass(frozen=True)
class PixelValues:
    """How the values of an image become 8 bits of red, green and blue.

    Args:
        channels: of a file, from 0, that become red, green and blue; a single one: grey. Channels are the bands of an image,
            or those of all pages of a TIFF in a row. None: those that the file calls so.
        value_range: what becomes 0 and 255; values beyond are cut. None: 8 bits stay as they are, of 16 it is 0 to 65535.

    Raises:
        ValueError: other than one or three channels, a negative one, or an empty range.
    """

    channels: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.channels is not None and (len(self.channels) not in (1, 3) or min(self.channels) < 0):
            raise ValueError(
                f"rgb_channels={list(self.channels)}: one channel, or three for red, green and blue, from 0."
            )
        if self.value_range is not None and (
            len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]
        ):
            raise ValueError(f"pixel_range={list(self.value_range)}: the value of black and a larger one of white.")

    def __bool__(self) -> bool:
        return self.channels is not None or self.value_range is not None

    def to_dict(self) -> dict[str, Any]:
        """By the names of the options; without those that are not stated."""
        stated = {"rgb_channels": self.channels, "pixel_range": self.value_range}
        return {name: list(value) for name, value in stated.items() if value is not None}

    @classmethod
    def from_dict(cls, settings: Any) -> PixelValues:
        """What `to_dict` gave, among other settings."""
        channels, value_range = settings.get("rgb_channels"), settings.get("pixel_range")
        return cls(None if channels is None else tuple(channels), None if value_range is None else tuple(value_range))

    def eight_bits(self, image: Image.Image) -> Image.Image:
        """The image, upright, in 8 bits.

        Raises:
            ValueError: it has not so many channels, or values of 32 bits without a range.
        """
        is_deep = image.mode.startswith(_DEEP)
        if not is_deep and not self:
            return ImageOps.exif_transpose(image)
        planes = _planes(image) if self.channels is not None else _planes_of(_in_rgb(ImageOps.exif_transpose(image)))
        if self.channels is not None and max(self.channels) >= len(planes):
            raise ValueError(
                f"it has the channels 0 to {len(planes) - 1}, and rgb_channels asks for {max(self.channels)}"
            )
        chosen = planes if self.channels is None else [planes[c] for c in self.channels]
        levels = [self._levels(plane, image.mode) for plane in chosen]
        return Image.fromarray(levels[0] if len(levels) == 1 else np.dstack(levels))

    def _levels(self, plane: NDArray[Any], mode: str) -> NDArray[np.uint8]:
        if self.value_range is None and plane.dtype == np.uint8:
            return plane
        if self.value_range is None and (plane.dtype.kind == "f" or not 0 <= plane.min() <= plane.max() <= _WHITE):
            raise ValueError(
                f"it has 32 bits per channel (mode {mode!r}, values from {plane.min():g} to {plane.max():g}): "
                "pixel_range=(LOW, HIGH) states which values are black and white"
            )
        low, high = self.value_range or (0, _WHITE)
        scaled = (plane.astype(np.float64) - low) * (255 / (high - low))
        levels: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        return levels


def _in_rgb(image: Image.Image) -> Image.Image:
    """An image in red, green and blue, whatever its colours are stored as (CMYK, Lab), or in grey; without transparency."""
    if image.mode.startswith(_DEEP):
        return image
    return image.convert("L" if image.mode in ("L", "LA", "La") else "RGB")


def _planes(image: Image.Image) -> list[NDArray[Any]]:
    """The channels of all pages, upright (H, W)."""
    planes = []
    for page in range(getattr(image, "n_frames", 1)):
        if page:
            image.seek(page)
        planes += _planes_of(ImageOps.exif_transpose(image))
    return planes


def _planes_of(image: Image.Image) -> list[NDArray[Any]]:
    values = np.array(image.convert("RGB") if image.mode in ("P", "1") else image)
    return [values] if values.ndim == 2 else list(np.moveaxis(values, -1, 0))


@cache
def register_decoders() -> None:
    """Let PIL open HEIC, where the package for it is there; AVIF it opens by itself."""
    if importlib.util.find_spec("pillow_heif") is not None:
        importlib.import_module("pillow_heif").register_heif_opener()


def missing_decoder(head: bytes) -> str | None:
    """What would open a file that PIL cannot, by its first bytes; None where nothing is known."""
    if head[4:8] != b"ftyp":
        return None
    return (
        "AVIF needs Pillow 11.3 or later" if head[8:12] in (b"avif", b"avis") else "HEIC needs pip install pillow-heif"
    )
