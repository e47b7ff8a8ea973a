"""The labels that batches carry: stated ones are believed where samples agree, and all samples are read where not."""

import functools
import logging
import random
import re

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from hf_ltsam import ClassStatistics
from hf_ltsam.data import sample_labels
from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.labels import training_labels
from hf_ltsam.data.random_states import undisturbed
from hf_ltsam.data.sample_labels import COMPARED, disagreeing_rows, labels_trained_on

STATED = [0] * 6 + [1] * 3 + [2]
MAPPED = [2 - y for y in STATED]


class Folder(torch.utils.data.Dataset):
    """torchvision's convention: `targets` are those before `target_transform`."""

    def __init__(self, target_transform=None, stated=STATED, change=None):
        self.targets, self.target_transform, self.change = stated, target_transform, change or (lambda y: y)
        self.reads = 0

    def __len__(self):
        return len(STATED)

    def __getitem__(self, index):
        self.reads += 1
        label = STATED[index]
        return {
            "x": torch.randn(2),
            "labels": self.change(self.target_transform(label) if self.target_transform else label),
        }


class Untold(Folder):
    """No label can be had without a sample."""

    def __init__(self, **settings):
        super().__init__(**settings)
        del self.targets


class Tuples(Untold):
    def __getitem__(self, index):
        return tuple(super().__getitem__(index).values())


class OfClasses(Untold):
    """`labels` are the classes that there are, and the first samples happen to be of them in this order."""

    labels = (0, 1, 2)
    order = (0, 1, 2, 0, 0, 1, 0, 0, 0, 1)

    def __getitem__(self, index):
        return {**super().__getitem__(index), "labels": self.order[index]}


class OfClassesAndSamples(OfClasses):
    def __init__(self):
        super().__init__()
        self.targets = self.order


@pytest.mark.parametrize("labels", [(0, 1, 2), ["cat", "dog", "owl"], np.arange(3), torch.arange(3)], ids=str)
def test_labels_of_classes_are_not_those_of_samples(labels):
    for dataset in (OfClasses(), OfClassesAndSamples()):
        dataset.labels = labels
        assert labels_trained_on(dataset, progress=False).tolist() == list(OfClasses.order)
        assert labels_trained_on(Subset(dataset, [9, 0, 2]), progress=False).tolist() == [1, 0, 2]
    assert dataset.reads < 10  # `targets` are those of samples


def test_an_attribute_of_another_length_is_named():
    words = "without loading its samples; its attribute 'labels' has 3 entries, and there are 10 samples"
    with pytest.raises(TypeError, match=words):
        training_labels(OfClasses())


def flipped(y):
    return 2 - y


def arrow(transform, feature=None):
    features = Features({"label": feature or ClassLabel(names=["a", "b", "c"])})
    values = ["abc"[y] for y in STATED] if feature else STATED
    return Dataset.from_dict({"label": values}, features=features).with_transform(transform)


def relabelled(batch):
    return {"x": [torch.randn(2) for _ in batch["label"]], "labels": [2 - y for y in batch["label"]]}


def of_words(batch):
    return {"labels": [2 - "abc".index(word) for word in batch["label"]]}


def flipping(samples):
    return {"labels": torch.tensor([2 - sample["labels"] for sample in samples])}


def of_tuples(samples):
    return {"labels": torch.tensor([2 - label for _, label in samples])}


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        (Folder(flipped), {}),
        (Subset(Folder(flipped), range(10)), {}),
        (ConcatDataset([Folder(flipped)]), {}),
        (KeyedRandomness(Folder(flipped), 0), {}),
        (Folder(lambda y: torch.tensor(2 - y)), {}),
        (Folder(change=flipped), {}),  # a joint transform, say
        (Folder(stated=[9] * 10, change=flipped), {}),
        (arrow(relabelled), {}),
        (arrow(of_words, Value("string")), {}),
        (Subset(arrow(relabelled), range(10)), {}),
        (Untold(change=flipped), {}),
        (Untold(change=lambda y: np.int64(2 - y)), {}),
        (Untold(change=flipped), {"num_workers": 1}),
        (Subset(Untold(change=flipped), range(10)), {}),
        (Folder(), {"collator": flipping}),
        (Tuples(), {"collator": of_tuples}),
        (TensorDataset(torch.zeros(10, 2), torch.tensor(STATED)), {"collator": of_tuples}),
        ([{"labels": y} for y in STATED], {"collator": flipping}),
    ],
)
def test_labels_of_batches_are_found(dataset, settings):
    assert labels_trained_on(dataset, progress=False, **settings).tolist() == MAPPED


