"""A run is a run: the end of `train()` writes what commands read, where the run is meant to leave files and can be tested."""

import random
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset
from transformers import PretrainedConfig, PreTrainedModel, TrainerCallback, TrainingArguments

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.losses import LOSSES
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.runs.card.facts import read_facts
from hf_ltsam.runs.card.tables import hyperparameters_table
from hf_ltsam.runs.experiment import experiment_of
from hf_ltsam.runs.folder import CALIBRATION, RunFolder
from hf_ltsam.runs.identity import check_identity, describe, save_identity
from hf_ltsam.training.durable_trainer import DurableTrainer
from hf_ltsam.training.results.saved_runs import NO_FOLDER
from hf_ltsam.training.steps.sam_trainer import SamTrainerMixin

RUN = {"model.safetensors", "class_statistics.json", "recipe.yaml", "metrics.json", "predictions.json"}


class TinyConfig(PretrainedConfig):
    model_type = "tiny_of_runs"


class Tiny(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = torch.nn.Linear(4, 3)
        self.drop = torch.nn.Dropout(0.5)
        self.post_init()

    def forward(self, inputs, labels=None):
        logits = self.linear(self.drop(inputs))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


def rows(counts=(6, 4, 2)):
    return [{"inputs": torch.eye(4)[c], "labels": c} for c, n in enumerate(counts) for _ in range(n)]


def settings(folder, **others):
    quick = {"use_cpu": True, "max_steps": 2, "disable_tqdm": True, "report_to": "none", "learning_rate": 1e-3}
    return {"output_dir": str(folder), **quick, **others}


def trainer(folder, test=None, cls=LTSamTrainer, own=None, **others):
    torch.manual_seed(0)
    model = Tiny(TinyConfig(num_labels=3))
    return cls(
        model,
        LTSamConfig(**settings(folder, **others)),
        train_dataset=rows(),
        eval_dataset=rows((2, 2, 2)) if test is None else test,
        **(own or {}),
    )


def files(folder):
    return {file.name for file in folder.iterdir() if file.is_file()} if folder.exists() else set()


def test_training_saves_the_run(tmp_path):
    made = trainer(tmp_path / "run")
    output = made.train()
    folder = RunFolder(tmp_path / "run")
    assert files(tmp_path / "run") >= RUN and output.global_step == 2
    record = folder.finished_record()
    assert record.results["test"]["overall"] == made.evaluate()["eval_overall"]
    before = folder.finished_record()
    again = made.save_run()  # by hand is the same
    assert (again.results, again.weights_sha256) == (before.results, before.weights_sha256)


@pytest.mark.parametrize(
    ("others", "test", "own"),
    [
        ({"save_run": False}, None, {}),
        ({"save_strategy": "no"}, None, {}),
        ({"output_dir": NO_FOLDER}, None, {}),
        ({}, {"one": rows(), "other": rows()}, {}),
        ({}, (row for row in rows()), {}),  # without a length, perhaps without an end
        ({"bf16_full_eval": True}, None, {}),
        ({"method": "sam"}, None, {"loss": "model"}),
    ],
    ids=["asked", "no files", "no folder", "no test", "stream", "half", "loss of the model"],
)
def test_what_is_no_run_is_left_alone(tmp_path, monkeypatch, others, test, own):
    monkeypatch.chdir(tmp_path)
    if not isinstance(test, dict | None):
        test = Stream()
    made = trainer(tmp_path / "run", test, own=own, **others)
    made.train()
    folder = tmp_path / others.get("output_dir", "run")
    assert not files(folder) & {"metrics.json", "recipe.yaml", "model.safetensors"}


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield from rows()


def test_a_test_that_no_report_can_show_does_not_undo_a_training(tmp_path, caplog):
    made = trainer(tmp_path / "run", [{**row, "labels": torch.eye(3)[row["labels"]]} for row in rows()])
    with caplog.at_level("WARNING"):
        assert made.train().global_step == 2
    assert "metrics.json" not in files(tmp_path / "run")
    assert "not saved for `ltsam report` and the others: " in caplog.text and "shares of classes" in caplog.text


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, row):
        raise OSError("image file is truncated")


