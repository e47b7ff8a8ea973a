"""One image, one corruption."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_builders.corruptions import blur, digital, noise, spatter, weather
from dataset_builders.corruptions.arrays import Pixels
from dataset_builders.corruptions.parameters import CORRUPTIONS, EXTRA_CORRUPTIONS, NATIVE_SIDE, SEVERITIES, parameters
from hf_ltsam.data.keys import random_key
from hf_ltsam.hyperparameters import nearest

SMALLEST = 8  # pixels
NUMBERS = {
    name: i for i, name in enumerate((*CORRUPTIONS, *EXTRA_CORRUPTIONS))
}  # part of the key of the random numbers

FUNCTIONS: dict[str, Callable[..., Pixels]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": spatter.spatter,
    "saturate": digital.saturate,
}


def corrupt(
    image: NDArray[np.uint8], corruption: str, severity: int, seed: int, scale: str = "auto"
) -> NDArray[np.uint8]:
    """One image with one of the corruptions of ImageNet-C (Hendrycks & Dietterich 2019).

    A function of its arguments alone: no global random state is read or moved.

    Args:
        image: uint8 (H, W, 3), sides of at least 8 pixels. It is not written to.
        corruption: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1 to 5.
        seed: any integer. Keys the random numbers together with the corruption and the severity.
        scale: which published parameters: "imagenet" (for 224 pixels), "cifar" (for 32), or "auto": CIFAR's for short
            sides up to 64 pixels. What is measured in pixels is scaled in proportion to the short side.

    Returns:
        uint8 (H, W, 3), a new array.

    Raises:
        TypeError: the image is no uint8 array, or severity or seed no integer.
        ValueError: another shape, or an unknown corruption, severity or scale.
    """
    check_settings(corruption, severity, scale)
    height, width = _checked_shape(image)
    key = random_key(operator.index(seed), NUMBERS[corruption], operator.index(severity))
    values = parameters(corruption, severity, min(height, width), scale)
    rng = np.random.Generator(np.random.PCG64(key))
    return digital.to_bytes(FUNCTIONS[corruption](digital.from_bytes(image), rng, **values))


def check_settings(corruption: str, severity: int, scale: str = "auto") -> None:
    """Refuse what `corrupt` does not know.

    Raises:
        TypeError: the severity is no integer.
        ValueError: unknown corruption, severity or scale.
    """
    if corruption not in FUNCTIONS:
        raise ValueError(f"Unknown corruption {corruption!r}.{nearest(corruption, FUNCTIONS)}")
    if isinstance(severity, bool) or operator.index(severity) not in SEVERITIES:
        raise ValueError(f"corrupt(severity=...) must be 1, 2, 3, 4 or 5, got {severity!r}.")
    if scale not in (*NATIVE_SIDE, "auto"):
        raise ValueError(f"Unknown scale {scale!r}.{nearest(scale, (*NATIVE_SIDE, 'auto'))}")


def _checked_shape(image: Any) -> tuple[int, int]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(
            f"corrupt(image=...) must be a uint8 array (H, W, 3), got a {found}: np.asarray(pil_image) is one."
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"corrupt(image=...) must have the shape (H, W, 3), got {image.shape}: make grey images RGB first."
        )
    if min(image.shape[:2]) < SMALLEST:
        raise ValueError(f"corrupt(image=...) needs sides of at least {SMALLEST} pixels, got {image.shape[:2]}.")
    return image.shape[0], image.shape[1]
