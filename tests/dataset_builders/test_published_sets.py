"""ImageNet-LT, iNaturalist, Places-LT and ImageNet's shifted tests, from folders and archives; what a copy lacks."""

import subprocess
import sys

import numpy as np
import pytest
from copies import WNIDS, as_archives, ilsvrc, jpeg, tar, write
from datasets import ClassLabel, Image

import dataset_builders
from dataset_builders import load_long_tailed, load_shifted, long_tail_statistics
from dataset_builders.sets.imagenet_c import ImageNetC
from dataset_builders.sets.imagenet_lt import ImageNetLT
from dataset_builders.sets.imagenetv2 import ImageNetV2
from dataset_builders.sources.class_table import class_table
from hf_ltsam.data.decoding import decode_images
from hf_ltsam.data.labels import training_labels


@pytest.fixture
def copy(tmp_path):
    return ilsvrc(tmp_path / "ilsvrc")


@pytest.fixture
def load(tmp_path):
    """Lists of one's own, because no published one fits three classes."""

    def load(root, name="imagenet_lt", **options):
        options = {"lists": root / "lists", "own_lists": True, "cache_dir": tmp_path / "cache", **options}
        return load_long_tailed(name, root, **options)

    return load


def red(dataset):
    return decode_images(dataset, progress=False)[:, 0, 0, 0].tolist()


def check(splits):
    """Of `copies.ilsvrc`: every class has its own colour."""
    assert list(splits) == ["train", "test"]
    assert splits["train"].features == {
        "image": Image(mode="RGB"),
        "label": ClassLabel(names=["tench", "goldfish", "great white shark"]),
    }
    assert training_labels(splits["train"]).tolist() == [0] * 4 + [1] * 2 + [2]
    assert training_labels(splits["test"]).tolist() == [0, 1, 2]
    assert red(splits["train"]) == [20] * 4 + [70] * 2 + [120] and red(splits["test"]) == [30, 80, 130]
    assert splits["train"].data.nbytes < 2000  # paths and labels, no images


@pytest.mark.parametrize("flat_val", [True, False])
def test_folders_flat_or_by_class(tmp_path, load, flat_val):
    check(load(ilsvrc(tmp_path / "copy", flat_val=flat_val)))


def test_official_archives_are_read_without_unpacking(tmp_path, copy, load):
    archives = as_archives(copy, tmp_path / "archives")
    (copy / "lists").rename(archives / "lists")
    check(load(archives))
    assert sorted(file.name for file in archives.iterdir()) == [
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
        "lists",
    ]


def test_kaggles_layout(tmp_path, copy, load):
    (tmp_path / "kaggle/ILSVRC/Data/CLS-LOC").mkdir(parents=True)
    for name in ("train", "val"):
        (copy / name).rename(tmp_path / "kaggle/ILSVRC/Data/CLS-LOC" / name)
    (copy / "lists").rename(tmp_path / "kaggle" / "lists")
    check(load(tmp_path / "kaggle"))


def test_grey_cmyk_and_palette_images_become_rgb(copy, load):
    for k, mode in enumerate(("L", "CMYK")):
        write(copy / "train" / WNIDS[0] / f"{WNIDS[0]}_{k}.JPEG", jpeg(20, mode))
    train = load(copy)["train"]
    assert {row["image"].mode for row in train} == {"RGB"}
    assert np.abs(np.asarray(red(train)) - ([20] * 4 + [70] * 2 + [120])).max() <= 2  # CMYK rounds


def test_as_a_builder_of_datasets_nothing_is_copied(tmp_path, copy):
    builder = ImageNetLT(
        cache_dir=str(tmp_path / "hf"),
        data_dir=str(copy),
        lists=str(copy / "lists"),
        own_lists=True,
        list_cache=str(tmp_path / "c"),
    )
    assert str(builder.config.version) == "1.0.0" and builder.config.name == "default"
    builder.download_and_prepare()
    check(builder.as_dataset())
    assert sum(file.stat().st_size for file in (tmp_path / "hf").rglob("*.arrow")) < 8000
    names = set(ImageNetC.builder_configs)
    assert len(names) == 95 and "gaussian_noise_1" in names
    assert set(ImageNetV2.builder_configs) == {"matched-frequency", "threshold-0.7", "top-images"}


def test_a_published_list_is_required_unless_ones_own_is_meant(copy, load):
    with pytest.raises(ValueError) as error:
        load(copy, own_lists=False)
    assert str(error.value) == (
        f"{copy / 'lists' / 'ImageNet_LT_train.txt'} is not the published list: it names 7 images and not 115,846; "
        "n01440764 (tench) has 4 and not 50, n01443537 (goldfish) has 2 and not 250, n01484850 (great white shark) has 1 and not "
        "516, n01491361 (tiger shark) has 0 and not 352, n01494475 (hammerhead shark) has 0 and not 143, and so on (1000 classes). "
        "Take the published list, or pass own_lists=True if this one is meant."
    )