@pytest.mark.parametrize("test", [Unreadable(), [{**row, "labels": [1.0, 0.0, 0.0]} for row in rows()]])
def test_a_test_that_fails_leaves_a_training_as_stock_does(tmp_path, caplog, test):
    """train() returns, the model is in training mode, and no result of earlier weights stands beside the new ones."""
    trainer(tmp_path / "run").train()
    (tmp_path / "run" / CALIBRATION).write_text("{}")
    made = trainer(tmp_path / "run", test, learning_rate=2e-3)
    with caplog.at_level("WARNING"):
        assert made.train().global_step == 2
    assert "not saved for `ltsam report`" in caplog.text and made.model.training
    assert not files(tmp_path / "run") & {"metrics.json", "predictions.json", CALIBRATION}


@pytest.mark.parametrize("size", [2, 4])
def test_settings_of_the_users_own_evaluation_are_no_matter(tmp_path, size):
    users = {"eval_do_concat_batches": False, "prediction_loss_only": True, "dataloader_drop_last": True}
    for name, own in (("plain", {}), ("own", users)):
        made = trainer(tmp_path / name, per_device_eval_batch_size=size, per_device_train_batch_size=6, **own)
        made.train()
        assert made.args.prediction_loss_only == bool(own)
    one, two = (RunFolder(tmp_path / name).finished_record() for name in ("plain", "own"))
    assert one.results == two.results and two.results["test"]["samples"] == 6


def test_a_calibration_stays_with_its_weights(tmp_path):
    made = trainer(tmp_path / "run")
    made.train()
    folder = RunFolder(tmp_path / "run")
    before = folder.finished_record()
    calibration = Calibration.fit(torch.eye(3)[[0, 1, 2, 0]].numpy(), [0, 1, 2, 1], before.class_statistics["counts"])
    folder.write_calibration(calibration)
    folder.write_record(replace(before, results={**before.results, "balanced_prior": before.results["test"]}))
    again = trainer(tmp_path / "run")
    again.train(resume_from_checkpoint=True)  # it had ended
    assert folder.calibration == calibration and "balanced_prior" in folder.finished_record().results
    again.save_run(rows((1, 1, 1)))  # what it makes of another test nobody has measured
    assert folder.calibration == calibration and "balanced_prior" not in folder.finished_record().results
    trainer(tmp_path / "run", learning_rate=2e-3).train()
    assert folder.calibration is None


def test_what_comes_after_the_training_is_what_it_was(tmp_path):
    """The next random number, the model's mode, weights, logs: as if nothing had been saved."""
    seen = []
    for name, save in (("with", True), ("without", False)):
        made = trainer(tmp_path / name, save_run=save, logging_steps=1)
        made.train()
        logs = [
            {k: v for k, v in entry.items() if "runtime" not in k and "second" not in k}
            for entry in made.state.log_history
        ]
        weights = [p.detach().clone() for p in made.model.parameters()]
        seen.append((torch.rand(1).item(), made.model.training, logs, made.train().metrics["train_loss"], weights))
    (with_run, without) = seen
    assert with_run[:4] == without[:4] and with_run[1]  # in training mode, as stock leaves it
    assert all(map(torch.equal, with_run[4], without[4]))
    checkpoints = [files(tmp_path / name / "checkpoint-2") for name in ("with", "without")]
    assert checkpoints[0] == checkpoints[1]