def test_what_states_its_labels_truly_is_not_read_as_a_whole(caplog):
    dataset = Folder()
    assert labels_trained_on(dataset, progress=False).tolist() == STATED
    assert dataset.reads == 3  # one of each class
    many = Folder(stated=list(range(1000)))
    assert not disagreeing_rows(many, torch.arange(1000)) and many.reads <= COMPARED
    assert not caplog.records


def test_a_pass_is_announced_with_a_way_around_it(caplog):
    logging.getLogger("hf_ltsam").propagate = True
    with caplog.at_level(logging.WARNING):
        labels_trained_on(Untold(), progress=False)
    assert "all samples are read once. class_statistics=ClassStatistics.from_labels(labels) avoids that" in caplog.text
    assert "`targets` or `labels`" in caplog.text


class Stream(IterableDataset):
    labels = STATED

    def __iter__(self):
        raise RuntimeError("read")

    def __len__(self):
        return 10


@pytest.mark.parametrize(
    "dataset",
    [
        Stream(),
        Untold(change=float),
        Untold(change=lambda y: None),
        Untold(change=lambda y: [y]),
        Tuples(),
        arrow(lambda batch: batch, Value("string")),
        object(),
    ],
)
def test_what_has_no_integer_labels_is_refused_with_the_way_out(dataset):
    with pytest.raises(TypeError, match=r"class_statistics=ClassStatistics\.from_labels\(|class_encode_column"):
        labels_trained_on(dataset, progress=False)


class Spoiled(Untold):
    def __init__(self, labels, **settings):
        super().__init__(**settings)
        self.given = labels

    def __getitem__(self, index):
        return {"x": torch.zeros(2), "labels": self.given[index]}


class Stating(Spoiled):
    @property
    def targets(self):
        return self.given

    @targets.setter
    def targets(self, _): ...

    @targets.deleter
    def targets(self): ...


