"""CIFAR-LT from local Parquet files in both layouts, and from the Hub through its loader."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from dataset_builders.long_tail import draw, exponential_profile, long_tailed
from dataset_builders.sets import cifar_lt
from dataset_builders.sets.cifar_lt import CIFAR10_NAMES, CIFAR100_NAMES, load_cifar_lt
from hf_ltsam.data.labels import training_labels


def png(value: int) -> dict:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (value % 256, value // 256, 0)).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(labels, label_type=pa.int64(), **columns) -> pa.Table:
    images = pa.array([png(i) for i in range(len(labels))], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    return pa.table({"img": images, "label": pa.array(labels, label_type), **columns})


def numbers(dataset: Dataset) -> list[int]:
    """The row numbers that `png` wrote into the images."""
    return [r + 256 * g for r, g, _ in (image.getpixel((0, 0)) for image in dataset["img"])]


TRAIN_LABELS = np.random.RandomState(1).permutation(np.repeat(np.arange(10), 30))


@pytest.fixture(scope="module")
def hub_layout(tmp_path_factory):
    """The Hub's own files: two shards in a sub-folder; no metadata; labels as int8."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "plain_text").mkdir()
    whole = table(TRAIN_LABELS, pa.int8())
    pq.write_table(whole.slice(0, 170), folder / "plain_text" / "train-00000-of-00002.parquet")
    pq.write_table(whole.slice(170), folder / "plain_text" / "train-00001-of-00002.parquet")
    pq.write_table(table(list(range(10))), folder / "plain_text" / "test-00000-of-00001.parquet")
    return folder


def write_draw(folder, labels, ranks):
    pq.write_table(table(labels, rank=pa.array(ranks, pa.int32())), folder / "train_ir10.parquet")
    pq.write_table(table(list(range(10))), folder / "test.parquet")
    return folder


@pytest.fixture(scope="module")
def drawn_layout(tmp_path_factory):
    """A draw at ratio 10 of 40 images per class, in a mixed row order."""
    counts = exponential_profile(40, 10, 10)
    labels = np.repeat(np.arange(10), counts)
    ranks = np.concatenate([np.arange(n) for n in counts])
    mixed = np.random.RandomState(0).permutation(len(labels))
    return write_draw(tmp_path_factory.mktemp("drawn"), labels[mixed], ranks[mixed]), labels[mixed], ranks[mixed]


def test_hub_layout_is_drawn_as_published(hub_layout):
    splits = load_cifar_lt(str(hub_layout), imbalance_ratio=10)
    expected = np.concatenate(draw(TRAIN_LABELS, exponential_profile(30, 10, 10), seed=0))
    assert numbers(splits["train"]) == expected.tolist()
    assert training_labels(splits["train"]).tolist() == TRAIN_LABELS[expected].tolist()
    assert training_labels(splits["test"]).tolist() == list(range(10))
    assert splits["train"].features == splits["test"].features
    assert splits["train"].features["label"].names == list(CIFAR10_NAMES)


def test_hub_layout_takes_profile_and_seed(hub_layout):
    train = load_cifar_lt(hub_layout, 3, profile="step", seed=4)["train"]
    expected = np.concatenate(draw(TRAIN_LABELS, (30,) * 5 + (10,) * 5, seed=4))
    assert numbers(train) == expected.tolist()


@pytest.mark.parametrize("ratio", [10, 13.7, 40])
def test_drawn_layout_is_a_prefix_of_every_class(drawn_layout, ratio):
    folder, labels, ranks = drawn_layout
    train = load_cifar_lt(folder, ratio)["train"]
    expected = [
        int(np.flatnonzero((labels == c) & (ranks == rank))[0])
        for c, n in enumerate(exponential_profile(40, 10, ratio))
        for rank in range(n)
    ]
    assert numbers(train) == expected
    assert train.column_names == ["img", "label"]


def test_a_smaller_set_is_the_start_of_every_class(drawn_layout, hub_layout):
    """The same images as the first of the full tail, so that what is tried on a part is a part of it."""
    folder, labels, ranks = drawn_layout
    small = load_cifar_lt(folder, 10, largest_class=20)["train"]
    counts = exponential_profile(20, 10, 10)
    rows = [int(np.flatnonzero((labels == c) & (ranks == rank))[0]) for c, n in enumerate(counts) for rank in range(n)]
    assert numbers(small) == rows
    small = load_cifar_lt(str(hub_layout), 10, largest_class=20)["train"]
    assert numbers(small) == np.concatenate(draw(TRAIN_LABELS, counts, seed=0)).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"largest_class": 41}, r"largest_class=41: .* 1 to 40 images"),
        ({"largest_class": 0}, r"largest_class=0: .* 1 to 40 images"),
        ({"imbalance_ratio": 20, "largest_class": 10}, r"no image at imbalance_ratio=20"),
        ({"imbalance_ratio": 5}, r"imbalance_ratio=5.*10 or more.*full training split"),
        ({"seed": 1}, r"seed=1.*full training split"),
        ({"profile": "step"}, r"profile='step'.*full training split"),
        ({"imbalance_ratio": 41}, r"no image at imbalance_ratio=41"),
        ({"imbalance_ratio": 0.5}, "at least 1"),
        ({"profile": "stepp"}, r"Unknown profile 'stepp'.*'step'"),
    ],
)
def test_drawn_layout_refuses_what_it_cannot_give(drawn_layout, settings, message):
    with pytest.raises(ValueError, match=message):
        load_cifar_lt(drawn_layout[0], **settings)


