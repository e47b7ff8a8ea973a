"""Decoding: modes, sizes, and the names of unreadable files."""

import functools
import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from dataset_builders.corruptions import corrupted
from hf_ltsam.data.bad_images import BadImageError
from hf_ltsam.data.decoding import decode_images, unreadable_images
from hf_ltsam.data.transforms import image_transform, on_the_fly


def encoded(image: Image.Image, form: str = "PNG", **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, format=form, **settings)
    return file.getvalue()


def dataset_of(*entries, **columns) -> Dataset:
    """Entries are bytes or paths."""
    images = [{"bytes": e, "path": None} if isinstance(e, bytes) else {"bytes": None, "path": str(e)} for e in entries]
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": images, "label": [0] * len(images)}, features=features)


def noise(height, width, seed=0) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8))


def test_pixels_and_order():
    images = [noise(5, 7, seed) for seed in range(4)]
    decoded = decode_images(dataset_of(*map(encoded, images)).select([2, 0, 3]), progress=False)
    assert decoded.dtype == torch.uint8
    expected = np.stack([np.asarray(images[i]) for i in (2, 0, 3)]).transpose(0, 3, 1, 2)
    assert (decoded.numpy() == expected).all()


def test_every_mode_becomes_rgb_or_grey():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    entries = [
        encoded(red), encoded(red.convert("P")), encoded(red.convert("RGBA")), encoded(red.convert("CMYK"), "TIFF"),
        encoded(Image.new("L", (4, 4), 76)), encoded(Image.new("1", (4, 4), 1)),
    ]  # fmt: skip
    decoded = decode_images(dataset_of(*entries), progress=False)
    assert decoded.shape == (6, 3, 4, 4)
    first = decoded[:, :, 0, 0].tolist()
    assert first == [[255, 0, 0], [255, 0, 0], [255, 0, 0], [255, 0, 0], [76, 76, 76], [255, 255, 255]]
    grey = decode_images(dataset_of(*entries), channels=1, progress=False)
    assert grey.shape == (6, 1, 4, 4)
    assert grey[:, 0, 0, 0].tolist() == [76, 76, 76, 76, 76, 255]


def test_exif_orientation_is_followed():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = noise(4, 8)
    decoded = decode_images(dataset_of(encoded(image, exif=exif)), progress=False)
    assert decoded.shape == (1, 3, 8, 4)
    assert (decoded[0].permute(1, 2, 0).numpy() == np.rot90(np.asarray(image), -1)).all()


def test_size_scales_the_short_side_and_crops_the_centre():
    step = np.zeros((8, 16, 3), np.uint8)
    step[:, 4:12] = 200  # the centre half is bright
    decoded = decode_images(dataset_of(encoded(Image.fromarray(step)), encoded(noise(9, 5))), size=4, progress=False)
    assert decoded.shape == (2, 3, 4, 4)
    assert decoded[0, 0, 1].tolist()[1:3] == [200, 200]
    same = decode_images(dataset_of(encoded(noise(6, 6))), size=6, progress=False)
    assert (same[0].permute(1, 2, 0).numpy() == np.asarray(noise(6, 6))).all()
    longer = decode_images(dataset_of(encoded(noise(6, 10))), size=6, progress=False)
    assert (longer[0].permute(1, 2, 0).numpy() == np.asarray(noise(6, 10))[:, 2:8]).all()


def test_different_sizes_need_size():
    with pytest.raises(ValueError, match=r"row 1.*5 x 7.*4 x 4.*size="):
        decode_images(dataset_of(encoded(noise(4, 4)), encoded(noise(7, 5))), progress=False)


