"""Class-aware and class-balanced sampling from a stream, which can only be read from its beginning."""

from __future__ import annotations

import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.keyed_randomness import seeded
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.labels import LABEL_NAMES
from hf_ltsam.data.sampling.class_sampling import CLASS_AWARE, UNIFORM, check_sampling, class_shares
from hf_ltsam.hyperparameters import COUNT, require


class ClassSampledStream(IterableDataset[Any]):
    """Rows of a stream, class after class in the shares of a sampling, without end.

    Every row that is read goes into the store of its class, which keeps the last `per_class` of them; then a class is
    drawn among those seen so far, and a row from its store. So one row is given for each one read, rows of rare classes
    are given again and again, and most rows of frequent classes never. When the stream is over it is read again, with
    `set_epoch` where it has one. Classes that were not met yet take no part: in a stream that is not mixed, or whose
    rarest classes come late, the shares are right from the second pass on only.

    Everything is a function of the seed and of the place in the sequence: a resumed training, which leaves out what it has
    had, goes on alike; processes that each read the whole stream and take their own batches of it (accelerate's way) see
    different rows. Workers of a `DataLoader` draw independently of each other.

    Args:
        stream: anything that can be iterated over again, of mappings: an `IterableDataset` of torch or `datasets`. Mix it
            before (`stream.shuffle(seed, buffer_size)`).
        statistics: of the training set.
        sampling: "class_aware" (classes in turn, in a new random order each round; rows of a store in turn),
            "class_balanced" or "square_root".
        seed: any integer.
        per_class: rows that are kept of each class: C times as many in all, so give rows whose images are still encoded.
        label_name: of the label in a row; then come "label", "labels" and "label_ids".
        transform: makes the sample of a row that is given, image decoding and augmentation say. Its random numbers are
            keyed, and a row that is given twice is augmented twice, neither of which holds for a transform of the stream
            itself. None: the row as it is.

    Raises:
        ValueError: while reading: a row without a label or with one outside the classes, or a stream without rows.
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
            raise ValueError("ClassSampledStream(sampling='uniform') would be the stream itself: use that.")
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
        turn: list[int] = []  # classes that are still to come in this round, the next one last
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
        """The stream, pass after pass; what a transform of its own draws is keyed by the place of the row."""
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
            found = f"the columns {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"a {type(row).__name__}"
            raise ValueError(
                f"sampling={self.sampling!r} needs the label of every row, and the stream gives {found}: name its label "
                "column 'labels' (or state label_name), or use sampling='uniform'."
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
