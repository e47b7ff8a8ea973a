"""Indices of the samples in past batches, and their names in messages."""

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader
from torch.utils.data import DataLoader, RandomSampler

from hf_ltsam.data.sampling.sample_indices import indices_of_batches, named_with_labels

SAMPLES = list(range(23))


def loader_of(sampler=None, rank=0, processes=1):
    loader = DataLoader(SAMPLES, batch_size=4, sampler=sampler)
    return prepare_data_loader(loader, num_processes=processes, process_index=rank, put_on_device=False)


def seeded():
    return SeedableRandomSampler(SAMPLES, data_seed=3, generator=torch.Generator())


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("sampler", [lambda: None, seeded], ids=["in order", "shuffled"])
def test_the_indices_are_those_of_the_batches(sampler, rank):
    loader = loader_of(sampler(), rank, processes=2)
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        epochs.append([batch.tolist() for batch in loader])
    for epoch, batches in enumerate(epochs):
        assert indices_of_batches(loader, epoch, first=1, count=2) == [*batches[1], *batches[2]]


def test_the_epoch_of_the_sampler_is_restored():
    loader = loader_of(seeded())
    loader.set_epoch(5)
    indices_of_batches(loader, 1, first=0, count=1)
    assert loader.batch_sampler.sampler.epoch == 5


@pytest.mark.parametrize("loader", [loader_of(RandomSampler(SAMPLES)), DataLoader(SAMPLES), None])
def test_an_order_that_cannot_be_repeated_has_no_indices(loader):
    assert indices_of_batches(loader, 0, first=0, count=1) is None


@pytest.mark.parametrize(
    ("indices", "batch_labels", "names"),
    [
        ([2], [7], "sample 2"),
        ([2, 0], [7, 5], "samples 2, 0"),
        ([1] * 17, [6] * 17, "samples " + ", ".join(["1"] * 16) + ", ..."),
        ([2, 0], [7, 6], None),  # other labels: not these samples
        ([2, 0], [7], None),
        (None, [7], None),
    ],
)
def test_names_only_with_equal_labels(indices, batch_labels, names):
    assert named_with_labels(indices, torch.tensor([5, 6, 7]), torch.tensor(batch_labels)) == names
    assert named_with_labels(indices, None, torch.tensor(batch_labels)) is None
