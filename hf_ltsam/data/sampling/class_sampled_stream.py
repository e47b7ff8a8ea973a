"""Sampling by class from a stream, which can only be read from its beginning."""

from __future__ import annotations

import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.labels import LABEL_NAMES
from hf_ltsam.data.random_states import seeded
from hf_ltsam.data.sampling.class_sampling import CLASS_AWARE, UNIFORM, check_sampling, class_shares
from hf_ltsam.hyperparameters import COUNT, require


class ClassSampledStream(IterableDataset[Any]):
    """An endless stream of rows, with the class shares of a sampling.

    Every row that is read enters the store of its class, which holds the last `per_class` rows; then a class is drawn
    from those seen so far, and a row from its store. So one row comes out for each one read, rows of rare classes come
    out again and again, and most rows of frequent classes never. At its end the stream is read again, after `set_epoch`
    if it has that. Classes not seen yet are not drawn: in a stream that is not shuffled, or whose rarest classes come
    late, the shares are right from the second pass on only.

    Everything is a function of the seed and of the position in the sequence: a resumed training, which skips what it has
    seen, continues alike; processes that read the whole stream and take their own batches from it (accelerate's way) see
    different rows. The workers of a `DataLoader` draw independently of each other.

    Args:
        stream: a repeatable iterable of mappings: an `IterableDataset` of torch or `datasets`. Shuffle it first
            (`stream.shuffle(seed, buffer_size)`).
        statistics: of the training set.
        sampling: "class_aware" (classes in turn, in a new random order each round; rows of a store in turn),
            "class_balanced" or "square_root".
        seed: any integer.
        per_class: rows in the store of a class, >= 1. Up to C times as many are in memory: leave their images encoded.
        label_name: the first candidate for the label in a row; then "label", "labels" and "label_ids".
        transform: from a drawn row to a sample, with image decoding and augmentation. Its random numbers are keyed, and
            a row drawn twice is augmented twice; neither holds for a transform of the stream itself. None: the row is
            the sample.

    Raises:
        ValueError: sampling "uniform" or unknown, or `per_class` below 1. Later, while reading: a row without a label or
            with one outside the classes, or a stream without rows.
    """

    def __init__(
        self,
        stream: Iterable[Mapping[str, Any]],
        statistics: ClassStatistics,
        sampling: str,
        seed: int = 0,
        per_class: int = 16,
        label_name: str = "labels",
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        check_sampling(sampling)
        if sampling == UNIFORM:
            raise ValueError("ClassSampledStream(sampling='uniform') would be the stream itself: use the stream.")
        require(COUNT, self, per_class=per_class)
        self.stream, self.statistics, self.sampling = stream, statistics, sampling
        self.seed, self.per_class, self.transform = seed, per_class, transform
        self._label_names = (label_name, *LABEL_NAMES)
        self._shares = class_shares(statistics.counts, sampling).tolist()

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        key = random_key(self.seed, 0 if worker is None else worker.id)
        for place, row in enumerate(self._draws(random.Random(key), key)):
            if self.transform is None:
                yield row
            else:
                with seeded(random_key(key, place)):
                    sample = self.transform(row)
                yield sample

    def _draws(self, rng: random.Random, key: int) -> Iterator[Any]:
        stores: dict[int, deque[Any]] = {}
        turn: list[int] = []  # classes still to come in this round, the next one last
        for row in self._rows(key):
            stores.setdefault(self._label(row), deque(maxlen=self.per_class)).append(row)
            if self.sampling == CLASS_AWARE:
                turn = turn or rng.sample(list(stores), len(stores))
                store = stores[turn.pop()]
                store.rotate(-1)
                yield store[-1]
            else:
                c = rng.choices(list(stores), [self._shares[c] for c in stores])[0]
                yield rng.choice(stores[c])

    def _rows(self, key: int) -> Iterator[Any]:
        """The rows of the stream, pass after pass. Random numbers of its own transforms are keyed by position."""
        epoch, place = 0, 0
        while True:
            if hasattr(self.stream, "set_epoch"):  # the convention of datasets and accelerate
                self.stream.set_epoch(epoch)
            rows, before = iter(self.stream), place
            while True:
                with seeded(random_key(key, ~place)):
                    row = next(rows, None)
                if row is None:
                    break
                place += 1
                yield row
            if place == before:
                raise ValueError(
                    "The stream gives no rows" + (" any more: it can be read only once." if epoch else ".")
                )
            epoch += 1

    def _label(self, row: Any) -> int:
        name = next((name for name in self._label_names if isinstance(row, Mapping) and name in row), None)
        if name is None:
            content = (
                f"the columns {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"a {type(row).__name__}"
            )
            raise ValueError(
                f"sampling={self.sampling!r} needs the label of every row, and the stream gives {content}: name its label "
                "column 'labels' (or set label_name), or use sampling='uniform'."
            )
        try:
            label = operator.index(row[name])
        except TypeError as error:
            raise ValueError(
                f"sampling={self.sampling!r} needs class numbers, and the column {name!r} of the stream gives "
                f"{row[name]!r}: number the classes from 0, or use sampling='uniform'."
            ) from error
        if not 0 <= label < self.statistics.num_classes:
            raise ValueError(
                f"The stream gives the label {label}, outside the class range 0 to {self.statistics.num_classes - 1} of the "
                "class statistics."
            )
        return label
