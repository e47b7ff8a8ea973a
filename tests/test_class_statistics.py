"""ClassStatistics against counts done by hand, and its tensors on devices that refuse float64."""

import collections
import json
import math
import time

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_ltsam.class_statistics import FILE_NAME, ClassStatistics, per_class

# protocols: CIFAR-10-LT at imbalance ratio 100
CIFAR10_LT = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)


class NoFloat64OffTheCPU(TorchDispatchMode):
    """As on Apple's MPS, no float64 tensor may leave the CPU, even if it is converted on the way."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        device = (kwargs or {}).get("device")
        if device is not None and torch.device(device).type != "cpu":
            for value in args:
                if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                    raise TypeError("Cannot convert a float64 tensor: this device has no float64")
        return func(*args, **(kwargs or {}))


def labels_of(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


@pytest.mark.parametrize("container", [list, tuple, np.asarray, torch.as_tensor, iter, lambda x: x.astype(np.uint8)])
def test_labels_in_any_container_are_counted(container):
    statistics = ClassStatistics.from_labels(container(labels_of((7, 3, 1))), tail_threshold=3)
    assert statistics == ClassStatistics(counts=(7, 3, 1), tail_threshold=3)
    assert statistics.num_classes == 3 and statistics.total == 11


def test_a_column_of_a_data_set_is_read_in_one_go():
    class Column(collections.abc.Sequence):
        """Like a column of `datasets`: a slice is one read, and so is every single item."""

        reads = 0

        def __init__(self, values):
            self.values = values

        def __len__(self):
            return len(self.values)

        def __getitem__(self, key):
            Column.reads += 1
            return self.values[key]

    assert ClassStatistics.from_labels(Column([0, 1, 1])).counts == (1, 2)
    assert Column.reads == 1


def test_prior_ratio_and_groups_by_hand():
    statistics = ClassStatistics(counts=(101, 100, 20, 19))
    assert statistics.prior == (101 / 240, 100 / 240, 20 / 240, 19 / 240)
    assert statistics.imbalance_ratio == 101 / 19
    assert statistics.groups == {"many": (0,), "medium": (1, 2), "few": (3,)}  # > 100, 20 to 100, < 20


def test_groups_of_cifar10_lt_use_their_own_bounds():
    statistics = ClassStatistics(counts=CIFAR10_LT, many_above=1000, few_below=200)
    assert statistics.groups == {"many": (0, 1, 2, 3), "medium": (4, 5, 6), "few": (7, 8, 9)}
    assert ClassStatistics(CIFAR10_LT, many_above=100, few_below=20).groups["medium"] == (8, 9)
    assert ClassStatistics((500, 400), many_above=100, few_below=20).groups == {"many": (0, 1), "medium": (), "few": ()}


def test_prior_sums_the_counts_once(monkeypatch):
    """Once for every class would be seconds with the 8142 classes of iNaturalist 2018."""
    total, sums = ClassStatistics.total.fget, []
    monkeypatch.setattr(ClassStatistics, "total", property(lambda self: sums.append(1) or total(self)))
    assert math.isclose(sum(ClassStatistics(counts=tuple(range(1, 8143))).prior), 1.0)
    assert len(sums) == 1


def test_head_and_tail_split_at_the_threshold_inclusive():
    statistics = ClassStatistics(counts=(50, 10, 9, 11), tail_threshold=10)
    assert statistics.tail_classes == (1, 2) and statistics.head_classes == (0, 3)
    like = torch.zeros(())
    assert statistics.tensor("tail", like).tolist() == [0, 1, 1, 0]
    assert statistics.tensor("head", like).tolist() == [1, 0, 0, 1]
    assert ClassStatistics(counts=(50, 10), tail_threshold=0).tail_classes == ()
    assert ClassStatistics(counts=(50, 10), tail_threshold=50).head_classes == ()


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s.tail_classes,
        lambda s: s.head_classes,
        lambda s: s.tensor("tail", torch.zeros(())),
        lambda s: s.tensor("head", torch.zeros(())),
    ],
)
def test_without_a_threshold_the_error_names_counts_and_a_proposal(ask):
    with pytest.raises(ValueError, match=r"tail_threshold.*counts: 9, 5, 3, 1.*tail_threshold=3") as error:
        ask(ClassStatistics(counts=(9, 5, 3, 1)))
    assert "largest 9, smallest 1" in str(error.value)
    assert ClassStatistics(counts=(9, 5, 3, 1), tail_threshold=3).tail_classes == (2, 3)  # half of the classes


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda rows: torch.tensor(rows, dtype=torch.float32)])
@pytest.mark.parametrize(
    ("rows", "counts", "samples"),
    [([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], (1, 2, 1), 4), ([[1, 0], [0, 1], [1, 0]], (2, 1), None)],
)
def test_rows_of_zeros_and_ones_of_any_kind(kind, rows, counts, samples):
    found = ClassStatistics.from_labels(kind(rows))
    assert (found.counts, found.samples) == (counts, samples)


@pytest.mark.parametrize(
    "labels, num_classes, message",
    [
        ([], None, "non-empty"),
        ([0.0, 1.0], None, "integers"),
        (["cat", "dog"], None, "integers"),
        ([0, None], None, "integers"),
        ([[0, 2], [1, 0]], None, "shape \\(2, 2\\) must be shares"),
        ([[[0, 1]]], None, "shape \\(1, 1, 2\\)"),
        (torch.full((3, 3), 0.5), None, "shape \\(3, 3\\) must be shares, which add up to 1"),
        (torch.eye(3), 4, "shape \\(3, 3\\) must be shares of 4 classes"),
        ([0, 1, -1], None, "Label -1 \\(first at position 2\\) is outside the class range 0 to 1"),
        ([0, 1, 5, 2], 3, "Label 5 \\(first at position 2\\) is outside the class range 0 to 2"),
        ([0, 2], None, "class 1 has no training sample"),
        ([0, 1], 4, "classes 2, 3 \\(2 in all\\) have no training sample"),
        ([0, 0], None, "at least 2 classes"),
    ],
)
def test_invalid_labels_are_refused(labels, num_classes, message):
    with pytest.raises(ValueError, match=message):
        ClassStatistics.from_labels(labels, num_classes)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"counts": (3, 0)}, "class 1 has no training sample"),
        ({"counts": (3, -2)}, "class 1 has no training sample"),
        ({"counts": (3,)}, "at least 2 classes"),
        ({"counts": (3, 2.5)}, r"counts=\.\.\.\).*2\.5"),
        ({"counts": (3, float("nan"))}, "whole numbers, got nan"),
        ({"counts": ("3", "2")}, "whole numbers, got '3'"),
        ({"counts": (3, 2), "tail_threshold": -1}, "tail_threshold=.*non-negative, got -1"),
        ({"counts": (3, 2), "tail_threshold": 1.5}, "tail_threshold=.*1.5"),
        ({"counts": (3, 2), "tail_threshold": "2"}, "tail_threshold=.*'2'"),
        ({"counts": (3, 2), "many_above": 10, "few_below": 12}, "few_below=12 and many_above=10"),
        ({"counts": (3, 2), "few_below": -1}, "few_below=-1"),
    ],
)
def test_invalid_statistics_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassStatistics(**settings)


def test_numbers_of_numpy_and_torch_become_python_numbers():
    statistics = ClassStatistics(counts=np.array([3, 2]), tail_threshold=np.int64(2), many_above=torch.tensor(70))
    assert {type(n) for n in statistics.counts} == {int}
    assert type(statistics.tail_threshold) is int and type(statistics.many_above) is int
    assert hash(statistics) == hash(ClassStatistics(counts=(3, 2), tail_threshold=2, many_above=70))
    json.dumps(statistics.to_dict())


def test_json_round_trip_by_folder_and_by_file(tmp_path):
    statistics = ClassStatistics(counts=CIFAR10_LT, tail_threshold=1000, many_above=1000, few_below=200)
    path = statistics.save(tmp_path)
    assert path == tmp_path / FILE_NAME
    assert ClassStatistics.load(tmp_path) == ClassStatistics.load(path) == statistics
    assert ClassStatistics.from_dict(json.loads(path.read_text())) == statistics


@pytest.mark.parametrize(
    "text",
    [
        '{"counts": [3, 2]',
        "[3, 2]",
        '{"sizes": [3, 2]}',
        '{"counts": 7}',
        '{"counts": [3]}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=FILE_NAME):
        ClassStatistics.load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=FILE_NAME):
        ClassStatistics.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_are_rounded_once(dtype):
    statistics = ClassStatistics(counts=CIFAR10_LT)
    like = torch.zeros((), dtype=dtype)
    n = np.array(CIFAR10_LT, dtype=np.float64)
    for name, expected in {"counts": n, "prior": n / 12406, "log_prior": np.log(n / 12406)}.items():
        got = statistics.tensor(name, like)
        assert got.dtype == dtype and got.shape == (10,)
        torch.testing.assert_close(got, torch.from_numpy(expected).to(dtype), rtol=1e-15, atol=0)


def test_an_integer_tensor_gives_the_default_floating_type():
    assert ClassStatistics(counts=(2, 1)).tensor("prior", torch.tensor(3)).dtype == torch.float32


def test_tensors_are_computed_once_per_device_and_type():
    a, b = ClassStatistics(counts=(6, 2)), ClassStatistics(counts=(6, 2))  # equal, not identical
    like = torch.zeros(4)
    assert a.tensor("prior", like) is b.tensor("prior", like.clone())
    assert a.tensor("prior", like.double()) is not a.tensor("prior", like)
    assert ClassStatistics(counts=(6, 3)).tensor("prior", like) is not a.tensor("prior", like)


def test_an_unknown_quantity_is_named():
    with pytest.raises(ValueError, match=r"'priors'.*prior"):
        ClassStatistics(counts=(2, 1)).tensor("priors", torch.zeros(()))


def test_tensors_on_a_device_without_float64():
    statistics = ClassStatistics(counts=(11, 7, 2), tail_threshold=5)
    like = torch.zeros((), dtype=torch.float32, device="meta")
    with NoFloat64OffTheCPU():
        with pytest.raises(TypeError, match="no float64"):  # the stand-in does raise
            torch.zeros(3, dtype=torch.float64).to(device="meta", dtype=torch.float32)
        for name in ("counts", "prior", "log_prior", "head", "tail"):
            assert statistics.tensor(name, like).device.type == "meta"


def test_a_table_made_in_an_evaluation_serves_a_training():
    statistics = ClassStatistics(counts=(13, 7, 2), tail_threshold=5)
    with torch.inference_mode():
        statistics.tensor("log_prior", torch.zeros(1))
    weight = torch.ones(3, requires_grad=True)
    (weight * statistics.tensor("log_prior", weight)).sum().backward()  # an inference tensor cannot be saved
    assert weight.grad is not None


def test_a_default_device_moves_nothing():
    with torch.device("meta"):
        table = ClassStatistics(counts=(17, 7, 2)).tensor("prior", torch.zeros((), device="cpu"))
    assert table.tolist() == pytest.approx([17 / 26, 7 / 26, 2 / 26])


def test_per_class_keeps_settings_apart():
    calls = []

    @per_class
    def power(n, exponent):
        calls.append(exponent)
        return n**exponent

    statistics, like = ClassStatistics(counts=(4, 2)), torch.zeros(())
    assert power(statistics, like, 2.0).tolist() == [16, 4] and power(statistics, like, 3.0).tolist() == [64, 8]
    assert power(statistics, like, 2.0).dtype == torch.float32
    assert calls == [2.0, 3.0]


@pytest.mark.parametrize(
    "count",
    [
        lambda: ClassStatistics.from_labels([0, 1, 10**9]),
        lambda: ClassStatistics.from_labels(torch.tensor([0, 10**12, 1])),
        lambda: ClassStatistics.from_labels([0, 1, 1], num_classes=10**9),
        lambda: ClassStatistics.from_labels([0, 1, 10**9], num_classes=2),
    ],
)
def test_a_wild_label_is_refused_at_once(count):
    """A table of so many classes would take minutes and gigabytes."""
    begun = time.monotonic()
    with pytest.raises(
        ValueError, match=r"1000000000 \(first at position 2\)|1000000000000 \(first at position 1\)|for 1000000000 "
    ):
        count()
    assert time.monotonic() - begun < 1


# --- groups by rank --------------------------------------------------------------------------------------------------


def test_groups_by_rank_follow_the_frequency_and_ties_the_index():
    statistics = ClassStatistics(counts=(5, 90, 40, 40, 7), group_sizes=(2, 2, 1))
    assert statistics.groups == {"many": (1, 2), "medium": (3, 4), "few": (0,)}  # 90, 40, 40, 7, 5
    assert ClassStatistics(counts=(5, 90), group_sizes=[1, 0, 1]).groups == {"many": (1,), "medium": (), "few": (0,)}


def test_groups_by_rank_survive_a_file_and_files_without_them_stay_as_they_were(tmp_path):
    plain = ClassStatistics(counts=(9, 3))
    assert set(plain.to_dict()) == {"counts", "tail_threshold", "many_above", "few_below"}
    ranked = ClassStatistics(counts=(9, 3, 1), group_sizes=(1, 1, 1))
    ranked.save(tmp_path)
    assert ClassStatistics.load(tmp_path) == ranked and hash(ranked) == hash(ClassStatistics.load(tmp_path))


@pytest.mark.parametrize(
    "sizes, words",
    [
        ((1, 1, 2), r"group_sizes=\(1, 1, 2\)\) must sum to the number of classes, and sums to 4 for 3"),
        ((1, 2), "must be three numbers of classes"),
        ("111", "must be three numbers of classes"),
        (3, "must be three numbers of classes"),
        ((4, -1, 0), "must not be negative"),
        ((1, 1.5, 0.5), "must be made of whole numbers"),
    ],
)
def test_group_sizes_that_cannot_be_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        ClassStatistics(counts=(9, 3, 1), group_sizes=sizes)


def test_names_are_led_to_a_mapping():
    for names in (["owl", "cat", "owl"], np.array(["owl", "cat"]), np.array(["owl", "cat"], dtype=object)):
        with pytest.raises(
            ValueError, match=r"numbers of classes, got \d names \('owl'\).*class_encode_column.*enumerate"
        ):
            ClassStatistics.from_labels(names)
