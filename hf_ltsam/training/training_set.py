"""What a trainer can say of its training set: class statistics before the first step, the samples of a batch after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    default_data_collator,
)
from transformers.utils import is_peft_available, logging

from hf_ltsam.class_statistics import SHOWN, ClassStatistics, check_label_range
from hf_ltsam.data.class_names import Names, compare_names, names_alike, names_of_dataset, names_of_model
from hf_ltsam.data.labels import LABEL_NAMES, label_fingerprint, training_labels
from hf_ltsam.data.sample_labels import Collator, disagreeing_rows, labels_trained_on, stated_labels
from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream
from hf_ltsam.data.sampling.class_sampling import UNIFORM
from hf_ltsam.data.sampling.sample_indices import indices_of_step, named_with_labels
from hf_ltsam.data.soft_labels import are_soft, class_sums, present_classes
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.models.logits import check_num_classes
from hf_ltsam.runs.class_frequencies import remark_on_bounds
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.refusals.problem import check_eval_labels, check_not_empty, check_num_labels

logger = logging.get_logger(__name__)
_WAITING = 64  # micro-batches whose labels are counted at once
_RENUMBER = (
    "Renumber a data set by dataset.align_labels_with_mapping(label2id, COLUMN), or by target_transform; a new classifier "
    "is given its names with id2label=... when the model is made."
)


def num_logits(model: nn.Module) -> int | None:
    """C as the model's configuration states it; None for a module without one."""
    inner = without_adapter(model)
    return inner.config.num_labels if isinstance(inner, PreTrainedModel) else None


def without_adapter(model: nn.Module) -> nn.Module:
    """The model under an adapter of peft; any other as it is."""
    if not is_peft_available():
        return model
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def label_name_of(trainer: Trainer) -> str:
    """The key of the labels in the batches of a trainer whose settings name none.

    transformers' own collators call them `labels`, whatever the column is called. One of the user's makes batches for the
    model, so its forward says the name; where that takes no labels they are `labels`.
    """
    if isinstance(trainer.data_collator, DataCollatorWithPadding) or trainer.data_collator is default_data_collator:
        return "labels"
    of_forward = trainer.label_names  # stock's: arguments of forward
    return next((name for name in LABEL_NAMES if name in of_forward), of_forward[0] if of_forward else "labels")


