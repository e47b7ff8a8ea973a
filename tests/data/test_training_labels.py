"""Labels are read from the label column alone: nothing decoded, nothing drawn, nothing transformed."""

import hashlib
import random
import struct
import sys
import types
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

import hf_ltsam.data.labels as labels_module
from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.labels import label_fingerprint, training_labels

LABELS = [2, 0, 1, 1, 2, 0]


def undecodable(name: str = "label", feature=None) -> Dataset:
    """Images that cannot be decoded, so that reading one fails."""
    features = Features({"image": Image(), name: feature or ClassLabel(names=["a", "b", "c"])})
    return Dataset.from_dict({"image": [{"bytes": b"broken", "path": None}] * 6, name: LABELS}, features=features)


def forbidden(*_):
    raise RuntimeError("a sample was loaded")


@dataclass
class Host:
    """A third-party data set with torchvision's convention."""

    targets: Any

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        forbidden()


@pytest.mark.parametrize(
    "dataset",
    [
        undecodable(),
        undecodable("labels"),
        undecodable("label_ids", Value("int32")),
        undecodable("species"),  # not a usual name, but the only ClassLabel
        undecodable().with_transform(forbidden),
        undecodable().with_format("torch"),
        undecodable().with_format("numpy", columns=["image"]),
        Subset(undecodable().with_transform(forbidden), range(6)),
        ConcatDataset([Subset(undecodable(), [0, 1]), undecodable().select([2, 3, 4, 5])]),
        TensorDataset(torch.zeros(6, 3), torch.tensor(LABELS)),
        TensorDataset(torch.zeros(6, 3), torch.tensor(LABELS, dtype=torch.uint8)),
        [{"pixel_values": torch.zeros(2), "labels": label} for label in LABELS],
        tuple({"labels": torch.tensor(label)} for label in LABELS),
        [{"label": np.int64(label)} for label in LABELS],
        Host(LABELS),
        Host(np.array(LABELS)),
        Host(torch.tensor(LABELS)),
        KeyedRandomness(Host(LABELS), seed=0),
        Subset(KeyedRandomness(Host(LABELS), seed=0), range(6)),
    ],
)
def test_labels_without_loading_a_sample(dataset):
    labels = training_labels(dataset)
    assert labels.dtype == torch.int64
    assert labels.tolist() == LABELS


def test_selections_are_respected():
    dataset = undecodable().select([5, 2, 2, 0])
    assert training_labels(dataset).tolist() == [0, 1, 1, 2]
    assert training_labels(Subset(dataset, [3, 0])).tolist() == [2, 0]
    assert training_labels(Subset(dataset, [])).tolist() == []
    assert training_labels(dataset.select([])).tolist() == []


def test_label_name_comes_first():
    dataset = undecodable().add_column("species", [0, 0, 0, 1, 1, 1])
    assert training_labels(dataset, label_name="species").tolist() == [0, 0, 0, 1, 1, 1]
    assert training_labels(dataset).tolist() == LABELS


def test_the_callers_data_set_keeps_its_transform():
    dataset = undecodable().with_transform(forbidden)
    training_labels(dataset)
    assert dataset.format["type"] == "custom"
    assert dataset.column_names == ["image", "label"]


def test_a_heavy_transform_is_not_copied():
    class Heavy:
        def __call__(self, batch):
            return batch

        def __deepcopy__(self, memo):
            raise RuntimeError("copied")

    assert training_labels(undecodable().with_transform(Heavy())).tolist() == LABELS


def test_no_random_number_is_drawn():
    before = torch.get_rng_state().clone(), np.random.get_state(legacy=False)["state"]["key"].copy(), random.getstate()
    training_labels(undecodable().with_transform(forbidden).select([1, 2, 4]))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["key"] == before[1]).all()
    assert random.getstate() == before[2]


class Stream(IterableDataset):
    labels = LABELS

    def __iter__(self):
        forbidden()


@pytest.mark.parametrize(
    "dataset",
    [
        Stream(),
        undecodable().to_iterable_dataset(),
        [(torch.zeros(2), 1)],
        [{"pixel_values": torch.zeros(2)}],
        [{"labels": 0.5}],
        TensorDataset(torch.tensor(LABELS), torch.zeros(6)),
        TensorDataset(torch.zeros(6, 2).long()),
        Host([{"boxes": []}]),
        Host([0.0, 1.0]),
        Host([[0, 1], [1, 1]]),
        object(),
        undecodable("label", Value("string")),
        undecodable("label", Value("float32")),
        Dataset.from_dict({"label": [[0], [1]]}),
        Dataset.from_dict({"label": [0, None]}, features=Features({"label": ClassLabel(names=["a"])})),
    ],
)
def test_other_data_sets_are_refused_with_the_way_out(dataset):
    with pytest.raises(TypeError, match=r"class_statistics=ClassStatistics\.from_labels\(|class_encode_column"):
        training_labels(dataset)


def test_two_class_labels_are_listed():
    names = ClassLabel(names=["a", "b"])
    dataset = Dataset.from_dict({"fine": [0, 1], "coarse": [1, 1]}, features=Features({"fine": names, "coarse": names}))
    with pytest.raises(TypeError, match=r"fine, coarse.*class_statistics="):
        training_labels(dataset)
    assert training_labels(dataset, label_name="coarse").tolist() == [1, 1]


def test_fingerprint_is_sha256_of_little_endian_int64():
    expected = hashlib.sha256(struct.pack("<6q", *LABELS)).hexdigest()
    assert label_fingerprint(LABELS) == expected
    assert label_fingerprint(torch.tensor(LABELS, dtype=torch.int32)) == expected
    assert label_fingerprint(training_labels(undecodable())) == expected
    assert label_fingerprint(LABELS[::-1]) != expected


def test_works_without_the_datasets_package(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "datasets"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails from here on
    loader = SourceFileLoader("fresh_labels", labels_module.__file__)
    fresh = types.ModuleType(loader.name)
    loader.exec_module(fresh)
    assert fresh.training_labels(TensorDataset(torch.zeros(3), torch.tensor([1, 0, 1]))).tolist() == [1, 0, 1]
    assert fresh.training_labels(Host([1, 1])).tolist() == [1, 1]
