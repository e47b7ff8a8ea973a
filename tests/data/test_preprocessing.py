"""Preprocessing and views at test time: the same pixels as in the test after a training, and crops in their places."""

import numpy as np
import pytest
import torch
import transformers
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageColumn
from PIL import Image
from torch import nn
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    DonutImageProcessor,
    EfficientNetImageProcessor,
    LevitImageProcessor,
    MobileViTImageProcessor,
    PoolFormerImageProcessor,
    ViTImageProcessor,
)
from transformers.models.auto import image_processing_auto, modeling_auto

from hf_ltsam.data.decoding import decode_images
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.data.preprocessing import TEST_TIME, Preprocessing
from hf_ltsam.data.transforms import image_transform
from hf_ltsam.models.logits import averaged_logits

MEAN, STD = (0.49, 0.48, 0.44), (0.2, 0.21, 0.19)
SIZES = [(41, 29), (29, 41), (30, 30), (64, 33), (33, 57), (8, 200)]  # width, height


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ramp(side):
    """Red is the column of a pixel, green its row."""
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))


def places(views):
    """(column, row) of the upper left pixel of every view, from images of `ramp`."""
    corner = (views[:, :2, 0, 0] * 255).round().int()
    return [tuple(place) for place in corner.tolist()]


def saved_and_read(preprocessing):
    return Preprocessing.from_image_processor(preprocessing.image_processor())


def plain(side, short_side):
    return Preprocessing(side, side, short_side, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("size", SIZES)
def test_the_same_pixels_as_the_test_of_a_training_on_large_images(size):
    transform = image_transform(24, MEAN, STD, train=False)
    preprocessing = saved_and_read(Preprocessing(24, 24, 27, MEAN, STD))  # 27 = 24 * 256 / 224
    assert torch.equal(preprocessing.views(noise(*size))[0], transform(noise(*size)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_bits_as_the_test_of_a_training_on_small_images(size, channels):
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=["a", "b"])})
    dataset = Dataset.from_dict({"image": [noise(*size)], "label": [0]}, features)
    mean, std = MEAN[:channels], STD[:channels]
    seen = InMemoryImages(decode_images(dataset, None, 16, channels, False), [0], mean, std, augment=False)[0]
    preprocessing = saved_and_read(Preprocessing(16, 16, 16, mean, std))
    assert torch.equal(preprocessing.views(noise(*size))[0], seen["pixel_values"])


def test_images_of_the_right_size_stay_unchanged():
    preprocessing = saved_and_read(Preprocessing(12, 16, 12, (0.0,) * 3, (1.0,) * 3))
    image = noise(16, 12)
    np.testing.assert_array_equal((preprocessing.views(image)[0] * 255).round().permute(1, 2, 0), np.asarray(image))


def test_flip_adds_the_mirror_image():
    views = plain(24, 27).views(noise(41, 29), "flip")
    assert len(views) == 2 and torch.equal(views[1], views[0].flip(-1))
    assert torch.equal(views[:1], plain(24, 27).views(noise(41, 29)))


def test_five_crops_of_224_from_248():
    """Their positions in pixels: an image of 248 is not scaled."""
    views = plain(224, 256).views(ramp(248), "five_crops")
    assert views.shape == (5, 3, 224, 224)
    assert places(views) == [(0, 0), (24, 0), (0, 24), (24, 24), (12, 12)]


def test_five_crops_against_torchvision():
    from torchvision.transforms import v2

    image = noise(300, 270)
    expected = v2.FiveCrop(224)(v2.Resize(248)(image))
    views = Preprocessing(224, 224, 256, (0.0,) * 3, (1.0,) * 3, by_pil=True).views(image, "five_crops")
    for view, crop in zip(views, expected):
        np.testing.assert_array_equal((view * 255).round().permute(1, 2, 0), np.asarray(crop))


def test_other_sizes_keep_the_ratio():
    assert places(plain(32, 32).views(ramp(35), "five_crops")) == [(0, 0), (3, 0), (0, 3), (3, 3), (1, 1)]  # 35.4
    assert places(plain(8, 8).views(ramp(9), "five_crops"))[:4] == [(0, 0), (1, 0), (0, 1), (1, 1)]  # 8.9


