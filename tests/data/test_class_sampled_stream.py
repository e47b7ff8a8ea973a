"""Class-aware and class-balanced sampling from a stream."""

import itertools

import datasets
import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, IterableDataset

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream

COUNTS = [60, 25, 12, 3]
STATISTICS = ClassStatistics(COUNTS)
LABELS = [c for c, n in enumerate(COUNTS) for _ in range(n)]


class Rows(IterableDataset):
    """Shuffled again in every pass, like a stream of `datasets`."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for i in np.random.default_rng(self.epoch).permutation(len(LABELS)):
            yield {"x": float(i), "labels": LABELS[i]}


def sampled(sampling="class_balanced", **settings):
    return ClassSampledStream(Rows(), STATISTICS, sampling, **{"seed": 1, **settings})


def take(stream, n, skip=0):
    return list(itertools.islice(stream, skip, skip + n))


def numbers(rows):
    return [int(row["x"]) for row in rows]


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        ("class_balanced", [0.25] * 4),
        ("square_root", [0.3945, 0.2547, 0.1764, 0.0882]),
        ("class_aware", [0.25] * 4),
    ],
)
def test_shares_from_the_second_pass_on(sampling, shares):
    rows = take(sampled(sampling), 3_000, skip=100)
    of_class = np.bincount([row["labels"] for row in rows]) / 3_000
    if sampling == "square_root":
        shares = np.sqrt(COUNTS) / np.sqrt(COUNTS).sum()
    np.testing.assert_allclose(of_class, shares, atol=0.035)
    assert all(LABELS[int(row["x"])] == row["labels"] for row in rows)
    assert set(numbers(rows)) == set(range(100))  # no image is left out
    rare = np.bincount([n for n in numbers(rows) if n >= 97])[97:]
    assert rare.min() > 0.6 * rare.mean()


def test_class_aware_takes_classes_in_turn():
    labels = [row["labels"] for row in take(sampled("class_aware"), 404, skip=100)]
    start = next(k for k in range(4) if len(set(labels[k : k + 4])) == 4 and len(set(labels[k + 4 : k + 8])) == 4)
    for k in range(start, 400 - 4, 4):
        assert sorted(labels[k : k + 4]) == [0, 1, 2, 3]


def test_class_aware_has_a_new_order_each_round_and_takes_the_rows_of_a_class_in_turn():
    rows = (
        [{"x": i, "labels": min(i, 3)} for i in range(3)]
        + [{"x": i, "labels": 3} for i in range(3, 6)]
        + [{"x": 9, "labels": 0}] * 200
    )
    drawn = take(ClassSampledStream(rows, STATISTICS, "class_aware"), 150, skip=20)
    start = next(
        k
        for k in range(4)
        if len({row["labels"] for row in drawn[k : k + 4]}) == 4 == len({row["labels"] for row in drawn[k + 4 : k + 8]})
    )
    orders = {tuple(row["labels"] for row in drawn[k : k + 4]) for k in range(start, 144, 4)}
    assert len(orders) > 12
    of_one = [row["x"] for row in drawn if row["labels"] == 3]
    assert len(of_one) > 30 and all(len(set(of_one[k : k + 3])) == 3 for k in range(len(of_one) - 3))


def test_one_row_is_read_for_each_one_drawn():
    stream = sampled()
    assert all(row["x"] in numbers(itertools.islice(Rows(), 5)) for row in take(stream, 5))


def test_the_sequence_is_a_function_of_the_seed_alone():
    first = numbers(take(sampled(), 300))
    torch.manual_seed(5)
    np.random.seed(5)
    assert numbers(take(sampled(), 300)) == first
    assert numbers(take(sampled(seed=2), 300)) != first


def noisy(row):
    return {"x": row["x"] + float(torch.rand(())) / 2, "labels": row["labels"]}


def test_a_transform_is_keyed_and_augments_every_draw_of_a_row():
    state = torch.get_rng_state()
    first, again = (take(sampled(transform=noisy), 400) for _ in range(2))
    assert first == again and torch.equal(torch.get_rng_state(), state)
    of_one = [row["x"] for row in first if int(row["x"]) == 99]
    assert len(of_one) > 10 and len(set(of_one)) == len(of_one)


class NoisyRows(Rows):
    def __iter__(self):
        return map(noisy, super().__iter__())


def test_a_transform_inside_the_stream_is_keyed_too():
    first, again = (take(ClassSampledStream(NoisyRows(), STATISTICS, "class_balanced"), 250) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_have_different_rows_and_equally_many(processes):
    """Each reads the whole stream and takes its own batches; the same after batches were skipped."""

    def loader(rank):
        batches = DataLoader(sampled(), batch_size=4)
        return prepare_data_loader(batches, num_processes=processes, process_index=rank, put_on_device=False)

    def batches(of):
        return [b["x"].int().tolist() for b in itertools.islice(of, 20)]

    seen = [batches(loader(rank)) for rank in range(processes)]
    whole = numbers(take(sampled(), 4 * processes * 20))
    assert [i for step in zip(*seen) for batch in step for i in batch] == whole
    resumed = [batches(skip_first_batches(loader(rank), 15))[:5] for rank in range(processes)]
    assert resumed == [b[15:] for b in seen]


def test_workers_draw_independently():
    batches = DataLoader(sampled(), batch_size=10, num_workers=2, multiprocessing_context="fork")
    first, second = (b["x"].tolist() for b in itertools.islice(batches, 2))
    assert first != second


def test_a_stream_of_datasets():
    stream = (
        datasets.Dataset.from_dict({"x": range(100), "label": LABELS})
        .to_iterable_dataset(num_shards=4)
        .shuffle(seed=1, buffer_size=50)
    )
    rows = take(ClassSampledStream(stream, STATISTICS, "class_balanced"), 1_000, skip=200)
    np.testing.assert_allclose(np.bincount([row["label"] for row in rows]) / 1_000, 0.25, atol=0.055)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ([{"x": 1.0}], "gives the columns x: name its label"),
        ([(1.0, 2)], "gives a tuple"),
        ([{"labels": 4}], "label 4, outside the class range 0 to 3"),
        ([{"labels": None}], "column 'labels' of the stream gives None"),
        ([], r"gives no rows\."),
        (iter([{"labels": 0}]), "can be read only once"),
    ],
)
def test_streams_that_cannot_be_sampled(stream, message):
    with pytest.raises(ValueError, match=message):
        take(ClassSampledStream(stream, STATISTICS, "class_aware"), 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling": "uniform"}, "would be the stream itself"),
        ({"sampling": "class_awre"}, "Did you mean 'class_aware'"),
        ({"per_class": 0}, "per_class"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sampled(**settings)
