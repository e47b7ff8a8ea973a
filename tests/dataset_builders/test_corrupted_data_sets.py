"""Corruptions as a transform of a data set: keyed by row, nothing else changed."""

import pickle

import numpy as np
import pytest
from corruption_pictures import labelled_scenes, png, scene
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import center_crop, resize

from dataset_builders.corruptions import corrupt, corrupted
from dataset_builders.corruptions.transform import CorruptImage, as_in_imagenet_c
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.labels import class_label_column_of, training_labels


def pixels(dataset: Dataset, rows=None) -> np.ndarray:
    rows = range(len(dataset)) if rows is None else rows
    return np.stack([np.asarray(dataset[int(i)]["img"]) for i in rows])


def identity(rows):
    return rows


@pytest.fixture(scope="module")
def clean() -> Dataset:
    return labelled_scenes(9)


def test_every_row_is_corrupted_with_its_own_numbers(clean):
    result = corrupted(clean, "gaussian_noise", 3, seed=5)
    expected = [corrupt(scene(16, 16, i), "gaussian_noise", 3, random_key(5, i)) for i in range(9)]
    assert np.array_equal(pixels(result), expected)
    same = Dataset.from_dict({"img": [png(scene(16, 16))] * 4}, features=Features({"img": ImageFeature()}))
    assert len({p.tobytes() for p in pixels(corrupted(same, "gaussian_noise", 1))}) == 4
    for other in (corrupted(clean, "gaussian_noise", 3, seed=6), corrupted(clean, "gaussian_noise", 2, seed=5)):
        assert not np.array_equal(pixels(other, [0]), expected[:1])


def test_neither_batch_nor_order_nor_process_matters(clean):
    result = corrupted(clean, "snow", 2)
    one_by_one = pixels(result)
    assert np.array_equal([np.asarray(image) for image in result[:9]["img"]], one_by_one)
    assert np.array_equal(pixels(result, reversed(range(9)))[::-1], one_by_one)
    assert np.array_equal(pixels(result.select([7, 2])), one_by_one[[7, 2]])
    shuffled = result.shuffle(seed=0)
    assert np.array_equal(pixels(shuffled), one_by_one[[int(note.split()[1]) for note in shuffled["note"]]])
    assert np.array_equal([np.asarray(image) for image in result["img"]], one_by_one)
    loaded = [row for batch in DataLoader(result, batch_size=4, num_workers=2, collate_fn=identity) for row in batch]
    assert np.array_equal([np.asarray(row["img"]) for row in loaded], one_by_one)


def test_it_is_picklable(clean):
    result = corrupted(clean, "fog", 2, seed=1)
    assert np.array_equal(pixels(pickle.loads(pickle.dumps(result))), pixels(result))


def test_labels_and_other_columns_stay(clean):
    result = corrupted(clean, "fog", 1)
    assert result.features["label"] == ClassLabel(names=["dog", "cat"]) and class_label_column_of(result) == "label"
    assert training_labels(result).tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert list(result[3]) == ["img", "label", "note"] and result[3]["note"] == "row 3"
    assert isinstance(result[3]["img"], Image.Image) and result[3]["img"].mode == "RGB"
    assert clean[0]["img"].size == (16, 16) and "corruption_row" not in clean.column_names


class Uncopyable:
    """A transform that holds, say, a lock."""

    def __call__(self, batch):
        return {"x": [1] * len(batch["label"])}

    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")

    def __reduce__(self):
        return str, ("",)


def test_a_transform_of_the_clean_set_is_dropped_and_a_selection_is_numbered_anew(clean):
    transformed = clean.with_transform(Uncopyable())
    assert np.array_equal(pixels(corrupted(transformed, "fog", 1)), pixels(corrupted(clean, "fog", 1)))
    picked = corrupted(clean.select([5, 1]), "fog", 1)
    assert np.array_equal(pixels(picked)[0], corrupt(scene(16, 16, 5), "fog", 1, random_key(0, 0)))


def test_grey_palette_and_digits_images_become_rgb():
    colour = Image.fromarray(scene(8, 8))
    features = Features({"image": ImageFeature()})
    dataset = Dataset.from_dict(
        {"image": [colour.convert("L"), colour.convert("P"), colour.convert("CMYK")]}, features=features
    )
    grey = np.asarray(colour.convert("L").convert("RGB"))
    result = corrupted(dataset, "contrast", 2)
    assert np.array_equal(np.asarray(result[0]["image"]), corrupt(grey, "contrast", 2, random_key(0, 0)))
    assert [row["image"].mode for row in result] == ["RGB"] * 3


def test_images_are_brought_to_a_size_before(clean):
    image = CorruptImage("jpeg_compression", 1, size=12)(png(scene(40, 60)), 0)
    assert image.size == (12, 12)
    wide = (
        Image.fromarray(scene(40, 60)).resize((21, 14), Image.Resampling.BILINEAR).crop((4, 1, 16, 13))
    )  # 12 * 256 / 224
    assert np.array_equal(np.asarray(image), corrupt(np.asarray(wide), "jpeg_compression", 1, random_key(0, 0)))
    odd = Image.fromarray(scene(37, 61))  # sizes are rounded as torchvision rounds them
    assert np.array_equal(as_in_imagenet_c(odd, 12), center_crop(resize(odd, 14), 12))
    assert corrupted(clean, "fog", 1, size=24)[0]["img"].size == (24, 24)


def test_refusals(clean):
    with pytest.raises(ValueError, match=r"Unknown corruption 'frog'\. Did you mean 'fog'"):
        corrupted(clean, "frog", 1)
    with pytest.raises(ValueError, match="must be 1, 2, 3, 4 or 5, got 9"):
        corrupted(clean, "fog", 9)
    with pytest.raises(TypeError, match="integer"):
        corrupted(clean, "fog", 1, seed=0.5)
    with pytest.raises(ValueError, match=r"size=\.\.\.\) must be at least 8 pixels or None, got 4"):
        corrupted(clean, "fog", 1, size=4)
    with pytest.raises(TypeError, match="got a DatasetDict"):
        corrupted(DatasetDict(test=clean), "fog", 1)
    with pytest.raises(TypeError, match="stream"):
        corrupted(clean.to_iterable_dataset(), "fog", 1)
    with pytest.raises(ValueError, match="has no column 'image'"):
        corrupted(clean, "fog", 1, image_column="image")
    with pytest.raises(ValueError, match="corrupted already"):
        corrupted(corrupted(clean, "fog", 1), "snow", 1)
    with pytest.raises(ValueError, match="select columns first"):
        corrupted(clean, "fog", 1).select_columns(["img", "label"])[0]
    assert corrupted(clean, "fog", 1).select_columns(["label"])[0] == {"label": 0}


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "cut.png").write_bytes(png(scene(16, 16))["bytes"][:100])
    features = Features({"img": ImageFeature()})
    dataset = Dataset.from_dict({"img": [png(scene(16, 16)), str(tmp_path / "cut.png")]}, features=features)
    with pytest.raises(ValueError, match=r"cut\.png \(row 1\) cannot be decoded"):
        corrupted(dataset, "fog", 1)[1]