KINDS = {
    "untold": (Spoiled, {}),
    "in a worker": (Spoiled, {"num_workers": 1}),
    "a part": (lambda labels: Subset(Spoiled(labels), range(2, 10)), {}),
    "targets": (Stating, {}),
    "a list": (lambda labels: [{"labels": y} for y in labels], {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [None, "owl", [1, 2]])
@pytest.mark.parametrize("at_once", [64, 4])  # in the first or in a later batch
def test_a_sample_without_a_label_is_named(kind, bad, at_once, monkeypatch):
    monkeypatch.setattr(sample_labels, "_PASS", at_once)
    make, settings = KINDS[kind]
    dataset = make([*STATED[:6], bad, *STATED[7:]])
    row = 4 if kind == "a part" else 6
    with pytest.raises(
        TypeError, match=rf"Sample {row} of this \w+ has the label {re.escape(repr(bad))}, which is no class"
    ):
        labels_trained_on(dataset, progress=False, **settings)


@pytest.mark.parametrize("kind", ["targets", "a list"])
def test_a_first_sample_without_a_label_is_named(kind):
    with pytest.raises(TypeError, match=r"entry 0 has the label None"):
        labels_trained_on(KINDS[kind][0]([None, *STATED[1:]]), progress=False)


def test_a_target_transform_that_fails_is_named():
    with pytest.raises(TypeError, match=r"target_transform makes no integers of its attribute 'targets'"):
        labels_trained_on(Folder(lambda y: "word", change=lambda y: y), progress=False)


# Random state: what reading draws is given back, wherever the generator lies.

GLOBAL = np.random.default_rng(0)


def closure(generator):
    return lambda: generator.random()


class Owner:
    def __init__(self, *parts):
        self.parts = parts

    def __call__(self):
        return [part() if callable(part) else part.random() for part in self.parts]


def own_generators():
    return {
        "torch": (lambda g: torch.rand((), generator=g), torch.Generator().manual_seed(1)),
        "numpy": (lambda g: g.random(), np.random.default_rng(1)),
        "older numpy": (lambda g: g.random(), np.random.RandomState(1)),
        "python": (lambda g: g.random(), random.Random(1)),
    }


@pytest.mark.parametrize("kind", list(own_generators()))
@pytest.mark.parametrize(
    "hold",
    [
        lambda g: Owner(g),
        lambda g: Owner({"a": [Owner(g)]}),
        lambda g: closure(g),
        lambda g: functools.partial(print, g),
        lambda g: Owner(g).__call__,
        lambda g: arrow(closure(g)),
        lambda g: Subset(KeyedRandomness(Folder(closure(g)), 0), [1]),
    ],
)
def test_own_generators_are_put_back(kind, hold):
    draw, generator = own_generators()[kind]
    owner = hold(generator)
    with undisturbed(owner):
        drawn = float(draw(generator))
    assert float(draw(generator)) == drawn


def test_global_generators_are_put_back():
    def drawn():
        return float(torch.rand(())), np.random.rand(), random.random(), GLOBAL.random()

    states = torch.get_rng_state(), np.random.get_state(), random.getstate(), GLOBAL.bit_generator.state
    with undisturbed(drawn):
        drawn()
    after = torch.get_rng_state(), np.random.get_state(), random.getstate(), GLOBAL.bit_generator.state
    assert torch.equal(states[0], after[0]) and str(states[1:]) == str(after[1:])


def test_reading_labels_moves_no_generator():
    own = np.random.default_rng(3)
    for dataset in (Folder(change=lambda y: y + 0 * own.integers(2)), Untold(change=lambda y: y + 0 * own.integers(2))):
        before = torch.get_rng_state(), own.bit_generator.state
        labels_trained_on(dataset, progress=False)
        assert dataset.reads and torch.equal(torch.get_rng_state(), before[0]) and own.bit_generator.state == before[1]


# Streams: counted in one pass where they say how long they are, asked for otherwise.


class Finite(Stream):
    def __init__(self, passes=100):
        self.passes = passes

    def __iter__(self):
        self.passes -= 1
        yield from (row for row in [{"x": torch.randn(4), "labels": y} for y in STATED] if self.passes >= 0)

    def __len__(self):
        return len(STATED)


def test_a_stream_with_a_length_is_read_once_and_says_so(caplog):
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        labels = labels_trained_on(Finite(), progress=False, num_workers=2)
    assert labels.tolist() == STATED and torch.equal(torch.get_rng_state(), state)
    assert f"is a stream of {len(STATED)} samples, read once. class_statistics=" in caplog.text


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_a_stream_that_training_could_not_read_again_is_refused(passes):
    with pytest.raises(TypeError, match="only once" if passes == 2 else "is a stream|have 0 labels"):
        labels_trained_on(Finite(passes), progress=False)


def test_a_stream_of_datasets_is_told_which_line_counts_it():
    named = Dataset.from_dict({"text": ["a", "b", "c"], "kind": [0, 1, 1]})
    named = named.cast_column("kind", ClassLabel(names=["cat", "owl"]))
    stream = named.to_iterable_dataset()
    with pytest.raises(TypeError, match="it is a stream") as raised:
        labels_trained_on(stream, progress=False)
    line = re.search(r"class_statistics=(ClassStatistics\.from_labels\(.*?\)\)), which reads", str(raised.value))[1]
    assert eval(line, {"ClassStatistics": ClassStatistics, "train_dataset": stream}).counts == (1, 2)
    with pytest.raises(TypeError, match=r"row\['labels'\] for row in train_dataset\)"):
        labels_trained_on(stream.map(lambda row: row), progress=False)
