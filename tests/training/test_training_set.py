"""Statistics are those of the labels trained on, class names do not contradict each other, unlabelled sets are told."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from torch import nn
from torch.utils.data import ConcatDataset, IterableDataset
from transformers import ViTConfig, ViTForImageClassification, default_data_collator

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream
from hf_ltsam.training import training_set as module
from hf_ltsam.training.training_set import LabelReader

COUNTS = (30, 5)
STATED = [0] * 30 + [1] * 5


class Folder(torch.utils.data.Dataset):
    def __init__(self, target_transform=None, stated=STATED):
        self.targets, self.target_transform = list(stated), target_transform
        self.noise = np.random.default_rng(0)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        label = self.targets[index]
        x = torch.full((4,), float(self.noise.normal())) + torch.randn(4)
        return {"x": x, "labels": self.target_transform(label) if self.target_transform else label}


class Untold(Folder):
    def __init__(self, stated=STATED):
        super().__init__()
        self.hidden = list(stated)
        del self.targets

    def __len__(self):
        return len(self.hidden)

    def __getitem__(self, index):
        return {"x": torch.randn(4), "labels": self.hidden[index]}


class Stream(IterableDataset):
    def __init__(self, labels):
        self.labels_in_order = labels

    def __iter__(self):
        for label in self.labels_in_order:
            yield {"x": torch.randn(4), "labels": int(label)}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x)


def other(y):
    return 1 - y


def swapping(samples):
    batch = default_data_collator(samples)
    return {**batch, "labels": 1 - batch["labels"]}


def swapped(batch):
    return {"x": [torch.randn(4) for _ in batch["label"]], "labels": [1 - y for y in batch["label"]]}


def make(folder, dataset, model=None, eval_dataset=None, class_statistics=None, data_collator=None, **settings):
    args = LTSamConfig(
        str(folder),
        **{
            "method": "imbsam",
            "tail_threshold": 10,
            "loss": "logit_adjustment",
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "max_grad_norm": 0.0,
            "learning_rate": 0.1,
            "num_train_epochs": 1,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            **settings,
        },
    )
    return LTSamTrainer(
        Net() if model is None else model,
        args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        class_statistics=class_statistics,
        data_collator=data_collator,
    )


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """Warnings of the library reach caplog."""
    monkeypatch.setattr(logging.getLogger("hf_ltsam"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("hf_ltsam"), "level", logging.WARNING)


def replace(dataset):
    return lambda trainer: setattr(trainer, "train_dataset", dataset)


def attribute(name, value):
    return lambda trainer: setattr(trainer.train_dataset, name, value)


ARROW = Dataset.from_dict({"label": STATED})


@pytest.mark.parametrize(
    ("dataset", "settings", "change"),
    [
        (Folder(other), {}, None),
        (ConcatDataset([Folder(other)]), {}, None),
        (ARROW.with_transform(swapped), {"remove_unused_columns": False}, None),
        (Untold([1] * 30 + [0] * 5), {}, None),
        (Folder(), {"data_collator": swapping}, None),
        (Folder(), {}, replace(Folder(other))),
        (Folder(), {}, replace(Untold([1] * 30 + [0] * 5))),
        (Untold(), {}, replace(Folder(other))),
        (Folder(), {}, attribute("targets", [1] * 30 + [0] * 5)),
        (Folder(), {}, attribute("target_transform", other)),
        (Untold(), {}, attribute("hidden", [1] * 30 + [0] * 5)),
        (Folder(), {}, lambda trainer: setattr(trainer, "data_collator", swapping)),
    ],
)
def test_statistics_are_those_of_the_labels_trained_on(tmp_path, dataset, settings, change):
    trainer = make(tmp_path, dataset, **settings)
    if change is None:
        assert trainer.class_statistics.counts == (5, 30)  # before any time is spent
    else:
        assert trainer.class_statistics.counts == COUNTS
        change(trainer)
    trainer.train()
    assert trainer.class_statistics.counts == trainer.training_objective.statistics.counts == (5, 30)
    assert trainer.class_statistics.tail_classes == (0,)
    assert trainer.compute_metrics.statistics == trainer.class_statistics
    assert trainer.identity()["class_counts"] == [5, 30]
    assert trainer.batch_loaders._labels().bincount().tolist() == [5, 30]


def test_a_set_that_took_the_place_of_another_is_told(tmp_path, caplog):
    trainer = make(tmp_path, Folder())
    trainer.train()
    assert "replaced" not in caplog.text
    trainer.train_dataset = Folder(other)
    trainer.get_train_dataloader()
    assert "train_dataset was replaced, or its labels changed" in caplog.text and "5, 30" in caplog.text


def test_given_statistics_are_kept_with_a_warning(tmp_path, caplog):
    trainer = make(tmp_path, Folder(), class_statistics=ClassStatistics(COUNTS))
    trainer.train_dataset = Folder(other)
    trainer.train()
    assert trainer.class_statistics.counts == COUNTS
    assert "labels of each class are now 5, 30" in caplog.text and "trainer.class_statistics =" in caplog.text
    trainer = make(tmp_path, Folder())
    trainer.train_dataset, trainer.class_statistics = Folder(other), ClassStatistics((6, 29), tail_threshold=10)
    trainer.train()
    assert trainer.class_statistics.counts == (6, 29)


def test_a_new_set_is_refused_as_a_first_one_would_be(tmp_path):
    trainer = make(tmp_path, Folder())
    trainer.train_dataset = Folder(stated=[0] * 35)
    with pytest.raises(ValueError, match=r"at least 2 classes"):
        trainer.train()


def test_comparing_labels_changes_no_result(tmp_path, monkeypatch):
    def trained():
        torch.manual_seed(0)
        trainer = make(tmp_path, Folder(lambda y: y), method="sam", seed=3)
        trainer.train()
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    compared = trained()
    monkeypatch.setattr(module, "disagreeing_rows", lambda *_: [])
    monkeypatch.setattr(module, "labels_trained_on", lambda dataset, *_: torch.tensor(dataset.targets))
    assert torch.equal(compared, trained())


# The first epoch.

DRAWN = np.random.default_rng(0).permutation(np.repeat([0, 1], [270, 45])).tolist()


@pytest.mark.parametrize(
    ("labels", "given", "settings", "warned"),
    [
        (DRAWN, (270, 45), {}, False),
        (DRAWN, (30, 5), {}, False),
        (DRAWN, (45, 270), {}, True),
        (DRAWN, (1000, 10), {}, True),
        ([0] * 150 + [1] * 150, (150, 150), {}, True),  # in order, not at random
        (DRAWN, (45, 270), {"sampling": "class_balanced"}, False),
    ],
)
def test_labels_of_the_first_epoch_are_watched(tmp_path, caplog, labels, given, settings, warned):
    given = ClassStatistics(given)
    settings = {"method": "sgd", "tail_threshold": None, "max_steps": 30, **settings}
    make(tmp_path, Stream(labels), class_statistics=given, **settings).train()
    assert ("labels trained on so far are" in caplog.text) == warned
    assert caplog.text.count("labels trained on so far are") <= 1


@pytest.mark.parametrize(("strategy", "warned"), [("sequential", True), ("group_by_length", False)])
def test_an_order_by_length_is_no_contradiction(tmp_path, caplog, strategy, warned):
    """Texts of one class may be longer than those of the other."""
    labels = [1] * 1500 + [0] * 1500
    dataset = Dataset.from_dict(
        {"x": torch.randn(3000, 4).tolist(), "labels": labels, "length": [9 + y for y in labels]}
    )

    def collator(rows):
        return default_data_collator([{"x": row["x"], "labels": row["labels"]} for row in rows])

    settings = {
        "method": "sgd",
        "tail_threshold": None,
        "train_sampling_strategy": strategy,
        "per_device_train_batch_size": 64,
        "remove_unused_columns": False,
    }
    make(tmp_path, dataset, data_collator=collator, **settings).train()
    assert ("labels trained on so far are" in caplog.text) == warned


def test_a_label_outside_the_range_is_told_as_such_whenever_it_comes(tmp_path):
    """Labels of the first epoch are counted after 64 micro-batches: not before they were looked at."""
    labels = [0, 1] * 31 + [0, 7]
    settings = {"method": "sgd", "tail_threshold": None, "max_steps": 64, "per_device_train_batch_size": 1}
    trainer = make(tmp_path, Stream(labels), class_statistics=ClassStatistics((31, 31)), **settings)
    trainer.remove_callback(trainer.label_watch)  # whose looks at steps 1, 2, 4 ... count earlier
    trainer.label_watch.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    with pytest.raises(ValueError, match="Labels from 7 to 7 are outside the class range 0 to 1"):
        trainer.train()


def test_metrics_follow_a_training_set_that_comes_later(tmp_path):
    rows = [{"x": torch.randn(4), "labels": y} for y in STATED]
    trainer = make(tmp_path, None, eval_dataset=rows)
    assert trainer.compute_metrics is None and "eval_balanced" not in trainer.evaluate()
    trainer.train_dataset = rows
    trainer.train()
    assert "eval_balanced" in trainer.evaluate()


def test_chance_is_no_contradiction():
    statistics = ClassStatistics((900, 90, 9, 1))
    rng = np.random.default_rng(0)
    draws = rng.multinomial(64, statistics.prior, size=2000)
    assert not any(statistics.contradicted_by(seen.tolist()) is not None for seen in draws)
    assert statistics.contradicted_by([0, 0, 0, 0]) is None
    assert statistics.contradicted_by([0, 0, 0, 12]) == 3


# Names.


def named(names, labels=STATED, **columns):
    rows = {"label": labels, "x": torch.randn(len(labels), 4).tolist()}
    return Dataset.from_dict(rows, features=Features({"label": ClassLabel(names=names), "x": [Value("float32")]}))


class TorchFolder(Folder):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes


def vit(*names):
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=8,
        patch_size=8,
        id2label=dict(enumerate(names)) or None,
    )
    return ViTForImageClassification(config)


@pytest.mark.parametrize(
    ("dataset", "model", "said"),
    [
        (named(["cat", "dog"]), ("dog", "cat"), r"class 0 is 'dog' in the model's id2label and 'cat' in train_dataset"),
        (TorchFolder(["cat", "dog"]), ("dog", "cat"), r"class 0 is 'dog' in the model's id2label"),
        (named(["cat", "dog"]), ("Cat", "DOG"), None),
        (named(["cat", "dog"]), ("LABEL_0", "LABEL_1"), None),
        (named(["cat", "dog"]), (), None),
        (named(["0", "1"]), ("dog", "cat"), None),
        (ARROW, ("dog", "cat"), None),
    ],
)
def test_names_of_the_model_and_of_the_training_set(tmp_path, dataset, model, said):
    def build():
        return make(tmp_path, dataset, model=vit(*model))

    if said is None:
        build()
    else:
        with pytest.raises(ValueError, match=rf"{said}.*align_labels_with_mapping.*id2label"):
            build()


def test_names_that_share_nothing_are_mentioned(tmp_path, caplog):
    make(tmp_path, named(["cat", "dog"]), model=vit("emu", "yak"))
    assert "share no class name: classes are taken by number" in caplog.text


TOLD = r"class 0 is 'cat' in train_dataset and 'dog' in {}_dataset"


def test_names_of_evaluated_sets(tmp_path):
    train, wrong = named(["cat", "dog"]), named(["dog", "cat"])
    for eval_dataset in (wrong, {"ours": train, "theirs": wrong}):
        with pytest.raises(ValueError, match=TOLD.format("eval")):
            make(tmp_path, train, eval_dataset=eval_dataset)
    trainer = make(tmp_path, train, eval_dataset={"ours": train})
    assert set(trainer.evaluate()) > {"eval_ours_loss"}
    with pytest.raises(ValueError, match=TOLD.format("eval")):
        trainer.evaluate(wrong)
    with pytest.raises(ValueError, match=TOLD.format("test")):
        trainer.predict(wrong)
    trainer.eval_dataset = wrong
    with pytest.raises(ValueError, match=TOLD.format("eval")):
        trainer.evaluate()


def test_a_transform_that_renumbers_an_evaluated_set_is_seen(tmp_path):
    renumbered = named(["dog", "cat"]).with_transform(
        lambda b: {"x": torch.tensor(b["x"]), "labels": [1 - y for y in b["label"]]}
    )
    trainer = make(tmp_path, named(["cat", "dog"]), eval_dataset=renumbered, remove_unused_columns=False)
    assert trainer.evaluate()["eval_loss"] > 0


# Sets without labels.


def test_an_unlabelled_set_is_told_and_predicted(tmp_path):
    unlabelled = [{"x": torch.randn(4), "labels": -1} for _ in range(9)]
    trainer = make(tmp_path, Folder())
    with pytest.raises(ValueError, match=r"eval_dataset is not labelled \(label -1\).*predict\(\)"):
        trainer.evaluate(unlabelled)
    for hidden in (unlabelled, Untold([-1] * 9)):
        output = trainer.predict(hidden)
        assert output.predictions.shape == (9, 2) and output.label_ids is None
    for hidden in (Untold([-1] * 9), Untold([0, 1, -1])):
        with pytest.raises(ValueError, match=r"samples without a label \(label -1\)"):
            trainer.evaluate(hidden)
    with pytest.raises(ValueError, match=r"test_dataset: label -1"):
        trainer.predict([{"x": torch.randn(4), "labels": y} for y in (0, -1)])


# ---- streams without class statistics ----


class Finite(Stream):
    def __len__(self):
        return len(self.labels_in_order)


def test_a_stream_that_has_an_end_is_counted_and_trained_on(tmp_path):
    trainer = make(tmp_path, Finite(STATED))
    assert trainer.class_statistics.counts == ClassStatistics.from_labels(STATED).counts
    assert trainer.training_set.fingerprint is None  # its order may be another one in the next pass
    trainer.train()
    assert trainer.state.global_step == -(-len(STATED) // 8)


def test_a_stream_is_not_counted_in_several_processes(tmp_path):
    trainer = make(tmp_path, Finite(STATED))
    several = LabelReader(trainer.label_reader.label_name, trainer.label_reader.collator, SimpleNamespace(world_size=2))
    with pytest.raises(TypeError, match="it is a stream"):
        several.carried(Finite(STATED))


def test_a_stream_without_a_length_is_refused_with_what_to_pass(tmp_path):
    with pytest.raises(TypeError, match=r"from_labels\(row\['labels'\] for row in train_dataset\)"):
        make(tmp_path, Stream(STATED), max_steps=2)


def test_a_stream_sampled_by_class_knows_the_classes(tmp_path):
    statistics = ClassStatistics.from_labels(STATED)
    trainer = make(tmp_path, ClassSampledStream(Stream(STATED), statistics, "class_aware"), max_steps=1)
    assert trainer.class_statistics.counts == statistics.counts
