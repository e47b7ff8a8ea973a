"""Transforms on the fly: the inputs of the model, keyed randomness, the name of a broken file."""

import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import functional as reference
from transformers import default_data_collator

from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.labels import training_labels
from hf_ltsam.data.transforms import image_transform, on_the_fly

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def noise(height, width, seed=0) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8))


def png(image) -> dict:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def make(*images, labels=None) -> Dataset:
    features = Features({"img": ImageFeature(), "fine": ClassLabel(names=list("abc")), "other": Value("int64")})
    labels = labels or [i % 3 for i in range(len(images))]
    return Dataset.from_dict({"img": list(images), "fine": labels, "other": labels[::-1]}, features=features)


def test_evaluation_is_resize_and_centre_crop():
    image = noise(60, 90)
    sample = on_the_fly(make(png(image)), transform=image_transform(28, MEAN, STD, train=False))[0]
    resized = reference.resize(reference.pil_to_tensor(image), 32, antialias=True)  # 28 * 256 / 224
    expected = reference.normalize(reference.center_crop(resized, 28) / 255, MEAN, STD)
    grey_level = 1 / 255 / min(STD)  # transformers' resize and torchvision's round apart
    assert torch.allclose(sample["pixel_values"], expected, atol=1.01 * grey_level)
    assert sample["labels"] == 0
    assert set(sample) == {"pixel_values", "labels"}


def drawn(image, draws=300, **settings) -> torch.Tensor:
    """Pixels (draws, 3, 8, 8) in [0, 1] of one training image."""
    torch.manual_seed(0)
    transform = image_transform(8, [0.0] * 3, [1.0] * 3, train=True, **settings)
    return torch.stack([transform(image) for _ in range(draws)])


def test_colour_jitter_changes_brightness_contrast_and_saturation_by_factors_around_one():
    grey = drawn(Image.new("RGB", (16, 16), (100, 100, 100)), color_jitter=0.4)[:, :, 0, 0] * 255 / 100
    # one colour: brightness alone
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    assert 0.59 <= grey.min() < 0.65 and 1.35 < grey.max() <= 1.41
    assert grey[:, 0].mean() == pytest.approx(1, abs=0.05)

    red = drawn(Image.new("RGB", (16, 16), (120, 80, 80)), color_jitter=0.4)[:, :, 0, 0]
    chroma = (red[:, 0] - red[:, 1]) / red.mean(1) / (40 / 280 * 3)  # brightness cancels
    # 0.6 to 1.4 squared; contrast alone would be 0.6 to 1.4
    assert 0.3 < chroma.min() < 0.55 and 1.45 < chroma.max() < 2

    halves = Image.fromarray(
        np.repeat(np.where(np.arange(16) < 8, 80, 120).astype(np.uint8)[None, :, None], 16, 0).repeat(3, 2)
    )
    spread = drawn(halves, color_jitter=0.4).amax((1, 2, 3)) / drawn(halves, color_jitter=0.4).amin((1, 2, 3))
    assert spread.max() > 1.6  # contrast: 120 / 80 without


def test_without_colour_jitter_and_in_the_test_nothing_changes():
    image = noise(20, 30)
    assert torch.equal(drawn(image, 3), drawn(image, 3, color_jitter=0.0))
    test = [image_transform(8, [0.5] * 3, [0.25] * 3, train=False, color_jitter=jitter)(image) for jitter in (0.0, 0.4)]
    assert torch.equal(*test)


@pytest.mark.parametrize("jitter", [-0.1, 1.5])
def test_colour_jitter_is_a_share(jitter):
    with pytest.raises(ValueError, match=f"color_jitter.*{jitter}"):
        image_transform(8, [0.5] * 3, [0.25] * 3, train=True, color_jitter=jitter)


def test_grey_images_get_three_channels():
    sample = on_the_fly(make(png(noise(9, 9).convert("L"))), transform=image_transform(8, MEAN, STD, train=True))[0]
    assert sample["pixel_values"].shape == (3, 8, 8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_is_random_and_keyed(num_workers):
    dataset = on_the_fly(make(*[png(noise(20, 20))] * 6), transform=image_transform(8, MEAN, STD, train=True))
    keyed = KeyedRandomness(dataset, seed=0)
    loader = DataLoader(keyed, batch_size=4, collate_fn=default_data_collator, num_workers=num_workers)
    pixels = torch.cat([batch["pixel_values"] for batch in loader])
    assert torch.equal(pixels, torch.stack([keyed[i]["pixel_values"] for i in range(6)]))
    assert len({p.numpy().tobytes() for p in pixels}) == 6  # the same image, differently cropped
    assert all(batch["labels"].dtype == torch.int64 for batch in loader)


def test_labels_are_read_without_decoding():
    dataset = on_the_fly(make({"bytes": b"x", "path": None}, {"bytes": b"y", "path": None}), str, "img", "fine")
    assert training_labels(dataset).tolist() == [0, 1]
    other = on_the_fly(make({"bytes": b"x", "path": None}, {"bytes": b"y", "path": None}), str, "img", "other")
    assert training_labels(other).tolist() == [1, 0]


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "cut off.png"
    path.write_bytes(png(noise(30, 30))["bytes"][:200])
    dataset = on_the_fly(make(str(path)), transform=image_transform(8, MEAN, STD, train=True))
    with pytest.raises(ValueError, match=r"cut off\.png cannot be decoded"):
        dataset[0]
    bare = on_the_fly(make({"bytes": b"x", "path": None}), transform=image_transform(8, MEAN, STD, train=True))
    with pytest.raises(ValueError, match="unreadable_images"):
        bare[0]


def test_unknown_columns_are_refused():
    with pytest.raises(ValueError, match=r"no column 'imgs'.*'img'"):
        on_the_fly(make(png(noise(4, 4))), str, "imgs", "fine")
    with pytest.raises(ValueError, match="'fine' is not an Image column"):
        on_the_fly(make(png(noise(4, 4))), str, "fine", "fine")
    with pytest.raises(ValueError, match=r"no column 'fin'.*'fine'"):
        on_the_fly(make(png(noise(4, 4))), str, "img", "fin")
