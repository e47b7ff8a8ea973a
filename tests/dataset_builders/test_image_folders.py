"""People's own folders: splits, class names, and what is said when something is missing."""

import os

import numpy as np
import pytest
from datasets import Image as ImageFeature
from datasets import load_dataset
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
def load():
    return load_image_folder


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


def test_a_train_folder_alone_is_told_of_the_one_beside_it(tmp_path, load):
    write(tmp_path / "sorted" / "Train", cat=5, dog=3)
    with pytest.raises(ValueError, match=r"no held-out.*Move some of Train/<class>/ into test/<class>/, or pass"):
        load(tmp_path / "sorted")


def test_without_held_out_images_it_says_what_to_do(tmp_path, load):
    write(tmp_path, cat=5, dog=3)
    with pytest.raises(
        ValueError, match=r"no held-out images.*Sort them into train/<class>/ and test/<class>/, or .*=K"
    ):
        load(tmp_path)
    assert set(load(tmp_path, held_out_per_class=0)) == {"train"}
    splits = load(tmp_path, held_out_per_class=2)
    assert np.bincount(training_labels(splits["train"])).tolist() == [3, 2]
    assert np.bincount(training_labels(splits["validation"])).tolist() == [2, 1]
    reds = [decode_images(part, progress=False)[:, 0, 0, 0].tolist() for part in splits.values()]
    assert sorted(reds[0] + reds[1]) == [0, 0, 1, 1, 2, 2, 3, 4]  # no image is lost or in both
    with pytest.warns(UserWarning, match=r"held_out_per_class=3.*at most half.*: 'cat' 2 of 5, 'dog' 1 of 3\."):
        splits = load(tmp_path, held_out_per_class=3)
    assert np.bincount(training_labels(splits["validation"])).tolist() == [2, 1]


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


OTHER_FOLDERS = [  # below a folder with owls/train, owls/val: what is named, and the folder or way that is shown
    ("", r"at least 2 class folders with images, it has 1\. .*owls has 2 folders: name that one"),
    ("owls/train", r"train is one of the splits train and val of .*owls: name that folder"),
    ("owls/train/cat", "has 0. Its own images are in no class folder: name the folder above a class"),
    ("tables", r"has 0\. labels\.csv is a table: load_tables reads it\."),
]


@pytest.mark.parametrize(("named", "said"), OTHER_FOLDERS)
def test_a_folder_one_level_too_high_or_too_low(tmp_path, load, named, said):
    root = tmp_path / "data"
    write(root / "owls" / "train", cat=2, dog=2)
    write(root / "owls" / "val", cat=1, dog=1)
    if named == "tables":
        (root / "tables").mkdir()
        (root / "tables" / "labels.csv").write_text("file,label\n")
    with pytest.raises(ValueError, match=said):
        load(root / named)


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


# Less than what lies in the folder is taken only with a word.

