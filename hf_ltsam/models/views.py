"""Test-time views of an image: the preprocessing of the model's image processor, flips and crops, averaged logits.

preprocessing = Preprocessing.from_image_processor(AutoImageProcessor.from_pretrained(folder))
views = preprocessing.views(image, "five_crops")                          # (V, channels, height, width)
logits = averaged_logits(model, views.unsqueeze(0))                       # (1, C)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from hf_ltsam.data.decoding import MODES, centre_crop, scale_short_side
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.models.logits import logits_of

# Test-time ensembling (TTE) of Shi et al. 2024, used by Li et al. 2025: the short side at 248 pixels, crops of 224.
FIVE_CROPS_RATIO = 248 / 224


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the input of the model, with PIL: the same pixels as in the test after a training.

    Args:
        height, width: of the input, in pixels.
        short_side: of the image after scaling, in pixels, before its centre is kept; None: every image is scaled to
            height x width, whatever its shape.
        mean, std: per channel, of pixels in [0, 1]; one channel means grey images.
        resample: PIL's filter; antialiased when it shrinks.

    Raises:
        ValueError: the short side is smaller than the crop.
    """

    height: int
    width: int
    short_side: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = Image.Resampling.BILINEAR

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < min(self.height, self.width):
            raise ValueError(
                f"Preprocessing: the short side is scaled to {self.short_side} pixels, which does not hold the crop of "
                f"{self.height} x {self.width}. Correct `size` or `crop_size` in the model's preprocessor_config.json."
            )

    @classmethod
    def from_image_processor(cls, processor: Any) -> Preprocessing:
        """The preprocessing of a transformers image processor.

        Raises:
            ValueError: the processor has no size, or other steps than scaling, cropping and normalising.
        """
        settings = processor.to_dict()
        return _of_timm(settings["data_config"]) if "data_config" in settings else _of_transformers(settings)

    @property
    def channels(self) -> int:
        return len(self.mean)

    def already_cropped(self) -> Preprocessing:
        """The preprocessing of images that were cropped for the model, such as ImageNet-C's 224 x 224: centre crop only.

        Smaller or larger images are scaled to fit first.
        """
        return dataclasses.replace(self, short_side=None if self.short_side is None else min(self.height, self.width))

    def views(self, image: Image.Image, test_time: str = "none") -> Tensor:
        """The views of one image, normalised: float32 (V, channels, height, width).

        Args:
            image: a PIL image of any size and mode.
            test_time: a name in `TEST_TIME`.

        Raises:
            ValueError: an unknown name.
        """
        views = TEST_TIME[check_test_time(test_time)](image.convert(MODES[self.channels]), self)
        pixels = torch.from_numpy(np.stack([np.asarray(view) for view in views]))  # (V, H, W[, 3])
        pixels = pixels.reshape(len(views), self.height, self.width, self.channels).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels.contiguous().float().div_(255).sub_(mean).div_(std)  # rounded as `InMemoryImages` rounds


def _centre(image: Image.Image, target: Preprocessing) -> list[Image.Image]:
    resample = Image.Resampling(target.resample)
    if target.short_side is None:
        return [image.resize((target.width, target.height), resample)]
    return [centre_crop(scale_short_side(image, target.short_side, resample), target.height, target.width)]


def _flip(image: Image.Image, target: Preprocessing) -> list[Image.Image]:
    (centre,) = _centre(image, target)
    return [centre, ImageOps.mirror(centre)]


def _five_crops(image: Image.Image, target: Preprocessing) -> list[Image.Image]:
    """The four corners and the centre of the image, scaled to 248/224 of the model's input."""
    short_side = round(FIVE_CROPS_RATIO * max(target.height, target.width))
    scaled = scale_short_side(image, short_side, Image.Resampling(target.resample))
    right, bottom = scaled.width - target.width, scaled.height - target.height
    corners = [(left, top) for top in (0, bottom) for left in (0, right)]
    crops = [scaled.crop((left, top, left + target.width, top + target.height)) for left, top in corners]
    return [*crops, centre_crop(scaled, target.height, target.width)]


TEST_TIME: Mapping[str, Callable[[Image.Image, Preprocessing], list[Image.Image]]] = {
    "none": _centre,
    "flip": _flip,
    "five_crops": _five_crops,
}


def check_test_time(name: str) -> str:
    """The name, if it is one of `TEST_TIME`.

    Raises:
        ValueError: with the nearest names.
    """
    if name not in TEST_TIME:
        raise ValueError(f"Unknown test_time {name!r}.{nearest(name, TEST_TIME)}")
    return name


def averaged_logits(model: nn.Module, views: Tensor) -> Tensor:
    """Mean of the logits over the views of every image (n, C), in float32 or wider.

    One pass for every view, each over n images, takes as much memory as a test without views.

    Args:
        model: called with `pixel_values=`.
        views: (n, V, channels, height, width).
    """
    per_view = [logits_of(model(pixel_values=view)) for view in views.unbind(dim=1)]
    wide = [logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in per_view]
    return torch.stack(wide).mean(dim=0)


def _of_transformers(settings: Mapping[str, Any]) -> Preprocessing:
    name = settings.get("image_processor_type", "the image processor")
    if not settings.get("do_rescale", True) or abs(255 * settings.get("rescale_factor", 1 / 255) - 1) > 1e-6:
        raise ValueError(f"{name} does not scale pixels by 1/255: choose a model whose image processor does.")
    height, width, short_side = _geometry(settings, name)
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not settings.get("do_normalize", True) or not mean or not std:
        mean, std = (0.0,) * 3, (1.0,) * 3
    resample = int(settings.get("resample", Image.Resampling.BILINEAR))
    return Preprocessing(height, width, short_side, _floats(mean), _floats(std), resample)


def _geometry(settings: Mapping[str, Any], name: str) -> tuple[int, int, int | None]:
    """Height, width and short side, from the three notations of image processors."""
    size = settings.get("size") or {}
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    edge = size.get("shortest_edge")
    if settings.get("do_resize", True):
        if crop and edge:
            return crop["height"], crop["width"], edge
        if edge and "crop_pct" in settings:  # ConvNeXt's, used by ResNets too: no crop from 384 pixels on
            return edge, edge, int(edge / settings["crop_pct"]) if edge < 384 else None
        if not crop and {"height", "width"} <= set(size):
            return size["height"], size["width"], None
    raise ValueError(
        f"{name} has no size that every image is brought to (size {dict(size)}, crop {crop}): set `size` to "
        "{'shortest_edge': ...} and `crop_size` to {'height': ..., 'width': ...} in the model's preprocessor_config.json."
    )


def _of_timm(settings: Mapping[str, Any]) -> Preprocessing:
    _, height, width = settings["input_size"]
    short_side = int(min(height, width) / settings.get("crop_pct", 0.875))  # timm's own default and rounding
    resample = Image.Resampling[str(settings.get("interpolation", "bicubic")).upper()]
    return Preprocessing(height, width, short_side, _floats(settings["mean"]), _floats(settings["std"]), resample)


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
