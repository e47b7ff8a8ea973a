"""Augmentation of whole batches: each image equals torchvision's per-image transform with the same drawn numbers."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from hf_ltsam.data.in_memory.augmentation import crop_draws, cut_out, erasing_draws, operation_draws, square_centres
from hf_ltsam.data.in_memory.color_jitter import ColorJitter
from hf_ltsam.data.in_memory.images import CUSTOMARY_NORMALISATION, InMemoryImages
from hf_ltsam.data.in_memory.randaugment import OPERATIONS, RandAugment
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.transforms import image_transform

MEAN, STD = CUSTOMARY_NORMALISATION["cifar10"]


def keys_of(n, *words):
    return random_key(11, 2, np.arange(n, dtype=np.uint64), *words)


def pictures(n, channels=3, height=32, width=32):
    """Noise at several contrasts, for the operations on histograms; one image has a single grey level."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (n, channels, height, width), generator=generator).float()
    low = torch.linspace(0, 100, n).view(-1, 1, 1, 1)
    images = (low + noise * torch.linspace(0.1, 0.6, n).view(-1, 1, 1, 1)).byte()
    images[n // 2] = 77
    return images


def test_drawn_numbers_are_uniform():
    keys = keys_of(40_000)
    top, left, mirrored = crop_draws(keys, padding=4, flip=True)
    row, column = square_centres(keys, 32, 20)
    which, negative = operation_draws(keys, 14)
    for drawn, choices in ((top, 9), (left, 9), (mirrored, 2), (row, 32), (column, 20), (which, 14), (negative, 2)):
        counts = np.bincount(drawn, minlength=choices)
        assert len(counts) == choices
        assert stats.chisquare(counts).pvalue > 1e-3
    for a, b, cells in ((row, column, (32, 20)), (which, negative, (14, 2))):
        table, _, _ = np.histogram2d(a, b, bins=cells)
        assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_rectangles_that_are_erased():
    """As torchvision draws them: in a share of the images, of 2 to 33 percent of the area, inside of the image."""
    keys = [keys_of(20_000, k) for k in range(31)]
    top, left, height, width = erasing_draws(keys, 0.3, 32, 20)
    erased = height > 0
    assert erased.mean() == pytest.approx(0.3, abs=0.02)
    share = (height * width)[erased] / (32 * 20)
    assert 0.01 < share.min() < 0.03 and 0.29 < share.max() < 0.36
    assert share.mean() == pytest.approx(0.175, abs=0.02)
    ratio = np.log(height[erased] / width[erased])
    assert -1.4 < ratio.min() < -0.9 and ratio.max() < 1.5
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 32).all() and (left + width <= 20).all()
    assert (
        (top == 0).any()
        and (left == 0).any()
        and (top + height == 32)[erased].any()
        and (left + width == 20)[erased].any()
    )
    assert not erasing_draws(keys, 0.0, 32, 20).any()
    assert (erasing_draws(keys, 1.0, 32, 32)[2] > 0).all()