def test_an_interrupted_training_is_no_run(tmp_path):
    class Interrupted(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            raise KeyboardInterrupt

    made = trainer(tmp_path / "run")
    made.add_callback(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert "metrics.json" not in files(tmp_path / "run")


def test_trainers_without_classes_leave_what_stock_does(tmp_path):
    class Sam(SamTrainerMixin, DurableTrainer):
        pass

    for cls in (DurableTrainer, Sam):
        folder = tmp_path / cls.__name__
        torch.manual_seed(0)
        made = cls(
            Tiny(TinyConfig(num_labels=3)),
            TrainingArguments(**settings(folder)),
            train_dataset=rows(),
            eval_dataset=rows(),
        )
        made.train()
        assert not files(folder) & RUN


def test_the_folder_of_those_who_state_none_is_transformers():
    assert TrainingArguments(use_cpu=True).output_dir == NO_FOLDER


@pytest.mark.parametrize("stated", [None, ["one", "two", "three"]], ids=["of the data", "of the model"])
def test_every_checkpoint_names_the_classes(stated, tmp_path):
    """Also before the run is saved: a model that names none is given those of the training set."""
    data = Dataset.from_list([{"inputs": row["inputs"].tolist(), "labels": row["labels"]} for row in rows()])
    data = data.cast_column("labels", ClassLabel(names=["cat", "dog", "owl"])).with_format("torch")
    names = {} if stated is None else {"id2label": dict(enumerate(stated))}
    model = Tiny(TinyConfig(num_labels=3, **names))
    args = LTSamConfig(**settings(tmp_path, save_strategy="steps", save_steps=1, save_run=False))
    made = LTSamTrainer(model, args, train_dataset=data)
    made.train()
    made.save_model(str(tmp_path / "last"))
    for folder in ("checkpoint-1", "checkpoint-2", "last"):
        saved = TinyConfig.from_pretrained(tmp_path / folder)
        assert list(saved.id2label.values()) == (stated or ["cat", "dog", "owl"]), folder
        assert stated or saved.label2id == {name: c for c, name in saved.id2label.items()}


@pytest.mark.parametrize(
    ("optimizer", "args", "named"),
    [
        (torch.optim.Adagrad, {"lr": 0.1}, "Adagrad"),
        (torch.optim.AdamW, {"lr": 0.1}, "AdamW"),  # the settings' by its class, not by its rate
        (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.3, "fused": True}, "AdamW"),
        (None, {}, None),
    ],
)
def test_an_optimizer_that_was_passed_is_named_in_the_record_and_not_by_the_settings(optimizer, args, named, tmp_path):
    made = trainer(tmp_path / "run", method="sgd", optim="adamw_torch_fused")
    if optimizer is not None:
        made.optimizer = optimizer(made.model.parameters(), **args)
    made.train()
    folder = RunFolder(tmp_path / "run")
    record, recipe = folder.finished_record(), yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    stated = {"optim": "adamw_torch_fused", "learning_rate": 1e-3} if named is None else {}
    assert {name: recipe[name] for name in ("optim", "learning_rate", "weight_decay") if name in recipe} == stated
    assert (record.optimizer.get("name"), record.optimizer.get("args", {}).get("lr")) == (named, args.get("lr"))
    experiment = experiment_of(record, folder.recipe)
    assert experiment.get("optim") == (named or "adamw_torch_fused")
    assert experiment.get("learning_rate") == (1e-3 if named is None else None)  # nor the default of the settings
    assert (
        f"| optimizer | `{named}` | `lr`: {args.get('lr')}, " in hyperparameters_table(read_facts(tmp_path / "run"))
        or named is None
    )


class Poly(torch.nn.Module):
    """A loss of the user's own, with a number, a list, a weight, and a counter that is hidden."""

    def __init__(self, epsilon, powers=(1,)):
        super().__init__()
        self.epsilon, self.powers, self._drawn = epsilon, list(powers), random.random()
        self.note, self.parts, self.seen = 34 * "a", [scaled, Path("x")], [0.0] * 1000  # none of which is written
        self.register_buffer("weight", torch.ones(3))

    def forward(self, logits, labels, statistics):
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none") * (1 + self.epsilon)


def scaled(logits, labels, statistics, factor=1.0):
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none") * factor


def deeper(*widths):
    def change(model):
        sizes = (4, *widths, 3)
        model.linear = torch.nn.Sequential(*(torch.nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)))

    return change


def prefixed(scale, logits, labels, statistics):
    return scaled(logits, labels, statistics, scale)


class Counting(Poly):
    """It counts what it has seen, which another seed or a resumed training counts otherwise."""

    def __init__(self):
        super().__init__(0.0)
        self.count = 0.0

    def forward(self, logits, labels, statistics):
        self.count += float(logits.detach().sum())
        return super().forward(logits, labels, statistics)


def adamw(head=None, **args):
    """The one of the settings, as stock makes it, but for the arguments; `head` are those of the last weight's group."""

    def make(model):
        *body, last = model.parameters()
        groups = [{"params": body, "weight_decay": 0.0}, {"params": [last], "weight_decay": 0.0, **(head or {})}]
        return torch.optim.AdamW(groups, **{"lr": 1e-3, "fused": True, **args})

    return make


def frozen(model):
    model.linear.bias.requires_grad_(False)


