"""Class-aware, class-balanced and square-root sampling of a training set.

Shapes: N training images, C classes, M draws per epoch.
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
_SAMPLING_KEY = 0x5A3  # key word: no random numbers shared with the augmentation of the epoch


def check_sampling(sampling: str) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: with the nearest names.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"Unknown sampling {sampling!r}.{nearest(str(sampling), SAMPLINGS)}")


def class_shares(counts: Sequence[int], sampling: str) -> Tensor:
    """The probability of each class in a draw (C,), float64.

    Args:
        counts: training images per class (C,); a class without images is never drawn.
        sampling: "class_aware" or "class_balanced" (1 / C each), or "square_root" (in proportion to sqrt(n_c)).

    Source: Kang et al. 2020 Eq. 1 with q = 0 and q = 1/2.
    """
    n = torch.as_tensor(counts, dtype=torch.float64)
    shares = torch.where(n > 0, n ** _EXPONENTS[sampling], 0.0)
    return shares / shares.sum()


def exponent(sampling: str) -> float:
    """The q of draws that show class c in proportion to n_c^q."""
    return _EXPONENTS.get(sampling, 1.0)


def class_draws(labels: Tensor, sampling: str, num_draws: int, key: int) -> Tensor:
    """The images of one epoch, as positions in the training set (M,).

    "class_balanced" and "square_root" draw a class by its share, then one of its images, independently of the other
    draws. "class_aware" goes through the classes in turn, in a new random order each round, and through the images of
    a class likewise: the C draws of a round contain every class once, and no image comes again before all of its class
    have come.

    Args:
        labels: of the training set (N,).
        sampling: one of `SAMPLINGS` other than "uniform".
        num_draws: M.
        key: 64 random bits, which determine the draws.

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

    Hence all processes of a distributed training draw the same sequence, from which accelerate gives each its batches,
    and a resumed run continues in the middle of an epoch.

    Args:
        labels: of the training set (N,).
        sampling: "class_aware", "class_balanced" or "square_root".
        clock: the training set; it has the epoch.
        num_draws: M.
        seed: any integer.

    Raises:
        ValueError: an empty training set.
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
    """Draws per epoch: the steps of a plain epoch, all of them with full batches.

    With full batches for every process, accelerate need not fill up the last ones with images of other processes.

    Args:
        num_images: N.
        images_per_step: of all processes together.
        drop_last: whether a plain epoch drops its last, smaller batch.
    """
    steps = num_images / images_per_step
    return images_per_step * max(math.floor(steps) if drop_last else math.ceil(steps), 1)


def _by_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The images, class after class (N,), and their number per class (C,)."""
    return labels.argsort(stable=True), torch.bincount(labels)


def _starts(counts: Tensor) -> Tensor:
    """Position of the first image of each class (C,)."""
    return counts.cumsum(0) - counts


def _in_turn(images: Tensor, counts: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
    present = counts.nonzero().flatten()
    classes = present[_cycled(len(present), num_draws, generator)]  # (M,)
    draws_of = torch.bincount(classes, minlength=len(counts))  # (C,)
    draws = torch.empty(num_draws, dtype=torch.long)
    by_class = classes.argsort(stable=True)  # places of class 0 in the epoch, then of class 1, ...
    for places, start, n in zip(by_class.split(draws_of.tolist()), _starts(counts).tolist(), counts.tolist()):
        draws[places] = images[start + _cycled(n, len(places), generator)]
    return draws


def _cycled(n: int, length: int, generator: torch.Generator) -> Tensor:
    """0 to n - 1 in random order, again in a new order, and so on (length,)."""
    if length == 0:
        return torch.empty(0, dtype=torch.long)
    rounds = [torch.randperm(n, generator=generator) for _ in range(math.ceil(length / n))]
    return torch.cat(rounds)[:length]
