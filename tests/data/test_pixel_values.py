"""Images of more bits or channels than a model takes: the levels of 0 to 255 that become of them."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from hf_ltsam.data.bad_images import BadImageError
from hf_ltsam.data.decoding import decode_image
from hf_ltsam.data.pixel_values import PixelValues
from hf_ltsam.data.preprocessing import Preprocessing

VALUES = np.array([[0, 1000], [4095, 65535]])


def encoded(*pages, kind="PNG", **options):
    """An entry of an image column: pages as arrays."""
    first, *others = (page if isinstance(page, Image.Image) else Image.fromarray(page) for page in pages)
    file = io.BytesIO()
    first.save(file, kind, **({"save_all": True, "append_images": others} if others else {}), **options)
    return {"bytes": file.getvalue(), "path": None}


def levels(entry, model_channels=3, **values):
    return np.asarray(decode_image(entry, model_channels, values=PixelValues(**values)))


def expected(values, low, high):
    """Written from the definition, a pixel at a time: halves to even, as IEEE rounds."""
    return [[round(min(max((v - low) * 255 / (high - low), 0), 255)) for v in row] for row in values.tolist()]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("value_range", [None, (0, 4095), (500, 1500.5)])
def test_16_bits(kind, value_range):
    image = levels(encoded(VALUES.astype(np.uint16), kind=kind), value_range=value_range)
    assert image.shape == (2, 2, 3) and (image == image[..., :1]).all()
    assert image[..., 0].tolist() == expected(VALUES, *(value_range or (0, 65535)))


def test_32_bits_need_a_range():
    values = np.array([[0.0, 0.25], [0.5, 2.0]], dtype=np.float32)
    entry = encoded(values, kind="TIFF")
    with pytest.raises(BadImageError, match=r"32 bits per channel .*values from 0 to 2\): pixel_range=\(LOW, HIGH\)"):
        levels(entry)
    assert levels(entry, 1, value_range=(0, 1)).tolist() == expected(values, 0, 1)
    whole = encoded(np.array([[0, 70000]], dtype=np.int32), kind="TIFF")
    assert levels(whole, 1, value_range=(0, 70000)).tolist() == [[0, 255]]
    with pytest.raises(BadImageError, match="values from 0 to 70000"):
        levels(whole)


def test_channels_by_choice():
    rgba = np.arange(16, dtype=np.uint8).reshape(2, 2, 4)
    assert levels(encoded(rgba), channels=(3, 1, 0)).tolist() == rgba[..., [3, 1, 0]].tolist()
    assert levels(encoded(rgba), 1, channels=(2,)).tolist() == rgba[..., 2].tolist()
    assert levels(encoded(rgba)).tolist() == rgba[..., :3].tolist()
    with pytest.raises(BadImageError, match=r"it has the channels 0 to 3, and rgb_channels asks for 4"):
        levels(encoded(rgba), channels=(4, 1, 0))


def test_pages_of_a_stack_are_channels():
    """As microscopes write them, 16 bits each."""
    pages = [(VALUES // (page + 1)).astype(np.uint16) for page in range(5)]
    image = levels(encoded(*pages, kind="TIFF"), channels=(4, 2, 0), value_range=(0, 4095))
    assert [image[..., c].tolist() for c in range(3)] == [expected(pages[page], 0, 4095) for page in (4, 2, 0)]


def test_palettes_and_orientation_stay_what_they_are():
    palette = Image.fromarray(np.uint8([[[255, 0, 0], [0, 0, 255]]])).convert("P", palette=Image.Palette.ADAPTIVE)
    assert levels(encoded(palette), value_range=(0, 510))[0].tolist() == [[128, 0, 0], [0, 0, 128]]
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    turned = encoded(np.uint8([[[9] * 3, [200] * 3]]), kind="PNG", exif=exif)
    assert levels(turned).shape == levels(turned, value_range=(0, 255)).shape == (2, 1, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("values", [{"channels": (0, 1, 2)}, {"channels": (1,)}, {"value_range": (0, 255)}], ids=str)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_followed_whatever_is_read(orientation, values, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    entry = encoded(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14, kind=kind, exif=exif)
    expected = levels(entry)[..., list(values.get("channels", (0, 1, 2)))]
    assert (levels(entry, **values) == expected).all() and expected.shape[:2] == ((2, 3) if orientation < 5 else (3, 2))


def test_pages_are_turned_each_by_its_own_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    pages = [np.arange(6, dtype=np.uint8).reshape(2, 3) + 10 * page for page in range(3)]
    image = levels(encoded(*pages, kind="TIFF", exif=exif), channels=(2, 0, 1))
    assert [image[..., c].tolist() for c in range(3)] == [np.rot90(pages[page], -1).tolist() for page in (2, 0, 1)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_a_range_is_of_colours_however_they_are_stored(mode):
    """Of CMYK, cyan is no red."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    entry = encoded(Image.fromarray(colours).convert(mode), kind="TIFF")
    assert levels(entry, value_range=(0, 255)).tolist() == levels(entry).tolist()
    assert levels(entry, 1, value_range=(0, 255)).shape == (4, 5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": (0, 1)}, "one channel, or three"),
        ({"channels": (0, 1, -1)}, "from 0"),
        ({"value_range": (5, 5)}, "a larger one of white"),
        ({"value_range": (0, math.nan)}, "a larger one of white"),
    ],
)
def test_what_cannot_be(settings, said):
    with pytest.raises(ValueError, match=said):
        PixelValues(**settings)


def test_saved_with_the_image_processor(tmp_path):
    values = PixelValues((3, 2, 1), (0, 4095))
    Preprocessing(8, 8, 8, (0.5,) * 3, (0.5,) * 3, values=values).image_processor().save_pretrained(tmp_path)
    assert Preprocessing.beside(tmp_path).values == values
    assert "rgb_channels" not in Preprocessing(8, 8, 8, (0.5,) * 3, (0.5,) * 3).image_processor().to_dict()


@pytest.mark.parametrize(("brand", "said"), [(b"heic", "HEIC needs pip install pillow-heif"), (b"avif", "AVIF needs")])
def test_a_missing_decoder_is_named_in_one_line(brand, said, monkeypatch):
    monkeypatch.setattr("hf_ltsam.data.decoding.register_decoders", lambda: None)
    entry = {"bytes": b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1", "path": "a.heic"}
    with pytest.raises(BadImageError, match=rf"a\.heic cannot be decoded \({said}") as raised:
        decode_image(entry)
    assert "\n" not in str(raised.value)


def test_avif_where_pillow_has_it():
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow decodes no AVIF")
    assert levels(encoded(np.full((8, 8, 3), 90, np.uint8), kind="AVIF")).shape == (8, 8, 3)