def sgd(**args):
    return lambda model: torch.optim.SGD(model.parameters(), **args)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({}, {}, True),
        ({}, {"change": deeper(5)}, False),
        ({"change": deeper(1, 6)}, {"change": deeper(2, 4)}, False),  # the same names, and as many weights
        ({}, {"change": frozen}, False),
        ({}, {"optimizer": sgd(lr=0.1)}, False),
        ({"optimizer": sgd(lr=0.1)}, {"optimizer": sgd(lr=0.2)}, False),
        ({"optimizer": sgd(lr=0.1)}, {"optimizer": sgd(lr=0.1)}, True),
        ({"optimizer": sgd(lr=1e-3)}, {"optimizer": sgd(lr=1e-3, momentum=0.9)}, False),
        ({}, {"optimizer": adamw()}, True),
        ({}, {"optimizer": adamw({"lr": 1.0})}, False),
        ({}, {"optimizer": adamw({"weight_decay": 0.3})}, False),
        ({}, {"optimizer": adamw(amsgrad=True)}, False),
        ({"optimizer": sgd(lr=torch.tensor(0.1))}, {"optimizer": sgd(lr=torch.tensor(0.2))}, False),
        ({"loss": Poly(0.0)}, {"loss": Poly(0.5)}, False),
        ({"loss": Poly(0.5, (1,))}, {"loss": Poly(0.5, (1, 2))}, False),
        ({"loss": Poly(0.5)}, {"loss": Poly(0.5)}, True),
        ({"loss": partial(scaled, factor=2.0)}, {"loss": partial(scaled, factor=3.0)}, False),
        ({"loss": partial(scaled, factor=2.0)}, {"loss": partial(scaled, factor=2.0)}, True),
        ({"loss": partial(prefixed, 2.0)}, {"loss": partial(prefixed, 3.0)}, False),
        ({"loss": partial(Poly(1.0))}, {"loss": partial(Poly(2.0))}, False),
        ({"loss": Poly(0.5)}, {"loss": Poly(0.5).eval()}, True),
        ({"loss": Counting()}, {"loss": Counting()}, True),
    ],
)
def test_runs_made_in_python_are_told_apart_by_what_made_them(first, second, same, tmp_path):
    experiments = []
    for seed, given in enumerate((first, second)):
        folder = tmp_path / f"run{seed}"
        made = trainer(folder, seed=seed, own={"loss": given["loss"]} if "loss" in given else None)
        given.get("change", lambda _: None)(made.model)
        if "optimizer" in given:
            made.optimizer = given["optimizer"](made.model)
        made.train()
        experiments.append(experiment_of(RunFolder(folder).finished_record(), RunFolder(folder).recipe))
    assert (experiments[0] == experiments[1]) == same
    assert "aaaa" not in (tmp_path / "run0" / "metrics.json").read_text()


@pytest.mark.parametrize(("rate", "stated", "said"), [(0.7, 1e-3, "optimizer: "), (0.1, 5.0, None)])
def test_a_passed_optimizer_is_compared_by_its_own_arguments_on_a_checkpoint(rate, stated, said, tmp_path):
    """The checkpoint's would train on; what the settings state of an optimizer never acted."""
    first = trainer(tmp_path / "run")
    first.optimizer = sgd(lr=0.1)(first.model)
    first.train()
    second = trainer(tmp_path / "run", learning_rate=stated)
    second.optimizer = sgd(lr=rate)(second.model)
    with nullcontext() if said is None else pytest.raises(ValueError, match=said):
        second.train(resume_from_checkpoint=True)


def test_another_own_loss_on_a_checkpoint_is_warned_of_and_a_registered_one_refused(tmp_path, caplog):
    """What an object counts or collects changes as well: it refuses nothing."""
    before, after = ({"loss": describe(LOSSES, Poly(epsilon))} for epsilon in (0.0, 50.0))
    save_identity(tmp_path, before)
    with caplog.at_level("WARNING"):
        check_identity(tmp_path, {"loss": describe(LOSSES, Poly(0.0))})
    assert not caplog.records
    with caplog.at_level("WARNING"):
        check_identity(tmp_path, after)
    assert "loss epsilon: 0.0 in the checkpoint, 50.0 now" in caplog.text
    with pytest.raises(ValueError, match=r"loss: .*Poly.* in the checkpoint, .*scaled.* now"):
        check_identity(tmp_path, {"loss": describe(LOSSES, scaled)})
