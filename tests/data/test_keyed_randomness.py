"""The random numbers of a sample depend on (seed, epoch, index) alone: not on order, workers, or earlier draws."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from hf_ltsam.data.keyed_randomness import KeyedDataset, KeyedRandomness, keyed
from hf_ltsam.data.keys import random_key


class Noisy(Dataset):
    """Draws from all three global generators, as users' transforms do."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 11:
            raise OSError("a corrupt image")
        of_python = [random.random(), random.random()]
        drawn = [torch.rand(2).double(), torch.tensor(np.random.rand(2)), torch.tensor(of_python)]
        return {"pixel_values": torch.cat(drawn), "labels": index % 3}


def global_states():
    of_numpy = {**np.random.get_state(legacy=False)}
    return torch.get_rng_state().tolist(), repr(of_numpy), of_numpy["state"]["key"].tolist(), random.getstate()


def read(dataset, **options):
    """All samples but the corrupt one, through a DataLoader."""
    loader = DataLoader(dataset, sampler=range(11), batch_size=4, **options)
    return torch.cat([batch["pixel_values"] for batch in loader])


@pytest.fixture(scope="module")
def expected():
    """Epoch 3, seed 5, read one by one in the main process."""
    dataset = KeyedRandomness(Noisy(), seed=5)
    dataset.set_epoch(3)
    return torch.stack([dataset[i]["pixel_values"] for i in range(11)])


def test_global_generators_come_back_untouched():
    np.random.seed(1)
    np.random.randn()  # leaves the second half of a pair of normal numbers in the state
    before = global_states()
    KeyedRandomness(Noisy(), seed=5)[4]
    assert global_states() == before


def test_global_generators_come_back_after_an_exception():
    before = global_states()
    with pytest.raises(OSError, match="corrupt"):
        KeyedRandomness(Noisy(), seed=5)[11]
    assert global_states() == before


def test_same_key_same_numbers_after_any_draws(expected):
    dataset = KeyedRandomness(Noisy(), seed=5)
    dataset.set_epoch(3)
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    backwards = torch.stack([dataset[i]["pixel_values"] for i in range(10, -1, -1)])
    assert torch.equal(backwards.flip(0), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_draw_the_same_numbers(expected, num_workers):
    dataset = KeyedRandomness(Noisy(), seed=5)
    dataset.set_epoch(3)
    assert torch.equal(read(dataset, num_workers=num_workers), expected)


# a spawned worker imports the whole package first, which takes most of the time: one is enough
@pytest.mark.parametrize(("context", "workers"), [("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)])
def test_set_epoch_reaches_persistent_workers(expected, context, workers):
    dataset = KeyedRandomness(Noisy(), seed=5)
    options = {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": context}
    loader = DataLoader(dataset, sampler=range(11), batch_size=4, **options)
    first = torch.cat([batch["pixel_values"] for batch in loader])
    dataset.set_epoch(3)
    second = torch.cat([batch["pixel_values"] for batch in loader])
    assert torch.equal(second, expected)
    assert not torch.isin(first, second).any()


def test_index_epoch_and_seed_all_matter():
    def numbers(seed, epoch, index):
        dataset = KeyedRandomness(Noisy(), seed=seed)
        dataset.set_epoch(epoch)
        return dataset[index]["pixel_values"].tolist()

    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1, 2) for index in (0, 1, 2)]
    drawn = [number for key in keys for number in numbers(*key)]
    assert len(set(drawn)) == len(drawn)  # every generator differs for every key, and from the other generators


def test_cuda_generators_are_not_reseeded(monkeypatch):
    def forbidden(*_):
        raise AssertionError("CUDA was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", forbidden)
    monkeypatch.setattr(torch.cuda, "manual_seed", forbidden)
    KeyedRandomness(Noisy(), seed=0)[0]


def test_length_and_negative_indices():
    dataset = KeyedRandomness(Noisy(), seed=0)
    assert len(dataset) == 12
    assert torch.equal(dataset[-2]["pixel_values"], dataset[10]["pixel_values"])


class SelfKeyed(KeyedDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"pixel_values": torch.tensor(float(self.epoch)), "labels": 0}


def test_a_keyed_data_set_is_not_wrapped():
    dataset = SelfKeyed(seed=1)
    assert keyed(dataset, seed=0) is dataset
    assert isinstance(keyed(Noisy(), seed=0), KeyedRandomness)
    assert keyed(keyed(Noisy(), seed=0), seed=1).seed == 0


def test_set_epoch_reaches_keyed_data_sets_inside():
    inner = SelfKeyed(seed=1)
    outer = keyed(ConcatDataset([Subset(inner, [2, 3]), Noisy()]), seed=0)
    outer.set_epoch(7)
    assert outer[0]["pixel_values"] == 7
    assert inner.epoch == 7


class Stream(IterableDataset):
    def __iter__(self):
        return iter([1])


@pytest.mark.parametrize("dataset", [iter([1]), Stream()])
def test_only_map_style_data_sets(dataset):
    with pytest.raises(TypeError, match="map-style"):
        KeyedRandomness(dataset, seed=0)


def test_keys_of_integers_and_arrays_agree_and_do_not_collide():
    indices = np.arange(20_000, dtype=np.uint64)
    keys = random_key(3, 4, indices)
    assert keys.dtype == np.uint64
    assert [random_key(3, 4, i) for i in range(5)] == keys[:5].tolist()
    assert len(np.unique(np.concatenate([random_key(3, epoch, indices) for epoch in range(5)]))) == 100_000
    bits = np.unpackbits(keys.view(np.uint8)).reshape(-1, 64).mean(0)
    assert abs(bits - 0.5).max() < 0.02  # 5.7 standard deviations of 0.5 / sqrt(20,000)


def test_key_is_the_published_splitmix64():
    # first outputs of splitmix64 for the state 0 (Vigna's reference): the key of (0,) is one absorption of 0
    assert random_key(0) == 0xE220A8397B1DCDAF
