"""From an image to the input of a model at test time: one description for the test of a training, for `ltsam evaluate`,
and for the image processor that is saved beside the weights.

preprocessing = Preprocessing(224, 224, 256, mean, std)
preprocessing(image)                                                      # (channels, height, width)
preprocessing.image_processor().save_pretrained(folder)                   # for transformers' pipelines
preprocessing = Preprocessing.beside(folder)                              # read again
views = preprocessing.views(image, "five_crops")                          # (V, channels, height, width)
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_ltsam.data.pixel_values import PixelValues
from hf_ltsam.hyperparameters import nearest

AS_STORED = PixelValues()
MODES = {1: "L", 3: "RGB"}  # channels -> PIL's mode

# Test-time ensembling (TTE) of Shi et al. 2024, used by Li et al. 2025: the short side at 248 pixels, crops of 224.
FIVE_CROPS_RATIO = 248 / 224

_ZERO, _ONE = (0.0,) * 3, (1.0,) * 3  # of pixels that are not normalised
_SAME = 5 / 255  # of pixels in [0, 1]: what other kernels change in a smooth image is less, a crop of 95 % is more


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the input of the model, by the arithmetic of transformers' image processors.

    They scale 8-bit tensors, and the centre of an odd difference lies half a pixel up and to the left.

    Args:
        height, width: of the input, in pixels.
        short_side: of the image after scaling, in pixels, before its centre is kept; None: every image is scaled to
            height x width, whatever its shape.
        mean, std: per channel, of pixels in [0, 1]; one channel means grey images.
        resample: PIL's filter; antialiased when it shrinks.
        values: how whoever decodes images for it makes 8 bits of them.
        by_pil: timm's arithmetic instead: PIL scales, and the centre of an odd difference is rounded to an even place.

    Raises:
        ValueError: the short side is smaller than the crop.
    """

    height: int
    width: int
    short_side: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = Image.Resampling.BILINEAR
    by_pil: bool = field(default=False, repr=False)
    values: PixelValues = field(default=AS_STORED, repr=False)

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < min(self.height, self.width):
            raise ValueError(
                f"Preprocessing: the short side is scaled to {self.short_side} pixels, which does not hold the crop of "
                f"{self.height} x {self.width}. Correct the one or the other; of a saved model they are `size` and "
                "`crop_size` in preprocessor_config.json."
            )

    @classmethod
    def beside(cls, name: str | os.PathLike[str]) -> Preprocessing:
        """The preprocessing of a saved model, a folder or a name on the Hub.

        Raises:
            OSError: there is no image processor beside it.
            ValueError: as `from_image_processor`.
        """
        return cls.from_image_processor(saved_image_processor(name))

    @classmethod
    def from_image_processor(cls, processor: Any) -> Preprocessing:
        """The preprocessing of a transformers image processor.

        Raises:
            ValueError: the processor has no size, or other steps than scaling, cropping and normalising.
        """
        settings = processor.to_dict()
        preprocessing = _of_timm(settings["data_config"]) if "data_config" in settings else _of_transformers(settings)
        if preprocessing.channels == 3:  # of one channel, processors make three
            _check_same(processor, preprocessing)
        return preprocessing

    def image_processor(self) -> Any:
        """The transformers image processor that does the same; `save_pretrained` writes preprocessor_config.json.

        Pipelines make colour images: a model of one channel needs images of one channel from elsewhere.
        """
        from transformers import CLIPImageProcessor

        crop = {"height": self.height, "width": self.width}
        return CLIPImageProcessor(
            size=crop if self.short_side is None else {"shortest_edge": self.short_side},
            resample=Image.Resampling(self.resample),
            do_center_crop=self.short_side is not None,
            crop_size=crop,
            image_mean=list(self.mean),
            image_std=list(self.std),
            **self.values.to_dict(),
        )

    @property
    def channels(self) -> int:
        return len(self.mean)

    def already_cropped(self) -> Preprocessing:
        """The preprocessing of images that were cropped for the model, such as ImageNet-C's 224 x 224: centre crop only.

        Smaller or larger images are scaled to fit first.
        """
        return dataclasses.replace(self, short_side=None if self.short_side is None else min(self.height, self.width))

    def __call__(self, image: Image.Image) -> Tensor:
        """The input of the model: float32 (channels, height, width)."""
        return self.views(image)[0]

    def views(self, image: Image.Image, test_time: str = "none") -> Tensor:
        """The views of one image, normalised: float32 (V, channels, height, width).

        Args:
            image: a PIL image of any size and mode.
            test_time: a name in `TEST_TIME`.

        Raises:
            ValueError: an unknown name.
        """
        views = TEST_TIME[check_test_time(test_time)](image.convert(MODES[self.channels]), self)
        mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (self.mean, self.std))
        return torch.stack(views).float().div_(255).sub_(mean).div_(std)  # rounded as `InMemoryImages` rounds

    def levels(self, image: Image.Image) -> Tensor:
        """The pixels of the input before they are normalised: uint8 (channels, height, width)."""
        image = image.convert(MODES[self.channels])
        if self.short_side is None:
            return self._scaled(image, self.height, self.width)
        return self.centre(self.scaled(image, self.short_side))

    def scaled(self, image: Image.Image, short_side: int) -> Tensor:
        """The image with that short side: uint8 (channels, H, W)."""
        height, width = (_side(side, short_side, min(image.size)) for side in (image.height, image.width))
        return self._scaled(image, height, width)

    def centre(self, pixels: Tensor) -> Tensor:
        """The middle of (channels, H, W), height x width pixels.

        Raises:
            ValueError: the image is smaller than that.
        """
        H, W = pixels.shape[-2:]
        if self.height > H or self.width > W:
            raise ValueError(f"An image of {W} x {H} pixels holds no centre of {self.width} x {self.height}.")
        middle = round if self.by_pil else math.floor
        top, left = middle((H - self.height) / 2), middle((W - self.width) / 2)
        return self.crop(pixels, top, left)

    def crop(self, pixels: Tensor, top: int, left: int) -> Tensor:
        """height x width pixels of (channels, H, W), from that place on."""
        return pixels[:, top : top + self.height, left : left + self.width]

    def _scaled(self, image: Image.Image, height: int, width: int) -> Tensor:
        from torchvision.transforms.v2.functional import pil_to_tensor
        from transformers.image_utils import SizeDict, pil_torch_interpolation_mapping

        if (image.height, image.width) == (height, width):
            return pil_to_tensor(image)
        if self.by_pil:
            return pil_to_tensor(image.resize((width, height), Image.Resampling(self.resample)))
        size, resample = SizeDict(height=height, width=width), Image.Resampling(self.resample)
        scaled: Tensor = _transformers().resize(
            pil_to_tensor(image).contiguous(), size, pil_torch_interpolation_mapping[resample]
        )
        return scaled