def test_already_cropped_images_are_not_scaled():
    """ImageNet-C is 224 x 224: centre crop only, where others are scaled to 256 first."""
    image = noise(224, 224)
    preprocessing = plain(224, 256).already_cropped()
    np.testing.assert_array_equal((preprocessing.views(image)[0] * 255).round().permute(1, 2, 0), np.asarray(image))
    assert not torch.equal(preprocessing.views(image), plain(224, 256).views(image))
    assert plain(192, 220).already_cropped().views(image).shape == (1, 3, 192, 192)
    whole = Preprocessing(24, 24, None, MEAN, STD)
    assert whole.already_cropped() == whole


def test_grey_models_see_grey_images():
    image = noise(9, 9)
    views = Preprocessing(9, 9, 9, (0.0,), (1.0,)).views(image)
    np.testing.assert_array_equal((views[0, 0] * 255).round(), np.asarray(image.convert("L")))


def test_colour_models_see_grey_images_in_colour():
    views = plain(9, 9).views(noise(9, 9).convert("L"))
    assert torch.equal(views[0, 0], views[0, 1]) and views.shape == (1, 3, 9, 9)


@pytest.mark.parametrize(
    "processor, expected",
    [
        (CLIPImageProcessor(), (224, 224, 224)),
        (ViTImageProcessor(size={"height": 72, "width": 96}), (72, 96, None)),
        (ConvNextImageProcessor(size={"shortest_edge": 224}), (224, 224, 256)),
        (ConvNextImageProcessor(size={"shortest_edge": 384}), (384, 384, None)),
        (BitImageProcessor(size={"shortest_edge": 448}, crop_size={"height": 448, "width": 448}), (448, 448, 448)),
    ],
)
def test_image_processors_of_the_hub(processor, expected):
    preprocessing = Preprocessing.from_image_processor(processor)
    assert (preprocessing.height, preprocessing.width, preprocessing.short_side) == expected
    assert preprocessing.mean == tuple(processor.image_mean) and preprocessing.resample == processor.resample


def smooth(width, height):
    return noise(5, 4).resize((width, height), Image.Resampling.BICUBIC)


def classes_of_processors():
    """Those of all image classifiers in transformers."""
    by_type = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    found = [by_type.get(kind, {}) for kind in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES]
    names = {name for entry in found for name in (entry.values() if isinstance(entry, dict) else [entry])}
    return sorted(names - {None, "TimmWrapperImageProcessor"})