def test_factors_and_orders_of_colour_jitter():
    order, factors = ColorJitter(0.4).draws([keys_of(20_000, k) for k in range(4)])
    assert factors.min() == pytest.approx(0.6, abs=1e-3) and factors.max() == pytest.approx(1.4, abs=1e-3)
    assert np.abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.03
    counts = np.unique(order, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_no_image_is_mirrored_without_flip():
    assert not crop_draws(keys_of(200), 4, flip=False)[2].any()


def test_crop_square_and_operations_share_no_random_numbers(monkeypatch):
    """Otherwise the square's position would depend on the crop's."""
    seen = []
    monkeypatch.setattr(
        "hf_ltsam.data.in_memory.images.random_key", lambda *words: seen.append(words) or random_key(*words)
    )
    make(cutout=8, randaugment=RandAugment(operations=2), color_jitter=0.1, random_erasing=0.1).batch([0, 1])
    assert len({words[3:] for words in seen}) == len(seen) == 4 + 4 + 31


def make(num=24, augment=True, **settings):
    return InMemoryImages(pictures(num), torch.arange(num) % 5, MEAN, STD, augment=augment, seed=5, **settings)


def one_by_one(dataset, index, epoch):
    """Crop, flip, colour jitter, RandAugment, normalisation, cutout and erasing of one image by torchvision, with the numbers
    of its keys."""

    def key(*words):
        return random_key(dataset.seed, epoch, np.array([index], dtype=np.uint64), *words)

    top, left, mirrored = crop_draws(key(), dataset.crop_padding, dataset.flip)[:, 0]
    image = reference.crop(reference.pad(dataset.images[index], [dataset.crop_padding] * 4), top, left, 32, 32)
    image = reference.hflip(image) if mirrored else image
    if dataset.color_jitter:
        adjust = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
        (order,), (factors,) = ColorJitter(dataset.color_jitter).draws([key(0xC01, k) for k in range(4)])
        for k in order:
            image = adjust[k](image, round(2**20 * factors[k]) / 2**20)
    if dataset.randaugment:
        for k in range(dataset.randaugment.operations):
            which, negative = operation_draws(key(0x4A2D, k), 14)[:, 0]
            image = operation(OPERATIONS[which], image, dataset.randaugment.magnitude, -1 if negative else 1)
    pixels = reference.normalize(reference.convert_image_dtype(image), MEAN, STD)
    if dataset.cutout:
        (row,), (column,) = square_centres(key(0xC07), 32, 32)
        half = dataset.cutout // 2  # DeVries & Taylor 2017: clip(y - half), clip(y + half), after normalising
        pixels[:, max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
    if dataset.random_erasing:
        keys = [key(0xE4A, k) for k in range(31)]
        top, left, height, width = erasing_draws(keys, dataset.random_erasing, 32, 32)[:, 0].tolist()
        pixels = reference.erase(pixels, top, left, height, width, torch.tensor(0.0))
    return pixels


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cutout": 16},
        {"randaugment": RandAugment(2, 9)},
        {"randaugment": RandAugment(1, 15), "cutout": 8, "flip": False},
        {"color_jitter": 0.4},
        {"random_erasing": 0.6},
        {"color_jitter": 1.0, "random_erasing": 1.0, "randaugment": RandAugment(1, 30), "cutout": 8},
    ],
    ids=["plain", "cutout", "randaugment", "both", "jitter", "erasing", "all"],
)
def test_a_batch_is_torchvisions_images_bit_for_bit(settings):
    dataset = make(num=96, **settings)
    dataset.set_epoch(4)
    indices = np.random.default_rng(0).permutation(96)
    batch = dataset.batch(indices)
    assert torch.equal(batch["labels"], dataset.labels[indices])
    for pixels, index in zip(batch["pixel_values"], indices):
        assert torch.equal(pixels, one_by_one(dataset, index, epoch=4)), index


