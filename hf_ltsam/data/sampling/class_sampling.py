"""Which training images an epoch shows, when that depends on their classes.

Shapes: N training images, C classes, M draws of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.data.keys import random_key
from hf_ltsam.hyperparameters import nearest

UNIFORM = "uniform"
CLASS_AWARE = "class_aware"
# A draw shows class c with probability n_c^q / (sum over classes of n^q): Kang et al. 2020 Eq. 1
_EXPONENTS = {CLASS_AWARE: 0.0, "class_balanced": 0.0, "square_root": 0.5}
SAMPLINGS = (UNIFORM, *_EXPONENTS)
_SAMPLING_KEY = 0x5A3  # so that the draws of an epoch do not share random numbers with its augmentation


def check_sampling(sampling: str) -> None:
    """Refuse a name that does not exist.

    Raises:
        ValueError: with the nearest ones.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"Unknown sampling {sampling!r}.{nearest(str(sampling), SAMPLINGS)}")


def class_shares(counts: Sequence[int], sampling: str) -> Tensor:
    """The probability (C,) with which a draw shows a class, float64.

    Args:
        counts: training images per class (C,); a class of none is never drawn.
        sampling: "class_aware" or "class_balanced" (1 / C each), or "square_root" (in proportion to sqrt(n_c)).

    Source: Kang et al. 2020 Eq. 1 with q = 0 and q = 1/2.
    """
    n = torch.as_tensor(counts, dtype=torch.float64)
    shares = torch.where(n > 0, n ** _EXPONENTS[sampling], 0.0)
    return shares / shares.sum()


def class_draws(labels: Tensor, sampling: str, num_draws: int, key: int) -> Tensor:
    """The images (M,) of one epoch, as positions in the training set.

    "class_balanced" and "square_root" draw a class by its share, then one of its images, each draw independent of the
    others. "class_aware" goes through the classes in turn, in a new random order each round, and through the images of
    a class likewise: any C draws from a multiple of C on show every class once, and no image is seen again before all of
    its class were.

    Args:
        labels: of the training set (N,).
        num_draws: M.
        key: 64 random bits; the draws are a function of them.

    Source: Kang et al. 2020 Sec. 3; class-aware: Shen et al. 2016.
    """
    generator = torch.Generator().manual_seed(key)
    images, counts = _by_class(labels)
    if sampling == CLASS_AWARE:
        return _in_turn(images, counts, num_draws, generator)
    classes = torch.multinomial(
        class_shares(counts.tolist(), sampling), num_draws, replacement=True, generator=generator
    )
    within = torch.rand(num_draws, dtype=torch.float64, generator=generator) * counts[classes]
    return images[_starts(counts)[classes] + within.long()]


class ClassSampler(Sampler[int]):
    """`class_draws` for a `DataLoader`: the draws of an epoch are a function of (seed, epoch) alone.

    So every process of a distributed training makes the same sequence, of which accelerate gives each its own batches,
    and a resumed run goes on in the middle of an epoch.

    Args:
        labels: of the training set (N,).
        sampling: "class_aware", "class_balanced" or "square_root".
        clock: the training set, which knows the epoch.
        num_draws: M, of an epoch.
        seed: any integer.
    """

    def __init__(self, labels: Tensor, sampling: str, clock: KeyedDataset, num_draws: int, seed: int) -> None:
        if not len(labels):
            raise ValueError(f"sampling={sampling!r} needs training images, and the training set has none.")
        self.labels, self.sampling = labels, sampling
        self.clock, self.num_draws, self.seed = clock, num_draws, seed

    def __len__(self) -> int:
        return self.num_draws

    def __iter__(self) -> Iterator[int]:
        key = random_key(self.seed, self.clock.epoch, _SAMPLING_KEY)
        yield from class_draws(self.labels, self.sampling, self.num_draws, key).tolist()


def full_batches(num_images: int, images_per_step: int, drop_last: bool) -> int:
    """The draws of an epoch: as many steps as a plain epoch has, none of them with a part of a batch.

    With a whole number of batches for every process, accelerate need not fill up the last ones with images that other
    processes have.

    Args:
        num_images: N.
        images_per_step: of all processes together.
        drop_last: whether a plain epoch leaves its last, smaller batch out.
    """
    steps = num_images / images_per_step
    return images_per_step * max(math.floor(steps) if drop_last else math.ceil(steps), 1)


def _by_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The images (N,), class after class, and how many there are of each (C,)."""
    return labels.argsort(stable=True), torch.bincount(labels)


def _starts(counts: Tensor) -> Tensor:
    """Where the images of each class begin (C,)."""
    return counts.cumsum(0) - counts


def _in_turn(images: Tensor, counts: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
    present = counts.nonzero().flatten()
    classes = present[_cycled(len(present), num_draws, generator)]  # (M,)
    wanted = torch.bincount(classes, minlength=len(counts))
    draws = torch.empty(num_draws, dtype=torch.long)
    by_class = classes.argsort(stable=True)  # the places of class 0 in the epoch, then those of class 1, ...
    for places, start, n in zip(by_class.split(wanted.tolist()), _starts(counts).tolist(), counts.tolist()):
        draws[places] = images[start + _cycled(n, len(places), generator)]
    return draws


def _cycled(n: int, length: int, generator: torch.Generator) -> Tensor:
    """0 to n - 1 in random order, again in another order, and so on (length,)."""
    if length == 0:
        return torch.empty(0, dtype=torch.long)
    rounds = [torch.randperm(n, generator=generator) for _ in range(math.ceil(length / n))]
    return torch.cat(rounds)[:length]