@dataclass(frozen=True)
class LabelReader:
    """How labels are read.

    Args:
        label_name: gives their key in a batch.
        collator: gives what makes batches of samples.
        args: the settings of the run.
    """

    label_name: Callable[[], str]
    collator: Callable[[], Collator]
    args: LTSamConfig

    @classmethod
    def of(cls, trainer: Trainer) -> LabelReader:
        """As the loaders of a trainer read them, whose collator is given the columns alone that they keep.

        The default collator is left as it is: labels are read by its rules without the rest of the sample.
        """

        def collator() -> Collator:
            own = trainer.data_collator
            return own if own is default_data_collator else trainer._get_collator_with_removed_columns(own)

        return cls(lambda: trainer.label_names[0], collator, trainer.args)

    def stated(self, dataset: Any) -> Tensor | None:
        """The labels (N,) that a data set states, or None; see `stated_labels`."""
        return stated_labels(dataset, self.label_name(), self.collator())

    def carried(self, dataset: Any) -> Tensor:
        """The labels (N,) that its batches carry; all samples are read where it states none, or others.

        Raises:
            TypeError: they cannot be read.
        """
        if isinstance(dataset, IterableDataset) and self.args.world_size > 1:  # each may have a part of it
            return training_labels(dataset, self.label_name())
        workers, progress = self.args.dataloader_num_workers, not self.args.disable_tqdm
        return labels_trained_on(dataset, self.label_name(), self.collator(), workers, progress)

    def disagrees(self, dataset: Any, labels: Tensor) -> bool:
        """Whether one of a few samples has another label than these say (N,)."""
        return bool(disagreeing_rows(dataset, labels, self.label_name(), self.collator()))

    def class_names(self, dataset: Any) -> Names | None:
        return names_of_dataset(dataset, self.label_name())


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What was read of a training set.

    Args:
        dataset: the training set itself.
        stated: the labels that it states (N,); None: it states none.
        labels: those that its batches carry (N,); None: unknown, and the statistics were given.
        statistics: given, or counted; None: there is neither.
        are_given: whether they were given.
    """

    dataset: Any
    stated: Tensor | None
    labels: Tensor | None
    statistics: ClassStatistics | None
    are_given: bool

    @classmethod
    def of(cls, dataset: Any, reader: LabelReader, model: nn.Module, given: ClassStatistics | None) -> TrainingSet:
        """Read a training set. Its labels are counted, unless their statistics are given.

        Raises:
            TypeError: the labels cannot be read.
            ValueError: a training set without samples, a label outside the class range, a class without a training image,
                two different tail thresholds, or a number of classes that is not the model's.
        """
        threshold = reader.args.tail_threshold
        if dataset is None:
            return cls(None, None, None, _with_threshold(given, threshold), given is not None)
        given = dataset.statistics if given is None and isinstance(dataset, ClassSampledStream) else given
        check_not_empty(dataset)
        stated, logits = reader.stated(dataset), num_logits(model)
        if given is None:
            carried = reader.carried(dataset)
            names = names_in(model) or reader.class_names(dataset)
            check_num_labels(carried, logits, names)
            counted = ClassStatistics.from_labels(carried, logits, tail_threshold=threshold)
            warn(remark_on_bounds(counted))
            # the order of a stream may be another one in the next pass
            return cls(dataset, stated, None if isinstance(dataset, IterableDataset) else carried, counted, False)
        if logits is not None:
            check_num_classes(logits, given.num_classes)
        warn(remark_on_bounds(given))
        labels = None if stated is None or reader.disagrees(dataset, stated) else stated
        if labels is not None and len(labels) and not are_soft(labels):
            check_label_range(labels, given.num_classes)
        return cls(dataset, stated, labels, _with_threshold(given, threshold), True)

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 (hex) of the labels; None where they are unknown."""
        return None if self.labels is None else label_fingerprint(self.labels)

    def renewed(
        self, dataset: Any, reader: LabelReader, model: nn.Module, statistics: ClassStatistics | None
    ) -> TrainingSet:
        """This one, or what is read of the data set that took its place; also where the same one has other labels now.

        Args:
            statistics: of the trainer. Those that were counted here are counted anew, others kept, with a warning.
        """
        if self._is_still(dataset, reader):
            return self
        kept = statistics if self.are_given or statistics is not self.statistics else None
        try:
            new = TrainingSet.of(dataset, reader, model, kept)
        except TypeError:
            if statistics is None:
                raise
            logger.warning(
                f"train_dataset was replaced by a {type(dataset).__name__}, whose labels cannot be read: class_statistics "
                "are those of the one before. Unless that is meant, set trainer.class_statistics."
            )
            return TrainingSet.of(dataset, reader, model, statistics)
        new._tell_of_renewal()
        return new

    def _tell_of_renewal(self) -> None:
        """Say what became of the statistics when the data set was replaced, or its labels changed."""
        if self.statistics is None or self.labels is None:
            return
        counts = class_sums(self.labels, self.statistics.num_classes).round().long().tolist()
        shown = ", ".join(map(str, counts[:SHOWN])) + (", ..." if len(counts) > SHOWN else "")
        if self.are_given and tuple(counts) != self.statistics.counts:
            logger.warning(
                "train_dataset was replaced, or its labels changed, and class_statistics were given for another one: labels "
                f"of each class are now {shown}. Unless that is meant, set trainer.class_statistics = "
                "ClassStatistics.from_labels(labels)."
            )
        elif not self.are_given:
            logger.warning(f"train_dataset was replaced, or its labels changed: {self.statistics.describe_counts()}")

    def _is_still(self, dataset: Any, reader: LabelReader) -> bool:
        if dataset is not self.dataset:
            return False
        stated = reader.stated(dataset)
        if (stated is None) != (self.stated is None):
            return False
        if stated is not None and self.stated is not None and not torch.equal(stated, self.stated):
            return False
        return self.labels is None or not reader.disagrees(dataset, self.labels)

    def class_names(self, reader: LabelReader) -> Names | None:
        """The names of the labels, where the data set names those that its batches carry."""
        as_stated = self.labels is not None and self.stated is not None and torch.equal(self.labels, self.stated)
        return reader.class_names(self.dataset) if as_stated or self.stated is None else None

    def check_model_names(self, reader: LabelReader, model: nn.Module) -> None:
        """Compare the model's id2label with the class names of the training set; warnings of no name in both, and of twins.

        Raises:
            ValueError: they number the same classes differently.
        """
        first, second = names_in(model), self.class_names(reader)
        warn(names_alike(first or second or ()))
        if first is not None and second is not None:
            warn(compare_names(first, second, ("the model's id2label", "train_dataset"), _RENUMBER))

    def check_evaluated(
        self, dataset: Any, reader: LabelReader, model: nn.Module, for_prediction: bool = False
    ) -> None:
        """Compare labels and class names of an evaluated data set, or of several by name, with those of the training.

        Args:
            for_prediction: whether it is `test_dataset`, which need not have labels (-1).

        Raises:
            ValueError: a label outside the class range, or the same classes numbered differently.
        """
        if isinstance(dataset, dict):
            for part in dataset.values():
                self.check_evaluated(part, reader, model, for_prediction)
            return
        argument = "test_dataset" if for_prediction else "eval_dataset"
        labels = reader.stated(dataset)
        if labels is not None and for_prediction and len(labels) and int(labels.max()) < 0:
            return
        try:
            if self.statistics is not None:
                check_eval_labels(labels, self.statistics.num_classes, argument)
            whose, first = "train_dataset", self.class_names(reader)
            if first is None:
                whose, first = "the model's id2label", names_in(model)
            second = reader.class_names(dataset)
            if first is not None and second is not None:
                warn(compare_names(first, second, (whose, argument), _RENUMBER))
        except ValueError:
            if labels is None or not reader.disagrees(dataset, labels):
                raise  # otherwise its samples have other labels than it states