def test_crops_and_flips_are_those_of_the_first_release():
    """The accuracies in documents and tests come from these very batches."""
    images = (torch.arange(24 * 3 * 32 * 32) * 2654435761 % 4294967296 // 16777216).view(24, 3, 32, 32).to(torch.uint8)
    dataset = InMemoryImages(images, torch.arange(24) % 5, MEAN, STD, augment=True, seed=5)
    dataset.set_epoch(3)
    pixels = dataset.batch(range(24))["pixel_values"]
    digest = "8e3e890a48a2ea7bf5c2ff5b1f5058541664b1eb2e1e01925280de66e925641d"
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == digest


def test_memory_format_changes_no_number():
    dataset = make(cutout=4)
    plain, last = (
        dataset.batch(range(24), memory_format=f)["pixel_values"]
        for f in (torch.contiguous_format, torch.channels_last)
    )
    assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


@pytest.mark.parametrize("augment", [True, False])
def test_no_batch_reads_from_its_device(augment):
    """The meta device has no values, and reading one raises: nothing waits for an accelerator."""
    more = {"color_jitter": 0.4, "random_erasing": 0.5}
    dataset = make(num=64, augment=augment, cutout=8, randaugment=RandAugment(operations=3), **more)
    batch = dataset.batch(range(64), dataset.store.to("meta"))
    assert batch["pixel_values"].device.type == batch["labels"].device.type == "meta"
    assert batch["pixel_values"].shape == (64, 3, 32, 32)


@pytest.mark.parametrize(
    ("side", "covered"), [(2, (4, 6, 5, 7)), (3, (4, 7, 5, 8)), (4, (3, 7, 4, 8)), (16, (0, 9, 0, 10))]
)
def test_the_square(side, covered):
    pixels = torch.ones(2, 3, 9, 10)
    cut_out(pixels, torch.tensor([5, 0]), torch.tensor([6, 0]), side)
    top, bottom, left, right = covered
    expected = torch.ones(9, 10)
    expected[top:bottom, left:right] = 0
    assert (pixels[0] == expected).all()
    corner = torch.ones(9, 10)
    corner[: side - side // 2, : side - side // 2] = 0  # clipped at the border
    assert (pixels[1] == corner).all()


def operation(name, image, magnitude, sign):
    """One operation of Cubuk et al. 2020 on one image, by torchvision's public functions."""
    share = sign * magnitude / 30
    nearest = {"interpolation": InterpolationMode.NEAREST}
    shear = math.degrees(math.atan(0.3 * share))
    height, width = image.shape[1:]
    sideways, down = int(150 / 331 * width * share), int(150 / 331 * height * share)
    return {
        "identity": lambda: image,
        "shear_x": lambda: reference.affine(image, 0, [0, 0], 1, [shear, 0], center=[0, 0], **nearest),
        "shear_y": lambda: reference.affine(image, 0, [0, 0], 1, [0, shear], center=[0, 0], **nearest),
        "translate_x": lambda: reference.affine(image, 0, [sideways, 0], 1, [0, 0], **nearest),
        "translate_y": lambda: reference.affine(image, 0, [0, down], 1, [0, 0], **nearest),
        "rotate": lambda: reference.rotate(image, 30 * share, **nearest),
        "brightness": lambda: reference.adjust_brightness(image, 1 + 0.9 * share),
        "color": lambda: reference.adjust_saturation(image, 1 + 0.9 * share),
        "contrast": lambda: reference.adjust_contrast(image, 1 + 0.9 * share),
        "sharpness": lambda: reference.adjust_sharpness(image, 1 + 0.9 * share),
        "posterize": lambda: reference.posterize(image, 8 - round(magnitude / 7.5)),
        "solarize": lambda: reference.solarize(image, 255 - 8.5 * magnitude),
        "autocontrast": lambda: reference.autocontrast(image),
        "equalize": lambda: reference.equalize(image),
    }[name]()


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 20, 28)])
@pytest.mark.parametrize("magnitude", [9, 15, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions(name, magnitude, channels, height, width):
    images = pictures(12, channels, height, width)
    negative = np.arange(12) % 2
    draws = np.stack([np.full(12, OPERATIONS.index(name)), negative])[None]
    expected = [operation(name, image, magnitude, -1 if n else 1) for image, n in zip(images, negative)]
    assert torch.equal(RandAugment(1, magnitude)(images.clone(), draws), torch.stack(expected))


def test_the_operations_are_those_of_torchvision():
    from torchvision.transforms import RandAugment as Theirs

    space = Theirs()._augmentation_space(31, (32, 32))
    assert [name.replace("_", "") for name in OPERATIONS] == [name.lower() for name in space]


def test_operations_are_applied_in_a_row():
    images = pictures(6)
    draws = np.stack(
        [[np.full(6, OPERATIONS.index(name)), np.zeros(6, dtype=int)] for name in ("solarize", "translate_x")]
    )
    expected = [operation("translate_x", operation("solarize", image, 9, 1), 9, 1) for image in images]
    assert torch.equal(RandAugment(2, 9)(images.clone(), draws), torch.stack(expected))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: RandAugment(operations=0), r"RandAugment\(operations=\.\.\.\).*0"),
        (lambda: RandAugment(magnitude=31), r"RandAugment\(magnitude=\.\.\.\).*\[0, 30\].*31"),
        (lambda: make(color_jitter=1.2), r"color_jitter=\.\.\.\).*\[0, 1\].*1.2"),
        (lambda: make(random_erasing=-0.1), r"random_erasing=\.\.\.\).*\[0, 1\].*-0.1"),
        (
            lambda: InMemoryImages(
                torch.zeros(2, 4, 8, 8).byte(), [0, 1], [0.5] * 4, [0.5] * 4, True, color_jitter=0.1
            ),
            r"color_jitter=\.\.\.\).*one or three channels.*4",
        ),
        (lambda: make(cutout=-1), r"cutout=\.\.\.\).*at least 0.*-1"),
        (lambda: make(cutout=32), r"cutout=\.\.\.\).*less than the 32 pixels.*got 32"),
        (lambda: make(crop_padding=32), r"crop_padding=\.\.\.\).*less than the 32 pixels.*got 32"),
        (lambda: image_transform(224, MEAN, STD, True, cutout=224), r"cutout=\.\.\.\).*less than the 224 pixels"),
        (
            lambda: InMemoryImages(
                torch.zeros(2, 4, 8, 8).byte(), [0, 1], [0.5] * 4, [0.5] * 4, True, randaugment=RandAugment()
            ),
            r"randaugment=\.\.\.\).*one or three channels.*4",
        ),
    ],
)
def test_invalid_settings_are_refused(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