FORMATS = ["JPG", "jpeg", "webp", "AVIF", "bmp", "tif", "tiff", "gif", "ppm", "qoi", "png"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_suffixes_that_are_taken(tmp_path, load, recwarn, suffix):
    write(tmp_path, cat=1, dog=1)
    try:
        Image.new("RGB", (4, 4)).save(tmp_path / "cat" / f"other.{suffix}")
    except (KeyError, OSError):
        pytest.skip(f"this Pillow cannot write {suffix}")
    train = load(tmp_path, held_out_per_class=0)["train"]
    assert np.bincount(training_labels(train)).tolist() == [2, 1] and not recwarn
    assert decode_images(train, progress=False).shape == (3, 3, 4, 4)


def broken_link(folder):
    (folder / "lost.png").symlink_to(folder / "nowhere.png")


@pytest.mark.parametrize(
    ("add", "images", "said"),
    [
        (
            lambda cat: (cat / "a.raw").write_bytes(b"x"),
            2,
            r"1 files that are no images by their suffix \(\.raw: 1\)",
        ),
        (lambda cat: [(cat / f"{i}.CR2").write_bytes(b"x") for i in range(3)], 2, r"3 files .*\(\.CR2: 3\)"),
        (lambda cat: (cat / "without").write_bytes(b"x"), 2, r"\(no suffix: 1\)"),
        (broken_link, 2, r"1 broken links, the first .*cat/lost\.png"),
        (lambda cat: write(cat, deep=2), 4, r"below a class folder belong to that class \(2 of cat\)"),
        (lambda cat: write(cat / "a", b=1), 3, r"\(1 of cat\)"),
        (lambda cat: Image.new("L", (4, 4)).save(cat.parent / "loose.png"), 2, r"left out 1 images in no class folder"),
    ],
)
def test_what_is_left_out_is_counted(tmp_path, load, add, images, said):
    write(tmp_path, cat=2, dog=1)
    add(tmp_path / "cat")
    with pytest.warns(UserWarning, match=said) as told:
        train = load(tmp_path, held_out_per_class=0)["train"]
    assert len(told) == 1 and np.bincount(training_labels(train)).tolist() == [images, 1]


@pytest.mark.parametrize(
    "add",
    [
        lambda cat: (cat / ".hidden.png").write_bytes(b"x"),
        lambda cat: (cat / "Thumbs.db").write_bytes(b"x"),
        lambda cat: (cat / "notes.txt").write_text("x"),
        lambda cat: write(cat, **{".ipynb_checkpoints": 1}),
        lambda cat: write(cat.parent, __MACOSX=1),
        lambda cat: (cat / "round").symlink_to(cat.parent),  # not without end
    ],
)
def test_hidden_and_system_files_are_no_loss(tmp_path, load, add):
    write(tmp_path, cat=2)
    write(tmp_path, dog=1)
    add(tmp_path / "cat")
    if (tmp_path / "cat" / "round").is_symlink():
        (tmp_path / "cat" / "round").unlink()
        (tmp_path / "cat" / "round").symlink_to(tmp_path / "cat")
    train = load(tmp_path, held_out_per_class=0)["train"]
    assert np.bincount(training_labels(train)).tolist() == [2, 1]


def test_formats_that_cannot_be_read_at_all(tmp_path, load):
    write(tmp_path, cat=2, dog=0)
    (tmp_path / "dog" / "a.raw").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"dog \(1 files .*\.raw: 1\).*no image inside.*PNG or JPEG"):
        load(tmp_path, held_out_per_class=0)


@pytest.mark.parametrize(
    ("train", "held_out", "split"),
    [
        ("Train", "Test", "test"),
        ("TRAIN", "Val", "validation"),
        ("training", "valid", "validation"),
        ("train", "dev", "validation"),
    ],
)
def test_split_folders_by_other_names(tmp_path, load, train, held_out, split):
    write(tmp_path / train, cat=2, dog=1)
    write(tmp_path / held_out, cat=1, dog=1)
    splits = load(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 3, split: 2}


def test_two_folders_of_one_split(tmp_path, load):
    for name in ("train", "Train", "test"):
        write(tmp_path / name, cat=1, dog=1)
    with pytest.raises(ValueError, match="both Train and train: keep one"):
        load(tmp_path)


def test_classes_that_are_called_like_splits(tmp_path, load):
    write(tmp_path, train=2, bus=1)  # images right inside: vehicles
    assert load(tmp_path, held_out_per_class=0)["train"].features["label"].names == ["bus", "train"]


def test_images_beside_the_splits_are_told(tmp_path, load):
    write(tmp_path / "train", cat=1, dog=1)
    write(tmp_path / "test", cat=1, dog=1)
    write(tmp_path / "unlabelled", part=3)
    with pytest.warns(UserWarning, match=r"images in unlabelled are no part of a split"):
        load(tmp_path)


def test_order_is_that_of_the_imagefolder_builder(tmp_path, load):
    names = ["10.png", "2.png", "b.JPG", "a.jpeg", "_x.png", "Z.png", "é.png"]
    for folder in ("zeta", "alpha", "Beta"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (4, 4)).save(tmp_path / "train" / folder / name, format="PNG")
    ours = load(tmp_path, held_out_per_class=0)["train"]
    theirs = load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=tmp_path / "cache", drop_labels=False)[
        "train"
    ]
    assert ours.features == theirs.features and ours["label"][:] == theirs["label"][:]
    paths = [part.cast_column("image", ImageFeature(decode=False))["image"][:] for part in (ours, theirs)]
    assert paths[0] == paths[1]


def test_a_file_whose_name_is_no_text_is_named(tmp_path, load):
    write(tmp_path, cat=2, dog=2)
    (tmp_path / "cat" / "test_0.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/cat/k\xe4tzchen.png"))
    with pytest.raises(ValueError, match=r"/cat/k\\xe4tzchen\.png' is no UTF-8: rename it"):
        load(tmp_path, held_out_per_class=1)
    os.rename(os.fsencode(tmp_path) + b"/cat", os.fsencode(tmp_path) + b"/k\xe4tze")  # noqa: PTH104
    with pytest.raises(ValueError, match=r"/k\\xe4tze' is no UTF-8: rename it"):
        load(tmp_path, held_out_per_class=1)