def missing(copy, load, kind=FileNotFoundError):
    with pytest.raises(kind) as error:
        load(copy)
    return str(error.value)


def test_missing_images_are_counted_by_class(copy, load):
    for name in ("n01484850/n01484850_0", "n01440764/n01440764_2", "n01440764/n01440764_0"):
        (copy / "train" / f"{name}.JPEG").unlink()
    assert missing(copy, load) == (
        f"{copy / 'train'} lacks 3 of the 7 images that {copy / 'lists' / 'ImageNet_LT_train.txt'} names: "
        "all 1 of n01484850 (great white shark), 2 of 4 of n01440764 (tench). The first: train/n01440764/n01440764_0.JPEG, "
        "train/n01440764/n01440764_2.JPEG, train/n01484850/n01484850_0.JPEG. Complete the copy."
    )


def test_a_missing_class_in_an_archive(tmp_path, copy, load):
    for file in (copy / "train" / WNIDS[1]).iterdir():
        file.unlink()
    (copy / "train" / WNIDS[1]).rmdir()
    archives = as_archives(copy, tmp_path / "archives")
    (copy / "lists").rename(archives / "lists")
    assert missing(archives, load) == (
        f"{archives / 'ILSVRC2012_img_train.tar'} lacks 2 of the 7 images that {archives / 'lists' / 'ImageNet_LT_train.txt'} names: "
        "all 2 of n01443537 (goldfish). The first: train/n01443537/n01443537_0.JPEG, train/n01443537/n01443537_1.JPEG. "
        "Complete the copy."
    )


def test_empty_files_are_counted_too(copy, load):
    (copy / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    assert missing(copy, load) == (
        f"{copy / 'val'} has no content in 1 of the 3 images that {copy / 'lists' / 'ImageNet_LT_test.txt'} names: "
        "all 1 of n01443537 (goldfish). The first: val/n01443537/ILSVRC2012_val_00000001.JPEG. Complete the copy."
    )


@pytest.mark.parametrize("archive", [False, True])
def test_a_truncated_image_is_named(tmp_path, copy, load, archive):
    bad = copy / "train" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:-200])
    root = as_archives(copy, tmp_path / "archives") if archive else copy
    train = load(root, lists=copy / "lists")["train"]
    with pytest.raises(ValueError, match=rf"The image .*{WNIDS[1]}/{WNIDS[1]}_1\.JPEG \(row 5\) cannot be decoded"):
        decode_images(train, progress=False)


def test_a_wrong_folder_is_told(tmp_path, copy, load):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        load(tmp_path / "nowhere", lists=copy / "lists")
    with pytest.raises(
        FileNotFoundError, match=r"lists holds none of train, ILSVRC/Data/CLS-LOC/train, .*give the folder in which"
    ):
        load(copy / "lists", lists=copy / "lists")
    with pytest.raises(ValueError, match="needs data_dir"):
        load_long_tailed("imagenet_lt", lists=copy / "lists", own_lists=True)
    with pytest.raises(ValueError, match=r"There is no data set 'imagenet_tl'.*Did you mean 'imagenet_lt'"):
        load_long_tailed("imagenet_tl", copy)
    with pytest.raises(ValueError, match=r"no split 'tset'.*'test'"):
        load(copy, splits=("tset",))


def test_only_the_splits_asked_for_are_looked_for(copy, load, tmp_path):
    for file in (copy / "train" / WNIDS[0]).iterdir():
        file.unlink()
    assert list(load(copy, splits=("test",))) == ["test"]
    test = load_shifted("imagenet_lt", copy, lists=copy / "lists", own_lists=True, cache_dir=tmp_path)
    assert red(test) == [30, 80, 130]


def test_inaturalist_and_places(tmp_path, load):
    species = tmp_path / "inat"
    rows = ("train_val2018/Fungi/0/a.jpg 0", "train_val2018/Aves/1/b.jpg 1", "train_val2018/Aves/1/a.jpg 1")
    for k, row in enumerate(rows):
        write(species / row.split()[0], jpeg(30 * k))
    write(species / "lists" / "iNaturalist18_train.txt", "\n".join(rows).encode())
    train = load(species, "inaturalist2018")["train"]
    assert red(train) == [0, 30, 60] and train.features["label"].names == list(class_table("inaturalist2018").names[:2])

    places = tmp_path / "places"
    files = {"train/airfield/1.jpg": 10, "train/alcove/1.jpg": 60, "val/airfield/Places365_val_1.jpg": 90}
    tar(
        places / "places365standard_easyformat.tar",
        {f"places365_standard/{name}": jpeg(c) for name, c in files.items()},
    )
    write(places / "lists" / "Places_LT_train.txt", b"train/airfield/1.jpg 0\ntrain/alcove/1.jpg 1\n")
    write(places / "lists" / "Places_LT_test.txt", b"val/airfield/Places365_val_1.jpg 0\n")
    splits = load(places, "places_lt")
    assert (red(splits["train"]), red(splits["test"])) == ([10, 60], [90])
    assert splits["train"].features["label"].names == ["airfield", "alcove"]


