"""A sample that comes several times in an epoch is augmented anew each time, as a function of (seed, epoch, sequence)."""

import copy
import pickle

import numpy as np
import pytest
import torch
from data.test_keyed_randomness import Noisy
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler, SequentialSampler, Subset, WeightedRandomSampler

from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.data.in_memory.whole_batches import WholeBatches, as_made, in_memory_part
from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.sampling.repeated_draws import AgainDrawn, CountedDraws, counted, sample_word

ORDER = [3, 0, 3, 7, 3, 0]
BEFORE = [0, 0, 1, 0, 2, 1]


def in_memory(augment=True):
    images = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return InMemoryImages(
        images, [0] * 12, mean=(0.5,) * 3, std=(0.5,) * 3, augment=augment, crop_padding=4, cutout=3, seed=5
    )


def noisy():
    return KeyedRandomness(Noisy(), seed=5)


def parts(augment=True):
    """Two parts of images in memory, one behind the other: the twelve samples in another order."""
    images = in_memory(augment)
    return ConcatDataset([Subset(images, [1, 0, 2, 3]), Subset(images, range(4, 12))])


def whole(dataset):
    source, rows = in_memory_part(dataset)
    return WholeBatches(source, rows, source.store, torch.contiguous_format)


SETS = {
    "random numbers of a data set": (noisy, {}),
    "images in memory": (in_memory, {}),
    "parts of images in memory": (lambda: KeyedRandomness(parts(), seed=1), {}),
    "whole batches of images": (lambda: whole(in_memory()), {"collate_fn": as_made}),
    "whole batches of a part": (
        lambda: whole(Subset(in_memory(), [*range(12)][::-1])),
        {"collate_fn": as_made},
    ),
}


def seen(dataset, order=ORDER, **options):
    loader = DataLoader(dataset, sampler=CountedDraws(order), batch_size=2, **options)
    return torch.cat([batch["pixel_values"] for batch in loader])


@pytest.mark.parametrize("name", SETS)
def test_each_draw_has_random_numbers_of_its_own(name):
    made, options = SETS[name]
    draws = seen(made(), [*ORDER, *[3] * 20], **options)
    thrice = draws[[0, 2, 4, *range(6, 26)]].flatten(1)
    assert len(torch.unique(thrice, dim=0)) > 18  # crops of images may fall together


@pytest.mark.parametrize("name", SETS)
def test_the_first_draw_is_that_of_a_sample_drawn_once(name):
    made, options = SETS[name]
    once = seen(made(), [3, 0, 7], **options)
    assert torch.equal(seen(made(), **options)[[0, 1, 3]], once)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", SETS)
def test_draws_depend_on_the_sequence_alone(name, workers):
    made, options = SETS[name]
    dataset = made()
    loader = DataLoader(dataset, sampler=CountedDraws(ORDER), batch_size=2, num_workers=workers, **options)
    torch.manual_seed(workers)
    again = torch.cat([batch["pixel_values"] for batch in loader])
    assert torch.equal(again, seen(made(), **options))
    second = torch.cat([batch["pixel_values"] for batch in loader])  # counted anew
    assert torch.equal(second, again)


def test_without_augmentation_nothing_changes():
    draws = seen(whole(in_memory(augment=False)), collate_fn=as_made)
    assert torch.equal(draws[0], draws[2]) and torch.equal(draws[0], draws[4])


def test_counted_indices():
    given = list(CountedDraws(ORDER))
    assert given == ORDER  # they are integers
    assert [getattr(index, "times_before", 0) for index in given] == BEFORE
    assert [type(index) for index in given] == [AgainDrawn if times else int for times in BEFORE]


def test_indices_that_are_tensors_are_counted():
    given = list(CountedDraws([torch.tensor(index) for index in ORDER]))
    assert given == ORDER and [getattr(index, "times_before", 0) for index in given] == BEFORE


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_an_index_that_goes_to_a_worker_keeps_its_number(copied):
    index = copied([AgainDrawn(4, 2)])[0]
    assert (index, index.times_before) == (4, 2)
    assert list(copied(CountedDraws(ORDER))) == ORDER


def test_a_wrapped_sampler_is_set_from_outside():
    """accelerate gives all processes one generator, or an epoch, by attributes of the sampler."""
    sampler = WeightedRandomSampler([1.0, 1.0, 8.0], 30)
    wrapped = counted(sampler)
    wrapped.generator = torch.Generator().manual_seed(3)
    assert sampler.generator is wrapped.generator and len(wrapped) == 30
    expected = list(WeightedRandomSampler([1.0, 1.0, 8.0], 30, generator=torch.Generator().manual_seed(3)))
    assert list(wrapped) == expected


@pytest.mark.parametrize(
    ("sampler", "stays"),
    [
        (None, True),
        (SequentialSampler(range(4)), True),
        (RandomSampler(range(4)), True),
        (RandomSampler(range(4), replacement=True), True),
        (type("Own", (RandomSampler,), {})(range(4)), True),
        (WeightedRandomSampler([1.0, 2.0], 4), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_samplers_of_torch_that_accelerate_knows_are_left_alone(sampler, stays):
    """It makes seedable ones of a `RandomSampler`, which resume and are alike in all processes."""
    assert (counted(sampler) is sampler) == stays


def test_an_index_from_behind_is_the_same_sample():
    dataset = noisy()
    same = [dataset[AgainDrawn(index, 1)]["pixel_values"] for index in (-5, 7)]
    assert torch.equal(*same) and not torch.equal(same[0], dataset[7]["pixel_values"])
    images = in_memory()
    same = [images.batch([AgainDrawn(index, 1)])["pixel_values"] for index in (-5, 7)]
    assert torch.equal(*same)


def test_arrays_of_indices_are_drawn_once():
    images = in_memory()
    assert torch.equal(images.batch(np.array([3, 7]))["pixel_values"], images.batch([3, 7])["pixel_values"])


def test_two_samples_that_come_again_share_no_random_numbers():
    words = {sample_word(position, AgainDrawn(position, times)) for position in range(20) for times in range(1, 20)}
    assert len(words) == 20 * 19 and not words & set(range(20))


@pytest.mark.parametrize("index", [0, 3, 4, 7, -1])
def test_what_is_drawn_again_is_the_sample_of_its_index(index):
    plain = KeyedRandomness(parts(augment=False), seed=1)
    assert torch.equal(plain[AgainDrawn(index, 2)]["pixel_values"], plain[index]["pixel_values"])