def names_in(model: nn.Module) -> Names | None:
    inner = without_adapter(model)
    return names_of_model(inner.config.id2label) if isinstance(inner, PreTrainedModel) else None


def warn(message: str | None) -> None:
    if message:
        logger.warning(message)


class LabelWatch(TrainerCallback):
    """Warns once where the labels of the first epoch are not distributed as the training set was counted.

    Args:
        statistics: gives those of the training set.
        dataset: gives the training set; one that is sampled by class is not watched.
    """

    def __init__(self, statistics: Callable[[], ClassStatistics | None], dataset: Callable[[], Any]) -> None:
        self._statistics, self._dataset = statistics, dataset
        self._waiting: list[Tensor] = []  # not copied to the host yet, which would wait for the device
        self._seen: Tensor | None = None  # labels of each class (C,); None: nothing is watched

    def add(self, labels: Tensor) -> None:
        """The labels of a micro-batch of this process, inside the class range."""
        if self._seen is not None:
            self._waiting.append(labels)
            if len(self._waiting) == _WAITING:
                self._count(self._seen)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        statistics, self._waiting = self._statistics(), []
        by_class = args.sampling != UNIFORM or isinstance(self._dataset(), ClassSampledStream)
        watched = statistics is not None and (state.epoch or 0) < 1 and not by_class
        whole = statistics is not None and statistics.samples is None  # otherwise a sample may have several labels
        self._seen = (
            torch.zeros(statistics.num_classes, dtype=torch.float64) if statistics and watched and whole else None
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        by_length = args.train_sampling_strategy not in ("random", "sequential")  # which may tell of the class
        if state.global_step.bit_count() == 1 and not by_length:  # steps 1, 2, 4, 8 ...
            self._compare()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._compare()
        self._seen = None

    def _count(self, seen: Tensor) -> None:
        seen += class_sums(torch.cat(self._waiting).cpu(), len(seen))
        self._waiting = []

    def _compare(self) -> None:
        statistics = self._statistics()
        if self._seen is None or statistics is None or not self._waiting:
            return
        self._count(self._seen)
        wrong = statistics.contradicted_by(self._seen.tolist())
        if wrong is None:
            return
        seen, total = int(self._seen[wrong]), int(self._seen.sum())
        names = names_of_dataset(self._dataset())
        called = repr(names[wrong]) if names is not None and wrong < len(names) else str(wrong)
        logger.warning(
            f"{seen} of the {total} labels trained on so far are {called}; by the class statistics, which have "
            f"{statistics.counts[wrong]} of {statistics.total} in that class, it would be about "
            f"{total * statistics.prior[wrong]:.0f}. Losses, groups, head and tail follow the statistics. Either those are "
            "of other labels (a transform or collator changes labels, class_statistics are of another set): pass "
            "class_statistics of the labels trained on. Or the order is not random: shuffle the stream. Or a sampler of "
            "your own means it: then all is well."
        )
        self._seen = None


def _with_threshold(given: ClassStatistics | None, tail_threshold: int | None) -> ClassStatistics | None:
    if given is None or tail_threshold is None or tail_threshold == given.tail_threshold:
        return given
    if given.tail_threshold is None:
        return replace(given, tail_threshold=tail_threshold)
    raise ValueError(
        f"tail_threshold is {tail_threshold} in LTSamConfig and {given.tail_threshold} in class_statistics: set one of them."
    )


def require_statistics(statistics: ClassStatistics | None) -> ClassStatistics:
    """The class statistics themselves.

    Raises:
        ValueError: there are none.
    """
    if statistics is None:
        raise ValueError("There are no class statistics: pass train_dataset, or class_statistics=ClassStatistics(...).")
    return statistics


def samples_in_words(
    before: int,
    batches: Sequence[MicroBatch],
    state: TrainerState,
    loader: Any,
    training_labels: Tensor | None,
    names: Sequence[str] | None = None,
) -> str:
    """Which samples of the training set some micro-batches hold, or of which classes where the loader cannot tell.

    Args:
        before: number of micro-batches of the step that came before them.
        state: of the trainer, at the beginning of the step.
        loader: of the training.
        training_labels: of the training set (N,); None: they cannot be read.
        names: of the classes; None: they are called by number.
    """
    labels = torch.cat([b.labels.cpu() for b in batches])
    indices = indices_of_step(loader, state.epoch, before, len(batches))
    named = named_with_labels(indices, training_labels, labels)
    classes = present_classes(labels)
    called = str(classes) if names is None else ", ".join(repr(names[c]) for c in classes)
    return named or f"a batch of the classes {called}"