def test_a_file_that_is_no_draw_at_ratio_10_is_refused(tmp_path):
    counts = exponential_profile(40, 10, 10)
    labels, ranks = np.repeat(np.arange(10), counts), np.concatenate([np.arange(n) for n in counts])
    with pytest.raises(ValueError, match=r"train_ir10\.parquet.*class counts"):
        load_cifar_lt(write_draw(tmp_path, labels[1:], ranks[1:]), 10)
    ranks[3] = 2
    with pytest.raises(ValueError, match=r"train_ir10\.parquet.*rank"):
        load_cifar_lt(write_draw(tmp_path, labels, ranks), 10)


def test_missing_sources_are_named(tmp_path, hub_layout):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_cifar_lt(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"revision='v1': .* is a folder here"):
        load_cifar_lt(tmp_path, revision="v1")
    with pytest.raises(FileNotFoundError, match=r"train-\*\.parquet.*train_ir10\.parquet"):
        load_cifar_lt(tmp_path)
    (tmp_path / "train-0.parquet").symlink_to(hub_layout / "plain_text" / "train-00000-of-00002.parquet")
    with pytest.raises(FileNotFoundError, match=r"test-\*\.parquet"):
        load_cifar_lt(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"label.*fine_label.*x"):
        load_cifar_lt(tmp_path)


def test_files_of_two_data_sets_are_not_mixed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pq.write_table(table([0, 1]), tmp_path / name / "train-0.parquet")
    with pytest.raises(ValueError, match=r"several folders.*one.*two"):
        load_cifar_lt(tmp_path, 1)


@pytest.mark.parametrize("name", ["uoft-cs/cifar100", "somebody/else"])
def test_hub_names_go_through_load_dataset(monkeypatch, name):
    labels = np.tile(np.arange(3), 20)
    features = Features(
        {"img": ImageFeature(), "fine_label": ClassLabel(names=list("abc")), "coarse_label": ClassLabel(names=["z"])}
    )
    rows = {"img": [png(i) for i in range(60)], "fine_label": labels.tolist(), "coarse_label": [0] * 60}
    whole = Dataset.from_dict(rows, features=features)
    asked = []

    def fake(source, revision=None):
        asked.append((source, revision))
        return DatasetDict(train=whole, test=whole.select(range(6)))

    monkeypatch.setattr(cifar_lt, "load_from_hub", fake)
    splits = load_cifar_lt(name, 4)
    load_cifar_lt(name, 4, revision="v1")
    assert asked == [(name, None), (name, "v1")]
    assert splits["train"].column_names == ["img", "fine_label"]
    assert numbers(splits["train"]) == numbers(long_tailed(whole, 4, label_column="fine_label"))
    assert training_labels(splits["test"]).tolist() == [0, 1, 2, 0, 1, 2]


def test_nothing_is_fetched_for_bad_settings(monkeypatch):
    monkeypatch.setattr(cifar_lt, "load_from_hub", lambda *_, **__: pytest.fail("it was fetched"))
    with pytest.raises(ValueError, match="at least 1"):
        load_cifar_lt("uoft-cs/cifar10", 0.1)
    with pytest.raises(ValueError, match="Unknown profile"):
        load_cifar_lt("uoft-cs/cifar10", 100, profile="exp")


@pytest.mark.parametrize(
    ("name", "totals", "names"),
    [
        ("cifar10", {10: 20_431, 50: 13_996, 100: 12_406, 200: 11_203}, CIFAR10_NAMES),
        ("cifar100", {10: 19_573, 50: 12_608, 100: 10_847, 200: 9_502}, CIFAR100_NAMES),
    ],
)
def test_real_files(shared, name, totals, names):
    for ratio, total in totals.items():
        splits = load_cifar_lt(shared / "data" / name, ratio)
        labels = training_labels(splits["train"])
        assert len(labels) == total
    n_max = 50_000 // len(names)
    assert np.bincount(labels).tolist() == list(exponential_profile(n_max, len(names), 200))
    assert (labels.diff() >= 0).all()
    assert splits["train"][0]["img"].size == (32, 32)
    test_labels = training_labels(splits["test"])
    assert np.bincount(test_labels).tolist() == [10_000 // len(names)] * len(names)
    column = splits["train"].column_names[1]
    assert splits["train"].features[column].names == list(names)  # the files' own names are the official ones


def test_real_cifar10_rows_are_the_published_ones(shared):
    folder = shared / "data" / "cifar10"
    train = load_cifar_lt(folder, 100)["train"]
    raw = pq.read_table(folder / "train_ir10.parquet")
    source = dict(zip(raw["source_index"].to_pylist(), (image["bytes"] for image in raw["img"].to_pylist())))
    official = np.load(folder / "official_train_labels.npy")
    expected = np.concatenate(draw(official, exponential_profile(5000, 10, 100)))[::97]
    got = train.cast_column("img", ImageFeature(decode=False))[::97]["img"]
    assert [image["bytes"] for image in got] == [source[i] for i in expected.tolist()]
