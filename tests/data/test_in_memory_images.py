"""In-memory images: torchvision's crop, flip and normalise as reference; keyed and uniform random numbers."""

import random

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader
from torchvision.transforms import functional as reference
from transformers import default_data_collator

from hf_ltsam.data.in_memory.images import CUSTOMARY_NORMALISATION, InMemoryImages, normalisation
from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.data.labels import training_labels

MEAN, STD = CUSTOMARY_NORMALISATION["cifar10"]


def make(num=24, channels=3, side=32, augment=True, **settings) -> InMemoryImages:
    images = torch.randint(1, 256, (num, channels, side, side), generator=torch.Generator().manual_seed(0)).byte()
    labels = torch.arange(num) % 5
    return InMemoryImages(images, labels, MEAN[:channels], STD[:channels], augment=augment, **settings)


def variants(image, padding, flip=True):
    """{(top, left, flipped): torchvision's image}."""
    _, height, width = image.shape
    padded = reference.pad(image, [padding] * 4, fill=0)
    crops = {
        (top, left, False): reference.crop(padded, top, left, height, width)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    }
    flips = {(top, left, True): reference.hflip(crop) for (top, left, _), crop in crops.items()} if flip else {}
    return crops | flips


def normalised(image):
    channels = len(image)
    return reference.normalize(reference.convert_image_dtype(image), MEAN[:channels], STD[:channels])


def test_without_augmentation_it_is_torchvisions_normalise_bit_for_bit():
    dataset = make(augment=False)
    for i in (0, 7, 23):
        sample = dataset[i]
        assert torch.equal(sample["pixel_values"], normalised(dataset.images[i]))
        assert sample["labels"] == i % 5
        assert isinstance(sample["labels"], int)


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True), (0, False)])
def test_augmentation_is_one_of_torchvisions_crops(padding, flip):
    dataset = make(num=12, crop_padding=padding, flip=flip)
    for i, sample in enumerate(dataset.__getitems__(range(12))):
        candidates = variants(dataset.images[i], padding, flip).values()
        assert any(torch.equal(sample["pixel_values"], normalised(candidate)) for candidate in candidates)


def test_padding_is_black_before_normalising():
    images = torch.full((200, 1, 4, 4), 255, dtype=torch.uint8)
    dataset = InMemoryImages(images, torch.zeros(200).long(), (0.5,), (0.25,), augment=True, crop_padding=3)
    values = torch.stack([sample["pixel_values"] for sample in dataset.__getitems__(range(200))])
    assert set(values.unique().tolist()) == {-2.0, 2.0}  # (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25


@pytest.mark.parametrize(("size", "padding"), [((32, 32), 4), ((64, 48), 6), ((8, 8), 1), ((4, 4), 0)])
def test_the_padding_is_an_eighth_of_the_side_where_nothing_is_stated(size, padding):
    """4 pixels of 32, as the papers have it; 4 of 8 x 8 pixels left digits at 70 % where 1 had 93."""
    images = torch.zeros(2, 1, *size, dtype=torch.uint8)
    assert InMemoryImages(images, [0, 1], (0.5,), (0.25,), augment=True).crop_padding == padding
    assert InMemoryImages(images, [0, 1], (0.5,), (0.25,), augment=True, crop_padding=0).crop_padding == 0


def observed(num, epoch, seed=0, padding=2):
    """(top, left, flipped) of every sample, read from images whose pixels all differ."""
    image = torch.arange(1, 37, dtype=torch.uint8).view(1, 6, 6)
    dataset = InMemoryImages(
        image.expand(num, 1, 6, 6), torch.zeros(num).long(), (0.0,), (1 / 255,), True, seed=seed, crop_padding=padding
    )
    dataset.set_epoch(epoch)
    keys = {candidate.numpy().tobytes(): key for key, candidate in variants(image, padding).items()}
    values = torch.stack([sample["pixel_values"] for sample in dataset.__getitems__(range(num))])
    return [keys[one.numpy().tobytes()] for one in values.round().byte()]