def saved_image_processor(name: str | os.PathLike[str]) -> Any:
    """The image processor that was saved beside a model: preprocessor_config.json where there is one.

    Of a folder with a timm model, transformers by itself reads the `pretrained_cfg` of its config.json, although the same
    folder on the Hub is read by its preprocessor_config.json.

    Raises:
        OSError: there is none.
    """
    from transformers import AutoImageProcessor
    from transformers.utils import IMAGE_PROCESSOR_NAME

    return AutoImageProcessor.from_pretrained(os.fspath(name), image_processor_filename=IMAGE_PROCESSOR_NAME)


@cache
def _transformers() -> Any:
    """Any image processor of transformers: the arithmetic is that of all."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor()


def _side(side: int, short_side: int, shortest: int) -> int:
    return short_side if side == shortest else int(short_side * side / shortest)  # as torchvision's Resize


def _centre(image: Image.Image, target: Preprocessing) -> list[Tensor]:
    return [target.levels(image)]


def _flip(image: Image.Image, target: Preprocessing) -> list[Tensor]:
    centre = target.levels(image)
    return [centre, centre.flip(-1)]


def _five_crops(image: Image.Image, target: Preprocessing) -> list[Tensor]:
    """The four corners and the centre of the image, scaled to 248/224 of the model's input."""
    scaled = target.scaled(image, round(FIVE_CROPS_RATIO * max(target.height, target.width)))
    bottom, right = scaled.shape[1] - target.height, scaled.shape[2] - target.width
    corners = [target.crop(scaled, top, left) for top in (0, bottom) for left in (0, right)]
    return [*corners, target.centre(scaled)]


