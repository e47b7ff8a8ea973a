"""Sampling by class: class shares, the order of draws, and their distribution over processes by accelerate."""

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset

from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.sampling.class_sampling import ClassSampler, class_draws, class_shares, full_batches

COUNTS = [50, 20, 9, 1]
LABELS = torch.tensor([c for c, n in enumerate(COUNTS) for _ in range(n)])[
    torch.randperm(80, generator=torch.Generator().manual_seed(0))
]


class Labelled(Dataset):
    def __init__(self, labels=LABELS):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"x": torch.tensor([float(index)]), "labels": int(self.labels[index])}


def sampler(sampling="class_aware", num_draws=96, seed=0, labels=LABELS):
    return ClassSampler(labels, sampling, KeyedRandomness(Labelled(labels), seed), num_draws, seed)


# p_c = n_c^q / sum n^q (Kang et al. 2020 Eq. 1), worked out by hand
@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("class_balanced", [0.25] * 4),
        ("class_aware", [0.25] * 4),
        ("square_root", [7.0711 / 15.5432, 4.4721 / 15.5432, 3 / 15.5432, 1 / 15.5432]),
    ],
)
def test_shares(sampling, expected):
    torch.testing.assert_close(
        class_shares(COUNTS, sampling), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5
    )
    assert class_shares([4, 0, 1], sampling)[1] == 0


@pytest.mark.parametrize("sampling", ["class_balanced", "square_root"])
def test_classes_have_their_shares_and_the_images_of_a_class_equal_ones(sampling):
    draws = class_draws(LABELS, sampling, 40_000, key=1)
    of_class = np.bincount(LABELS[draws], minlength=4) / 40_000
    np.testing.assert_allclose(of_class, class_shares(COUNTS, sampling), atol=0.01)  # 4 standard deviations
    first = np.bincount(draws[LABELS[draws] == 0], minlength=80)[LABELS == 0]
    assert first.min() > 0.7 * first.mean() and first.max() < 1.3 * first.mean()
    assert (np.bincount(draws, minlength=80)[LABELS != 0] > 0).all()


def test_draws_are_independent():
    """A class follows itself as often as by chance; with class-aware draws hardly ever."""
    balanced = LABELS[class_draws(LABELS, "class_balanced", 20_000, key=1)]
    assert (balanced[1:] == balanced[:-1]).float().mean() == pytest.approx(0.25, abs=0.015)


def test_class_aware_takes_every_class_in_turn_in_a_new_order_each_round():
    rounds = LABELS[class_draws(LABELS, "class_aware", 400, key=3)].view(100, 4)
    assert (rounds.sort(dim=1).values == torch.arange(4)).all()
    assert len({tuple(r) for r in rounds.tolist()}) == 24  # all orders of four classes


def test_class_aware_repeats_no_image_before_all_of_its_class_have_come():
    draws = class_draws(LABELS, "class_aware", 4 * 50, key=3)
    assert sorted(draws[LABELS[draws] == 0].tolist()) == (LABELS == 0).nonzero().flatten().tolist()
    middle = draws[LABELS[draws] == 2].tolist()  # 50 draws of 9 images
    for start in range(0, 45, 9):
        assert sorted(middle[start : start + 9]) == (LABELS == 2).nonzero().flatten().tolist()
    assert middle[:9] != middle[9:18]


def test_the_last_round_may_be_cut_and_classes_without_images_are_left_out():
    labels = torch.tensor([0, 0, 3])
    draws = class_draws(labels, "class_aware", 5, key=0)
    assert len(draws) == 5 and set(labels[draws].tolist()) == {0, 3}
    assert set(class_draws(labels, "class_balanced", 50, key=0).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("sampling", ["class_aware", "class_balanced", "square_root"])
def test_an_epoch_is_a_function_of_seed_and_epoch(sampling):
    def epochs(seed):
        one = sampler(sampling, seed=seed)
        orders = []
        for epoch in (0, 1):
            one.clock.set_epoch(epoch)
            orders.append(list(one))
        one.clock.set_epoch(0)
        assert list(one) == orders[0]
        return orders

    first, second = epochs(0)
    assert epochs(0) == [first, second] and first != second and epochs(1)[0] != first
    assert len(sampler(sampling)) == len(first) == 96


@pytest.mark.parametrize(
    ("images", "per_step", "drop_last", "draws"),
    [
        (80, 16, False, 80),
        (81, 16, False, 96),
        (81, 16, True, 80),
        (5, 16, True, 16),
        (5, 16, False, 16),
    ],
)
def test_epochs_are_whole_batches(images, per_step, drop_last, draws):
    assert full_batches(images, per_step, drop_last) == draws


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_draws(processes):
    """Equal lengths, and every draw in exactly one process; the same after batches were skipped."""
    draws = full_batches(80, 8 * processes, False)

    def loaders(rank):
        one = sampler(num_draws=draws)
        one.clock.set_epoch(2)
        loader = DataLoader(one.clock, batch_size=8, sampler=one)
        prepared = prepare_data_loader(loader, num_processes=processes, process_index=rank, put_on_device=False)
        prepared.set_epoch(2)  # as the Trainer does
        return prepared

    whole = list(sampler_at(2, draws))
    seen = [[b["x"].flatten().int().tolist() for b in loaders(rank)] for rank in range(processes)]
    assert {len(batches) for batches in seen} == {draws // 8 // processes}
    assert [i for step in zip(*seen) for batch in step for i in batch] == whole
    resumed = [
        [b["x"].flatten().int().tolist() for b in skip_first_batches(loaders(rank), 2)] for rank in range(processes)
    ]
    assert resumed == [batches[2:] for batches in seen]


def sampler_at(epoch, draws):
    one = sampler(num_draws=draws)
    one.clock.set_epoch(epoch)
    return one


def test_an_empty_training_set_is_refused():
    with pytest.raises(ValueError, match="has none"):
        sampler(labels=torch.empty(0, dtype=torch.long))