def test_statistics_need_no_images(tmp_path, copy):
    facts = {
        "cifar10_lt": (12_406, 100, (4, 3, 3)),
        "cifar100_lt": (10_847, 100, (35, 35, 30)),
        "imagenet_lt": (115_846, 256, (385, 479, 136)),
        "inaturalist2018": (437_513, 500, (842, 4076, 3224)),
        "places_lt": (62_500, 996, (131, 163, 71)),
    }
    for name, (total, ratio, groups) in facts.items():
        statistics = long_tail_statistics(name)
        assert (statistics.total, statistics.imbalance_ratio) == (total, ratio)
        assert tuple(len(classes) for classes in statistics.groups.values()) == groups
    assert long_tail_statistics("cifar10_lt").counts == (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    assert long_tail_statistics("cifar10_lt", imbalance_ratio=50, profile="step").counts == (5000,) * 5 + (100,) * 5
    own = long_tail_statistics("imagenet_lt", lists=copy / "lists", own_lists=True, tail_threshold=1)
    assert own.counts == (4, 2, 1) and own.tail_classes == (2,)


# ---- shifted tests ----

THREE = tuple(WNIDS)


def shifted(tmp_path, name, **options):
    return load_shifted(name, tmp_path, **{"classes": THREE, "complete": False, "cache_dir": tmp_path / "c", **options})


def test_sketch_labels_come_from_the_sorted_wnids(tmp_path):
    for c, wnid in enumerate(reversed(WNIDS)):
        write(tmp_path / "sketch" / wnid / "sketch_0.JPEG", jpeg(40 * c))
    test = shifted(tmp_path, "imagenet_sketch")
    assert red(test) == [80, 40, 0] and training_labels(test).tolist() == [0, 1, 2]
    other_order = shifted(tmp_path, "imagenet_sketch", classes=(WNIDS[2], WNIDS[0]))
    assert red(other_order) == [0, 80] and other_order.features["label"].names == ["great white shark", "tench"]
    everything = shifted(tmp_path, "imagenet_sketch", classes=())
    assert everything.features["label"].names == list(class_table("imagenet").names)


@pytest.mark.parametrize("archive", [False, True])
def test_the_folders_of_v2_are_numbers_and_not_text(tmp_path, archive):
    files = {f"imagenetv2-threshold0.7-format-val/{c}/{c}.jpeg": jpeg(c) for c in (0, 2, 10, 100)}
    if archive:
        tar(tmp_path / "imagenetv2-threshold0.7.tar", files)
    else:
        for name, content in files.items():
            write(tmp_path / name, content)
    test = shifted(tmp_path, "imagenetv2", variant="threshold-0.7", classes=())
    assert training_labels(test).tolist() == red(test) == [0, 2, 10, 100]  # sorted as text, 10 would come before 2
    with pytest.raises(FileNotFoundError, match="holds none of imagenetv2-matched-frequency-format-val"):
        shifted(tmp_path, "imagenetv2")


@pytest.mark.parametrize("layout", ["plain", "archive's folder", "archive"])
def test_c_is_corruption_severity_wnid(tmp_path, layout):
    files = {
        f"{corruption}/{severity}/{wnid}/x.JPEG": jpeg(100 * k + 10 * severity + c)
        for k, corruption in enumerate(("gaussian_noise", "shot_noise"))
        for severity in (1, 3)
        for c, wnid in enumerate(WNIDS)
    }
    if layout == "archive":
        tar(tmp_path / "noise.tar", files)
    else:
        for name, content in files.items():
            write(tmp_path / ("noise" if layout == "archive's folder" else "") / name, content)
    assert red(shifted(tmp_path, "imagenet_c", corruption="shot_noise", severity=3)) == [130, 131, 132]
    assert red(shifted(tmp_path, "imagenet_c", corruption="gaussian_noise", severity=1)) == [10, 11, 12]


def test_c_needs_a_corruption_and_a_severity(tmp_path):
    with pytest.raises(ValueError, match=r"There is no corruption 'shot_nose'. Did you mean 'shot_noise'"):
        shifted(tmp_path, "imagenet_c", corruption="shot_nose", severity=1)
    with pytest.raises(ValueError, match=r"severity must be one of 1, 2, 3, 4, 5, got 6"):
        shifted(tmp_path, "imagenet_c", corruption="shot_noise", severity=6)
    with pytest.raises(ValueError, match=r"There is no variant 'top'"):
        shifted(tmp_path, "imagenetv2", variant="top")
    with pytest.raises(ValueError, match=r"'n01440765' is none of ImageNet's 1,000 wnids. Did you mean .*'n01440764'"):
        shifted(tmp_path, "imagenet_sketch", classes=("n01440765",))


def v2(tmp_path):
    root = tmp_path / "imagenetv2-matched-frequency-format-val"
    for c in range(3):
        for k in range(10):
            write(root / str(c) / f"{k}.jpeg", jpeg(c))
    return root


def refusal(tmp_path, kind, **options):
    with pytest.raises(kind) as error:
        shifted(tmp_path, "imagenetv2", **{"complete": True, **options})
    return str(error.value)


def test_an_incomplete_shifted_set_is_described(tmp_path):
    root = v2(tmp_path)
    assert len(shifted(tmp_path, "imagenetv2", complete=True)) == 30
    for file in [*(root / "1").iterdir(), root / "2" / "3.jpeg"]:
        file.unlink()
    assert refusal(tmp_path, FileNotFoundError) == (
        f"{root} lacks 11 of 30 images: all 10 of n01443537 (goldfish), 1 of 10 of n01484850 (great white shark). "
        "Complete the copy; load_shifted(complete=False) takes what is there."
    )
    assert training_labels(shifted(tmp_path, "imagenetv2")).tolist() == [0] * 10 + [2] * 9


def test_a_class_too_many_an_image_too_many_and_an_empty_one(tmp_path):
    root = v2(tmp_path)
    write(root / "1000" / "x.jpeg", jpeg(0))
    assert refusal(tmp_path, ValueError, complete=False) == (
        f"{root} has 1 class folders that are none of ImageNet's 1,000: 1000. Remove them; the folders are called 0 to 999."
    )
    (root / "1000" / "x.jpeg").unlink()
    write(root / "1" / "z.jpeg", jpeg(0))
    assert refusal(tmp_path, ValueError) == f"{root} has 11 images of n01443537 (goldfish) and not 10."
    (root / "1" / "z.jpeg").write_bytes(b"")
    assert refusal(tmp_path, ValueError) == f"{root} has 1 empty files: {root}/1/z.jpeg. Complete the copy."


# ---- the real samples ----


def test_the_imagenet_samples_in_every_layout(shared, tmp_path):
    files = sorted((shared / "samples" / "imagenet").glob("*/*.JPEG"))
    wnids = tuple(file.parent.name for file in files)
    number = {wnid: c for c, wnid in enumerate(class_table("imagenet").keys)}
    rows = []
    for c, file in enumerate(files):
        content = file.read_bytes()
        for place in ("train", "sketch", "fog/2"):
            write(tmp_path / place / file.parent.name / f"{file.parent.name}_1.JPEG", content)
        write(tmp_path / "imagenetv2-top-images-format-val" / str(number[wnids[c]]) / "x.jpeg", content)
        rows.append(f"train/{wnids[c]}/{wnids[c]}_1.JPEG {c}")
    write(tmp_path / "lists" / "ImageNet_LT_train.txt", "\n".join(rows).encode())
    options = {"classes": wnids, "complete": False}
    sets = [
        load_long_tailed("imagenet_lt", tmp_path, lists=tmp_path / "lists", own_lists=True)["train"],
        load_shifted("imagenet_sketch", tmp_path, **options),
        load_shifted("imagenetv2", tmp_path, variant="top-images", **options),
        load_shifted("imagenet_c", tmp_path, corruption="fog", severity=2, **options),
    ]
    for dataset in sets:
        assert training_labels(dataset).tolist() == list(range(100))
        assert dataset.features["label"].names == [class_table("imagenet").names[number[wnid]] for wnid in wnids]
    pictures = decode_images(sets[0], size=16, progress=False)
    grey = (pictures[:, 0] == pictures[:, 1]).flatten(1).all(1)
    assert pictures.shape == (100, 3, 16, 16) and 0 < int(grey.sum()) < 100  # some of the samples are grey
    assert (decode_images(sets[2], size=16, progress=False) == pictures).all()


def test_the_names_of_the_package_are_lazy():
    code = "import sys, dataset_builders; print(dataset_builders.__all__, {'datasets', 'torch'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = "['join_images', 'load_lists', 'load_long_tailed', 'load_shifted', 'long_tail_statistics']"
    assert out.strip() == f"{names} set()"
    with pytest.raises(AttributeError, match="no attribute 'load_long'"):
        dataset_builders.load_long  # noqa: B018