TEST_TIME: Mapping[str, Callable[[Image.Image, Preprocessing], list[Tensor]]] = {
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


def normalisation_of(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, of pixels in [0, 1], by the settings of a transformers image processor.

    EfficientNet's divides by the deviation once more where it states `include_top`.

    Raises:
        ValueError: pixels are scaled by another number than 1/255, or come as blue, green and red.
    """
    name = _name_of(settings)
    if not settings.get("do_rescale", True) or abs(255 * settings.get("rescale_factor", 1 / 255) - 1) > 1e-6:
        raise ValueError(f"{name} does not scale pixels by 1/255: choose a model whose image processor does.")
    if settings.get("do_flip_channel_order"):
        raise ValueError(
            f"{name} gives its model blue, green and red in this order (do_flip_channel_order), which is not supported: "
            "choose a model that takes red, green and blue."
        )
    stated, deviation = settings.get("image_mean"), settings.get("image_std")
    # a setting that is left out is None there: MobileViT's processor states a mean, and does not normalise
    mean, std = (stated, deviation) if settings.get("do_normalize") and stated and deviation else (_ZERO, _ONE)
    if settings.get("rescale_offset"):  # to [-1, 0] before all else
        mean = [m + 1 for m in mean]
    if settings.get("include_top") and deviation:
        std = [s * again for s, again in zip(std, deviation)]
    return _floats(mean), _floats(std)


def _of_transformers(settings: Mapping[str, Any]) -> Preprocessing:
    mean, std = normalisation_of(settings)
    height, width, short_side = _geometry(settings, _name_of(settings))
    resample = int(settings.get("resample", Image.Resampling.BILINEAR))
    return Preprocessing(height, width, short_side, mean, std, resample, values=PixelValues.from_dict(settings))


def _name_of(settings: Mapping[str, Any]) -> str:
    return str(settings.get("image_processor_type", "the image processor"))


def _check_same(processor: Any, preprocessing: Preprocessing) -> None:
    """Refuse an image processor with steps that its settings do not tell of, or that are none of ours, by one image.

    Raises:
        ValueError: it makes other pixels of it.
    """
    name, image = type(processor).__name__, _test_image()
    try:
        theirs, ours = processor(image, return_tensors="pt")["pixel_values"][0], preprocessing(image)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} makes no pixels of an image ({error}): choose another model.") from error
    scale = torch.tensor(preprocessing.std).view(-1, 1, 1)
    apart = ((ours - theirs).abs() * scale).max() if ours.shape == theirs.shape else torch.inf
    if not apart <= _SAME:
        how = f"by up to {255 * apart:.0f} of 255" if ours.shape == theirs.shape else f"of shape {tuple(theirs.shape)}"
        raise ValueError(
            f"{name} has other steps than scaling, cropping the centre and normalising, or does them in its own way: of an "
            f"image it makes other pixels than its settings say ({how}). Choose a model with another image processor."
        )


@cache
def _test_image() -> Image.Image:
    """Slow ramps, another one in each channel: kernels of any library agree on them, crops and steps do not."""
    down, right = np.mgrid[0:1:384j, 0:1:512j]
    return Image.fromarray(np.rint(np.stack([255 * right, 255 * down, 80 + 80 * right], axis=-1)).astype(np.uint8))


def _geometry(settings: Mapping[str, Any], name: str) -> tuple[int, int, int | None]:
    """Height, width and short side, from the three notations of image processors."""
    size = settings.get("size") or {}
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    edge = size.get("shortest_edge")
    if settings.get("do_resize", True):
        if crop and edge:
            return crop["height"], crop["width"], _short_side(settings, edge, name)
        if edge and "crop_pct" in settings:  # ConvNeXt's, used by ResNets too: no crop from 384 pixels on
            return edge, edge, int(edge / settings["crop_pct"]) if edge < 384 else None
        if not crop and {"height", "width"} <= set(size):
            return size["height"], size["width"], None
    raise ValueError(
        f"{name} has no size that every image is brought to (size {dict(size)}, crop {crop}): set `size` to "
        "{'shortest_edge': ...} and `crop_size` to {'height': ..., 'width': ...} in the model's preprocessor_config.json."
    )


def _short_side(settings: Mapping[str, Any], edge: int, name: str) -> int:
    """Before the crop: PoolFormer's and LeViT's processors scale to more than they state."""
    if name.startswith("Levit"):
        return int(256 / 224 * edge)
    return int(edge / settings["crop_pct"]) if settings.get("crop_pct") else edge


def _of_timm(settings: Mapping[str, Any]) -> Preprocessing:
    _, height, width = settings["input_size"]
    share, mode = settings.get("crop_pct", 0.875), settings.get("crop_mode", "center")  # timm's own defaults
    if mode != "center" and (mode, share) != ("squash", 1):
        raise ValueError(
            f"timm's crop_mode {mode!r} with crop_pct {share} is not supported: set `crop_mode` to 'center' in the "
            "`pretrained_cfg` of the model's config.json."
        )
    short_side = int(min(height, width) / share) if mode == "center" else None
    resample = Image.Resampling[str(settings.get("interpolation", "bicubic")).upper()]
    mean, std = _floats(settings["mean"]), _floats(settings["std"])
    return Preprocessing(height, width, short_side, mean, std, resample, by_pil=True)


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