def check_followed(processor):
    """The same pixels up to the kernels, which differ where PIL scales."""
    preprocessing = Preprocessing.from_image_processor(processor)
    scale = torch.tensor(preprocessing.std).view(3, 1, 1)
    for size in [(401, 290), (290, 401), (600, 333), (224, 224)]:
        theirs = processor(smooth(*size), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(preprocessing(smooth(*size)) * scale, theirs * scale, rtol=0, atol=3 / 255)


FOLLOWED = ["Beit", "Bit", "CLIP", "ConvNext", "EfficientNet", "Levit", "MobileNetV1", "MobileNetV2", "PoolFormer", "Pvt",
            "Segformer", "Siglip", "ViT"]  # fmt: skip


@pytest.mark.parametrize("name", classes_of_processors())
def test_every_image_processor_is_followed_or_refused(name):
    try:
        check_followed(getattr(transformers, name)())
    except ValueError as error:
        assert name.partition("ImageProcessor")[0] not in FOLLOWED, error
        assert any(words in str(error) for words in ("no size", "blue, green", "other steps", "makes no pixels")), error


@pytest.mark.parametrize(
    "processor",
    [
        LevitImageProcessor(),
        LevitImageProcessor(size={"shortest_edge": 192}, crop_size={"height": 192, "width": 192}),
        LevitImageProcessor(size={"shortest_edge": 160}, crop_size={"height": 160, "width": 160}),
        PoolFormerImageProcessor(),
        PoolFormerImageProcessor(crop_pct=None),
        PoolFormerImageProcessor(crop_pct=0.95),
        EfficientNetImageProcessor(image_mean=MEAN, image_std=STD),
        EfficientNetImageProcessor(image_mean=MEAN, image_std=STD, include_top=False),
        EfficientNetImageProcessor(image_mean=MEAN, image_std=STD, include_top=False, rescale_offset=True),
        EfficientNetImageProcessor(image_mean=MEAN, image_std=STD, do_normalize=False),
        MobileViTImageProcessor(do_flip_channel_order=False, crop_size={"height": 192, "width": 192}),
    ],
    ids=lambda p: f"{type(p).__name__}-{p.size}-{getattr(p, 'crop_pct', '')}",
)
def test_steps_that_one_processor_alone_has(processor):
    check_followed(processor)


@pytest.mark.parametrize("name", [name for name in classes_of_processors() if name.startswith("ViT")])
def test_kernels_may_differ_by_a_level_whatever_the_deviation(name):
    processor = getattr(transformers, name)(resample=Image.Resampling.LANCZOS, image_std=[0.05] * 3)
    assert Preprocessing.from_image_processor(processor).std == (0.05,) * 3


def test_timms_image_processor():
    from transformers import TimmWrapperImageProcessor

    settings = {"input_size": (3, 224, 224), "crop_pct": 0.95, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    processor = TimmWrapperImageProcessor(settings, "resnet10t")
    preprocessing = Preprocessing.from_image_processor(processor)
    assert preprocessing == Preprocessing(224, 224, 235, MEAN, STD, Image.Resampling.BICUBIC, by_pil=True)
    image = noise(300, 260)
    torch.testing.assert_close(preprocessing.views(image)[0], processor.val_transforms(image), rtol=0, atol=1e-6)


class Mirrored(CLIPImageProcessor):
    """A step of its own, of which no setting tells."""

    def preprocess(self, *args, **kwargs):
        batch = super().preprocess(*args, **kwargs)
        batch["pixel_values"] = batch["pixel_values"].flip(-1)
        return batch


class Closer(CLIPImageProcessor):
    """The middle 95 % of what it says."""

    def preprocess(self, *args, **kwargs):
        return super().preprocess(*args, **{**kwargs, "size": {"shortest_edge": 236}})


class Halved(CLIPImageProcessor):
    def preprocess(self, *args, **kwargs):
        batch = super().preprocess(*args, **kwargs)
        batch["pixel_values"] = batch["pixel_values"][..., ::2, ::2]
        return batch


class Unable(CLIPImageProcessor):
    error: Exception = ValueError("no clusters")

    def preprocess(self, *args, **kwargs):
        raise self.error


class OfText(Unable):
    error = TypeError("text is missing")


class OfPatches(Unable):
    error = KeyError("pixel_values")


@pytest.mark.parametrize(
    "processor, message",
    [
        (CLIPImageProcessor(do_center_crop=False), "no size that every image is brought to"),
        (CLIPImageProcessor(do_resize=False), "no size that every image is brought to"),
        (ViTImageProcessor(rescale_factor=1 / 127.5), "1/255"),
        (CLIPImageProcessor(size={"shortest_edge": 100}), "100 pixels, which does not hold the crop of 224 x 224"),
        (MobileViTImageProcessor(crop_size={"height": 192, "width": 192}), "blue, green and red"),
        (DonutImageProcessor(size={"height": 64, "width": 48}), "Donut.* has other steps than scaling"),
        (Mirrored(), r"Mirrored has other steps .* \(by up to 191 of 255\)"),
        (Closer(), r"Closer has other steps .* \(by up to [67] of 255\)"),
        (Halved(), r"Halved has other steps .* \(of shape \(3, 112, 112\)\)"),
        (ViTImageProcessor(resample=Image.Resampling.BOX), "makes no pixels of an image .*box"),
        (Unable(), r"Unable makes no pixels of an image \(no clusters\)"),
        (OfText(), r"OfText makes no pixels of an image \(text is missing\)"),
        (OfPatches(), r"OfPatches makes no pixels of an image \('pixel_values'\)"),
    ],
)
def test_other_image_processors_are_refused(processor, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_image_processor(processor)


def test_an_unknown_test_time_is_refused():
    with pytest.raises(ValueError, match=r"'five_crop'.*'five_crops'"):
        plain(8, 8).views(ramp(8), "five_crop")
    assert set(TEST_TIME) == {"none", "flip", "five_crops"}


def test_logits_are_averaged_over_the_views():
    class Model(nn.Module):
        def forward(self, pixel_values):
            assert len(pixel_values) == 3  # one pass for each view
            return {"logits": pixel_values.mean(dim=(2, 3)).to(torch.bfloat16)}

    views = torch.randint(0, 4, (3, 5, 2, 4, 4)).float()
    expected = torch.stack([views[:, v].mean(dim=(2, 3)).to(torch.bfloat16).float() for v in range(5)]).sum(0) / 5
    logits = averaged_logits(Model(), views)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected)
