"""Streams for training at the scale of ImageNet: shuffled, shared by workers, with statistics from the list."""

import itertools

import numpy as np
import pytest
from copies import WNIDS, as_archives, ilsvrc
from torch.utils.data import DataLoader

from dataset_builders import load_long_tailed, long_tail_statistics
from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.data.transforms import class_sampled_images, image_transform, on_the_fly, on_the_fly_stream

COUNTS = (60, 20, 8)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Archives of three classes, with their lists."""
    root = tmp_path_factory.mktemp("ilsvrc")
    folders = ilsvrc(root / "folders", COUNTS)
    archives = as_archives(folders, root / "archives")
    (folders / "lists").rename(archives / "lists")
    return archives


def load(copy, streaming):
    return load_long_tailed(
        "imagenet_lt", copy, streaming=streaming, lists=copy / "lists", own_lists=True, cache_dir=copy / "cache"
    )


def test_a_stream_has_the_rows_of_the_set_in_random_order(copy):
    stream, train = load(copy, True)["train"], load(copy, False)["train"]
    assert stream.features == train.features and stream.features["label"].num_classes == len(WNIDS)
    rows = list(stream)
    labels = [row["label"] for row in rows]
    assert np.bincount(labels).tolist() == list(COUNTS)
    assert {row["image"].getpixel((0, 0))[0] for row in rows if row["label"] == 2} == {120}
    runs = len(list(itertools.groupby(labels)))
    assert runs > 20  # class by class there would be 3
    assert labels == [row["label"] for row in load(copy, True)["train"]]  # the same order each time
    assert [row["label"] for row in load(copy, True)["test"]] == [0, 1, 2]


def labels_of(batch):
    return [row["label"] for row in batch]


def test_a_transformed_stream_keeps_image_and_label_together_and_shuffles_every_epoch(copy):
    stream = load(copy, True)["train"].shuffle(seed=1, buffer_size=64)
    stream = on_the_fly_stream(stream, image_transform(8, [0.0] * 3, [1.0] * 3, train=True))
    epochs = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        rows = list(stream)
        assert {(row["labels"], round(255 * float(row["pixel_values"].mean()))) for row in rows} == {
            (0, 20),
            (1, 70),
            (2, 120),
        }
        assert rows[0]["pixel_values"].shape == (3, 8, 8) and len(rows) == sum(COUNTS)
        epochs.append([row["labels"] for row in rows])
    assert epochs[0] != epochs[1]


def test_workers_share_a_stream(copy):
    stream = load(copy, True)["train"].shuffle(seed=1, buffer_size=16)
    assert stream.num_shards >= 64
    batches = DataLoader(stream, 4, num_workers=2, collate_fn=labels_of, multiprocessing_context="fork")
    assert np.bincount([label for batch in batches for label in batch]).tolist() == list(COUNTS)


def test_training_from_a_stream_needs_only_steps_and_statistics(copy, tmp_path):
    plain = {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    stream = on_the_fly_stream(
        load(copy, True)["train"].shuffle(seed=1, buffer_size=64), image_transform(**plain, train=True)
    )
    test = on_the_fly(load(copy, False)["test"], image_transform(**plain, train=False))
    statistics = long_tail_statistics("imagenet_lt", lists=copy / "lists", own_lists=True)
    args = LTSamConfig(
        output_dir=str(tmp_path), max_steps=15, per_device_train_batch_size=16, optim="sgd", optim_args="momentum=0.9", max_grad_norm=0.0, learning_rate=0.1, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True, method="focal_sam", loss="logit_adjustment", seed=1, logging_steps=5,
    )  # fmt: skip
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3))
    trainer = LTSamTrainer(model, args, train_dataset=stream, eval_dataset=test, class_statistics=statistics)
    assert trainer.class_statistics.counts == COUNTS
    trainer.train()
    assert trainer.state.global_step == 15 and trainer.state.epoch > 2  # 88 images, 15 x 16 seen: it starts again
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert {"eval_overall", "eval_medium", "eval_few"} <= set(trainer.evaluate())


def test_classes_in_equal_shares_and_every_draw_augmented(copy):
    statistics = long_tail_statistics("imagenet_lt", lists=copy / "lists", own_lists=True)
    stream = load(copy, True)["train"].shuffle(seed=1, buffer_size=64)
    transform = image_transform(8, [0.0] * 3, [1.0] * 3, train=True)

    def rows(seed=0):
        drawn = class_sampled_images(stream, transform, statistics, "class_aware", seed)
        return list(itertools.islice(drawn, sum(COUNTS), sum(COUNTS) + 60))

    first, again = rows(), rows()
    assert np.bincount([row["labels"] for row in first], minlength=3).min() >= 18
    assert {(row["labels"], round(255 * float(row["pixel_values"].mean()))) for row in first} == {
        (0, 20),
        (1, 70),
        (2, 120),
    }
    assert all(
        (a["pixel_values"] == b["pixel_values"]).all() and a["labels"] == b["labels"] for a, b in zip(first, again)
    )
    assert [row["labels"] for row in rows(1)] != [row["labels"] for row in first]


@pytest.mark.slow
def test_cifar_by_name(shared):
    name = "cifar100_lt"
    folder = shared / "data" / name.removesuffix("_lt")
    splits = load_long_tailed(name, folder, imbalance_ratio=200)
    column = splits["train"].column_names[-1]
    statistics = long_tail_statistics(name, imbalance_ratio=200)
    assert np.bincount(splits["train"][column]).tolist() == list(statistics.counts) and len(splits["test"]) == 10_000
    stream = load_long_tailed(name, folder, streaming=True, splits=("train",), imbalance_ratio=200)
    assert list(stream) == ["train"] and stream["train"].num_shards == 16
    assert len({row[column] for row in stream["train"].take(40)}) > 3
    with pytest.raises(ValueError, match=r"cifar100 has 100 classes, CIFAR-10-LT has 10"):
        load_long_tailed("cifar10_lt", folder)
