"""People's own folders: splits, class names, and what is said when something is missing."""

import numpy as np
import pytest
from PIL import Image

from dataset_builders.folders import load_image_folder
from hf_ltsam.data.decoding import decode_images
from hf_ltsam.data.labels import training_labels


def write(folder, **classes):
    """`write(path, cat=3)` puts three images into path/cat; the red value counts them."""
    for name, number in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            # names that `datasets` would read as splits if it were left to guess
            Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / name / f"test_{i}.png")
    return folder


@pytest.fixture
def load(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return lambda path, **settings: load_image_folder(path, cache_dir=cache, **settings)


@pytest.mark.parametrize(("on_disk", "split"), [("validation", "validation"), ("val", "validation"), ("test", "test")])
def test_splits_and_names(tmp_path, load, on_disk, split):
    root = tmp_path / "photos [2024] of *mine*"
    write(root / "train", train=3, dog=2, cat=1)  # a class may be called like a split
    write(root / on_disk, dog=2, cat=1, train=1)
    (root / "train" / "metadata.csv").write_text("not for us\n")
    (root / "train" / "dog" / "notes.txt").write_text("no image\n")
    (root / "train" / ".hidden").mkdir()
    splits = load(root)
    assert set(splits) == {"train", split}
    assert splits["train"].features["label"].names == ["cat", "dog", "train"]
    assert np.bincount(training_labels(splits["train"])).tolist() == [1, 2, 3]
    assert np.bincount(training_labels(splits[split])).tolist() == [1, 2, 1]
    assert decode_images(splits["train"], progress=False).shape == (6, 3, 4, 4)


def test_class_folders_may_be_links(tmp_path, load):
    write(tmp_path / "elsewhere", cat=2)
    write(tmp_path / "data" / "train", dog=3)
    (tmp_path / "data" / "train" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    train = load(tmp_path / "data", held_out_per_class=0)["train"]
    assert np.bincount(training_labels(train)).tolist() == [2, 3]


def test_without_held_out_images_it_says_what_to_do(tmp_path, load):
    write(tmp_path, cat=5, dog=3)
    with pytest.raises(ValueError, match=r"no held-out images.*validation.*held_out_per_class"):
        load(tmp_path)
    assert set(load(tmp_path, held_out_per_class=0)) == {"train"}
    splits = load(tmp_path, held_out_per_class=2)
    assert np.bincount(training_labels(splits["train"])).tolist() == [3, 1]
    assert np.bincount(training_labels(splits["validation"])).tolist() == [2, 2]
    reds = [decode_images(part, progress=False)[:, 0, 0, 0].tolist() for part in splits.values()]
    assert sorted(reds[0] + reds[1]) == [0, 0, 1, 1, 2, 2, 3, 4]  # no image is lost or in both
    with pytest.raises(ValueError, match=r"'dog' has 3 images.*held_out_per_class=3"):
        load(tmp_path, held_out_per_class=3)


def test_what_is_missing_is_named_before_anything_is_read(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    write(tmp_path / "a" / "train", cat=2, dog=0)
    with pytest.raises(ValueError, match=r"dog.*no image"):
        load(tmp_path / "a", held_out_per_class=0)
    with pytest.raises(ValueError, match="at least 2 class folders"):
        load(write(tmp_path / "b", cat=1), held_out_per_class=0)
    write(tmp_path / "c" / "train", cat=2, dog=1)
    write(tmp_path / "c" / "val", cat=2, wolf=1)
    with pytest.raises(ValueError, match=r"val.*no training images.*wolf"):
        load(tmp_path / "c")
    write(tmp_path / "d" / "train", cat=2, dog=1)
    write(tmp_path / "d" / "val", cat=2)
    write(tmp_path / "d" / "validation", cat=2)
    with pytest.raises(ValueError, match=r"both val and validation"):
        load(tmp_path / "d")
    write(tmp_path / "e" / "val", cat=2, dog=2)
    with pytest.raises(ValueError, match=r"no train folder beside val"):
        load(tmp_path / "e")


def test_held_out_images_are_not_held_out_twice(tmp_path, load):
    write(tmp_path / "train", cat=2, dog=2)
    write(tmp_path / "val", cat=2, dog=2)
    with pytest.raises(ValueError, match=r"held_out_per_class=1.*validation"):
        load(tmp_path, held_out_per_class=1)


def test_classes_without_held_out_images_are_mentioned(tmp_path, load):
    write(tmp_path / "train", cat=2, dog=2)
    write(tmp_path / "test", cat=2)
    with pytest.warns(UserWarning, match=r"dog.*no image in test"):
        load(tmp_path)


def test_a_corrupt_image_is_named_when_it_is_decoded(tmp_path, load):
    write(tmp_path / "train", cat=2, dog=2)
    bad = tmp_path / "train" / "dog" / "test_1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    train = load(tmp_path, held_out_per_class=0)["train"]
    with pytest.raises(ValueError, match=r"dog/test_1\.png"):
        decode_images(train, progress=False)


def test_real_folder(shared, load):
    splits = load(shared / "samples" / "tiny_imagenet_lt")
    assert len(splits["train"]) == 1036
    counts = np.bincount(training_labels(splits["train"]))
    assert (len(counts), counts.max(), counts.min()) == (29, 120, 4)
    held_out = next(part for name, part in splits.items() if name != "train")
    assert np.bincount(training_labels(held_out)).tolist() == [20] * 29
    assert decode_images(held_out.select(range(0, 580, 29)), progress=False).shape == (20, 3, 64, 64)