@pytest.fixture
def broken_file(tmp_path):
    path = tmp_path / "folder" / "cut off.jpg"
    path.parent.mkdir()
    whole = encoded(noise(64, 64), "JPEG")
    path.write_bytes(whole[: len(whole) // 2])
    return path


def test_a_truncated_file_is_named(broken_file):
    with pytest.raises(ValueError, match=r"cut off\.jpg.*row 1.*truncated"):
        decode_images(dataset_of(encoded(noise(64, 64)), broken_file), progress=False)


def test_broken_bytes_and_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"row 0.*cannot be decoded.*cannot identify"):
        decode_images(dataset_of(b"no image"), progress=False)
    with pytest.raises(ValueError, match=r"gone\.png.*row 0.*No such file"):
        decode_images(dataset_of(tmp_path / "gone.png"), progress=False)
    empty = dataset_of(encoded(noise(2, 2))).to_dict()
    empty = Dataset.from_dict({**empty, "image": [None]}, features=dataset_of().features)
    with pytest.raises(ValueError, match=r"row 0.*no image"):
        decode_images(empty, progress=False)


def test_sixteen_bits_are_scaled_rather_than_clipped():
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    assert (decode_images(dataset_of(encoded(deep)), progress=False) == round(40_000 * 255 / 65_535)).all()


def test_all_unreadable_images_are_listed(broken_file):
    good = encoded(noise(64, 64))
    messages = unreadable_images(dataset_of(good, broken_file, good, b"no image"), progress=False)
    assert len(messages) == 2
    assert "cut off.jpg" in messages[0]
    assert "row 3" in messages[1]
    assert unreadable_images(dataset_of(good), progress=False) == []


def test_transform_and_format_are_ignored():
    def forbidden(batch):
        raise RuntimeError("called")

    dataset = dataset_of(encoded(noise(3, 3))).with_transform(forbidden)
    assert decode_images(dataset, progress=False).shape == (1, 3, 3, 3)
    assert dataset.format["type"] == "custom"


def two_columns() -> Dataset:
    features = Features({"left": ImageFeature(), "right": ImageFeature(), "x": Value("int64")})
    return Dataset.from_dict({"left": [noise(2, 2)], "right": [noise(3, 3)], "x": [0]}, features=features)


def test_a_column_by_name():
    assert decode_images(two_columns(), "right", progress=False).shape == (1, 3, 3, 3)


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        (Dataset.from_dict({"x": [1]}), {}, r"no Image column.*x"),
        (two_columns(), {}, r"left, right.*image_column="),
        (two_columns(), {"image_column": "x"}, r"'x' is not an Image column.*left, right"),
        (dataset_of(encoded(noise(2, 2))), {"channels": 4}, r"channels.*1 or 3.*4"),
        (dataset_of(encoded(noise(2, 2))), {"size": 0}, r"size.*positive.*0"),
        (dataset_of(), {}, "no rows"),
    ],
)
def test_invalid_columns_and_settings_are_refused(dataset, settings, message):
    with pytest.raises(ValueError, match=message):
        decode_images(dataset, **settings)


@functools.cache
def one_colour(size) -> bytes:
    return encoded(Image.new("1", size))


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2, 1001), (15_000, 15_000)])
@pytest.mark.parametrize(
    "read",
    [
        lambda dataset: decode_images(dataset, size=32, progress=False),
        lambda dataset: on_the_fly(dataset, image_transform(224, [0.5] * 3, [0.5] * 3, train=False))[0],
        lambda dataset: on_the_fly(dataset, image_transform(224, [0.5] * 3, [0.5] * 3, train=True))[0],
        lambda dataset: corrupted(dataset, "contrast", 1, size=224)[0],
    ],
)
def test_a_small_file_takes_no_gigabytes(size, read):
    file = one_colour(size)
    assert len(file) < 200_000
    with pytest.raises(
        BadImageError, match=r"(\d+ x \d+ pixels, more than 500 times as long as wide.*Crop)|decompression bomb"
    ):
        read(dataset_of(file))
    (message,) = unreadable_images(dataset_of(one_colour((1, 500)), file), progress=False)
    assert "(row 1)" in message