def test_offsets_and_flips_are_uniform_and_independent():
    drawn = [key for epoch in range(5) for key in observed(4000, epoch)]
    counts = np.zeros((5, 5, 2))
    for top, left, flipped in drawn:
        counts[top, left, int(flipped)] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3  # 50 cells, 20,000 samples
    pairs = np.zeros((5, 5))  # the same sample in consecutive epochs
    for (before, *_), (after, *_) in zip(drawn[:-4000], drawn[4000:]):
        pairs[before, after] += 1
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_seed_epoch_and_index_all_matter():
    base = observed(200, epoch=0)
    assert base == observed(200, epoch=0)
    for other in (observed(200, epoch=1), observed(200, epoch=0, seed=1), base[1:] + base[:1]):
        assert sum(a == b for a, b in zip(base, other)) < 20  # 1 in 50 agrees by chance


def test_single_samples_and_batches_agree():
    dataset = make()
    dataset.set_epoch(2)
    batch = dataset.__getitems__([5, 3, 5, 23])
    for sample, i in zip(batch, [5, 3, 5, 23]):
        assert torch.equal(sample["pixel_values"], dataset[i]["pixel_values"])
    assert torch.equal(dataset[-1]["pixel_values"], dataset[23]["pixel_values"])
    with pytest.raises(IndexError):
        dataset[24]
    with pytest.raises(IndexError):
        dataset[-25]


def test_no_global_random_state_is_touched():
    np.random.seed(3)
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy(), random.getstate()
    dataset = make()
    dataset.set_epoch(1)
    dataset.__getitems__(range(24))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["key"] == before[1]).all()
    assert random.getstate() == before[2]


def read(loader):
    batches = list(loader)
    return torch.cat([b["pixel_values"] for b in batches]), torch.cat([b["labels"] for b in batches])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_through_a_real_loader_and_collator(num_workers):
    dataset = make()
    options = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    loader = DataLoader(dataset, batch_size=7, collate_fn=default_data_collator, **options)
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        pixels, labels = read(loader)
        expected = torch.stack([dataset[i]["pixel_values"] for i in range(24)])
        assert pixels.dtype == torch.float32
        assert torch.equal(pixels, expected)
        assert labels.dtype == torch.int64
        assert torch.equal(labels, dataset.labels)


def test_it_keys_its_random_numbers_and_has_labels():
    dataset = make()
    assert isinstance(dataset, KeyedDataset)
    assert dataset.labels.dtype == torch.int64
    assert torch.equal(training_labels(dataset), dataset.labels)
    assert len(dataset) == 24


def test_normalisation_is_the_mean_and_deviation_of_all_pixels():
    images = make(num=9).images
    mean, std = normalisation(images)
    pixels = images.double().numpy() / 255
    assert mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-12)
    with pytest.raises(ValueError, match=r"channel 0 .* 7"):
        normalisation(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, r"InMemoryImages\(images=\.\.\.\).*uint8.*float32"),
        ({"images": torch.zeros(2, 4, 4, dtype=torch.uint8)}, r"\(N, C, H, W\).*\(2, 4, 4\)"),
        ({"labels": torch.tensor([0, 1, 1])}, "3 labels for 2 images"),
        ({"labels": torch.tensor([0.0, 1.0])}, "integers"),
        ({"mean": (0.5,)}, r"mean=\.\.\.\).*3 channels.*1"),
        ({"std": (0.5, 0.0, 0.5)}, r"std=\.\.\.\).*positive.*0\.0"),
        ({"crop_padding": -1}, r"crop_padding=\.\.\.\).*at least 0.*-1"),
    ],
)
def test_bad_input_is_named(settings, message):
    good = {
        "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "labels": [0, 1], "mean": MEAN, "std": STD,
        "augment": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        InMemoryImages(**{**good, **settings})
