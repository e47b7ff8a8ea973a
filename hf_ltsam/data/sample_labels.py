"""The labels that batches carry: those that a data set states, compared with a few samples, or all samples read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from tqdm.auto import tqdm
from transformers import default_data_collator
from transformers.utils import logging

from hf_ltsam.data.keyed_randomness import KeyedDataset, KeyedRandomness, is_map_style
from hf_ltsam.data.labels import LABEL_NAMES, WAY_OUT, NamedLabelsError, is_arrow_dataset, odd_label, training_labels
from hf_ltsam.data.random_states import undisturbed
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.data.transforms import decodes_alone

logger = logging.get_logger(__name__)

Collator = Callable[[list[Any]], Mapping[str, Any]]

COMPARED = 16  # samples, of as many classes
_PASS = 64  # samples that are read at once
_OF_STREAM = "class_statistics=ClassStatistics.from_labels(labels), or ClassStatistics(counts), avoids that."
_WAY_AROUND = (
    "class_statistics=ClassStatistics.from_labels(labels) avoids that, or an attribute `targets` or `labels` of the data "
    "set with the labels of its samples."
)


def stated_labels(dataset: Any, label_name: str, collator: Collator = default_data_collator) -> Tensor | None:
    """The labels (N,) that a data set states, or None where they cannot be read without its samples.

    Raises:
        NamedLabelsError: they are names, and neither a transform nor the collator could number them.
    """
    if dataset is None:
        return None
    try:
        return training_labels(dataset, label_name)
    except NamedLabelsError:
        if collator is default_data_collator and _gives_what_it_states(dataset):
            raise
        return None
    except (TypeError, ValueError):
        return None


def labels_trained_on(
    dataset: Any,
    label_name: str = "labels",
    collator: Collator = default_data_collator,
    num_workers: int = 0,
    progress: bool = True,
) -> Tensor:
    """The labels (N,) that batches of a training set carry, int64, in its order; of a stream, that of one pass.

    Those that it states (`training_labels`), where a few samples of different classes carry the same. Otherwise every
    sample is read once, transforms and all. Random generators are left as they were.

    Args:
        dataset: what `training_labels` takes, any object with `__getitem__` and `__len__`, or a stream with `__len__`.
        label_name: the name of the labels in a batch.
        collator: makes batches of samples.
        num_workers: processes that read, where all samples are read.
        progress: whether to show a bar then.

    Raises:
        TypeError: the labels cannot be read: a stream without a length or with one pass only, or samples without an
            integer label.
    """
    samples = _Samples(dataset, label_name, collator)
    try:
        stated = training_labels(dataset, label_name)
    except TypeError:
        if has_end(dataset) and samples.read_first() is not None:
            logger.warning(
                f"This {type(dataset).__name__} is a stream of {len(dataset)} samples, read once. {_OF_STREAM}"
            )
            return samples.read_stream(progress)
        if not is_map_style(dataset) or samples.read(range(min(len(dataset), 1))) is None:
            raise
        logger.warning(f"This {type(dataset).__name__} states no labels, so all samples are read once. {_WAY_AROUND}")
        return samples.read_all(num_workers, progress)
    rows = disagreeing_rows(dataset, stated, label_name, collator)
    if not rows:
        return stated
    logger.warning(
        f"Sample {rows[0]} of this {type(dataset).__name__} has another label than the data set states "
        f"({stated[rows[0]].tolist()}): a transform or collator changes labels. They are counted by reading all samples "
        f"once. {_WAY_AROUND}"
    )
    return samples.read_all(num_workers, progress)


def disagreeing_rows(
    dataset: Any, stated: Tensor, label_name: str = "labels", collator: Collator = default_data_collator
) -> list[int]:
    """Of a few samples of different classes, those whose label is not the stated one (N,).

    Nothing is read where the kind of the data set leaves no doubt; what cannot be read is not compared.
    """
    if collator is default_data_collator and _gives_what_it_states(dataset):
        return []
    rows = _of_different_classes(stated)
    labels = _Samples(dataset, label_name, collator).read(rows)
    if labels is None or len(labels) != len(rows):
        return []
    return [row for row, label in zip(rows, labels) if not torch.equal(label, stated[row].to(label.dtype))]


def has_end(dataset: Any) -> bool:
    """Whether it is a stream that says how many samples it has."""
    return isinstance(dataset, IterableDataset) and hasattr(type(dataset), "__len__")


def _of_different_classes(labels: Tensor) -> list[int]:
    """The first sample of each class; of many classes, of some over the whole range."""
    labels = labels.argmax(1) if are_soft(labels) else labels
    classes, position = labels.unique(return_inverse=True)
    first = torch.full((len(classes),), len(labels)).scatter_reduce_(
        0, position, torch.arange(len(labels)), reduce="amin"
    )
    chosen = torch.linspace(0, len(classes) - 1, min(COMPARED, len(classes))).round().long()
    return first[chosen].tolist()


def _gives_what_it_states(dataset: Any) -> bool:
    """Whether the labels of its samples are the stated ones by construction."""
    if type(dataset) in (Subset, KeyedRandomness):
        return _gives_what_it_states(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(map(_gives_what_it_states, dataset.datasets))
    if is_arrow_dataset(dataset):
        return dataset.format["type"] != "custom" or decodes_alone(dataset)
    of_ours = isinstance(dataset, KeyedDataset) and not isinstance(dataset, KeyedRandomness)
    return of_ours or type(dataset) in (TensorDataset, list, tuple)


class _Samples:
    """Samples of a data set, read for their labels."""

    def __init__(self, dataset: Any, label_name: str, collator: Collator) -> None:
        self._dataset, self._labels_of, self._collator = dataset, _LabelsOf(label_name, collator), collator

    def read(self, rows: Sequence[int]) -> Tensor | None:
        """The labels of some samples (n,); None: they have no integer labels, or cannot be read."""
        try:
            with undisturbed(self._dataset, self._collator):
                return self._labels_of([self._dataset[row] for row in rows]) if len(rows) else None
        except Exception:  # of the caller's code; the training will raise it with its sample
            return None

    def read_first(self) -> Tensor | None:
        """The label of a stream's first sample (1,); None: it has no integer label, or there is none or no sample."""
        try:
            with undisturbed(self._dataset, self._collator):
                return self._labels_of([next(iter(self._dataset))])
        except Exception:  # as `read`
            return None

    def read_stream(self, progress: bool) -> Tensor:
        """The labels of one pass (N,), in this process: workers would read it once each.

        Raises:
            TypeError: as `read_all`, or there is no second pass to train on.
        """
        labels = self.read_all(0, progress)
        if self.read_first() is None:
            raise TypeError(f"This {type(self._dataset).__name__} can be read only once. {WAY_OUT}")
        return labels

    def read_all(self, num_workers: int, progress: bool) -> Tensor:
        """The labels of all samples (N,).

        Raises:
            TypeError: a batch has none, or the collator gives more or fewer than there are samples.
        """
        loader = DataLoader(self._dataset, batch_size=_PASS, num_workers=num_workers, collate_fn=self._labels_of.values)
        parts, first = [], 0
        with undisturbed(self._dataset, self._collator):
            for values in tqdm(loader, desc="counting labels", unit=" batches", disable=not progress, leave=False):
                self._refuse_odd(values, first)
                parts.append(self._labels_of.tensor(values))
                first += len(parts[-1])
        labels = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
        if len(labels) != len(self._dataset):
            raise TypeError(
                f"Batches of this {type(self._dataset).__name__} have {len(labels)} labels for {len(self._dataset)} "
                f"samples. {WAY_OUT}"
            )
        return labels

    def _refuse_odd(self, values: Any, first: int) -> None:
        odd = odd_label(values)
        if odd is not None:
            raise TypeError(
                f"Sample {first + odd} of this {type(self._dataset).__name__} has the label {values[odd]!r}, which is no "
                "class: give it one, or leave it out (torch.utils.data.Subset)."
            )


class _LabelsOf:
    """Samples -> their labels (n,), as a batch of them would carry them."""

    def __init__(self, label_name: str, collator: Collator) -> None:
        self._name, self._collator = label_name, collator

    def __call__(self, samples: list[Any]) -> Tensor:
        return self.tensor(self.values(samples))

    def values(self, samples: list[Any]) -> Any:
        """One for each sample, as they are; where there is a collator, what it makes of them."""
        is_stock = self._collator is default_data_collator
        return [self._of(sample) for sample in samples] if is_stock else self._collator(samples)[self._name]

    def tensor(self, values: Any) -> Tensor:
        """
        Raises:
            TypeError: these are no classes.
        """
        labels = torch.as_tensor(values)
        if are_soft(labels) and labels.is_floating_point():
            return labels.float()
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
            raise TypeError(f"Labels have shape {tuple(labels.shape)} and type {labels.dtype}.")
        return labels.long()

    def _of(self, sample: Any) -> Any:
        """By the rules of the default collator, without the rest of the sample."""
        sample = sample if isinstance(sample, Mapping) else vars(sample)
        label = next(sample[name] for name in (self._name, *LABEL_NAMES) if name in sample)
        return label.tolist() if isinstance(label, Tensor) else label
