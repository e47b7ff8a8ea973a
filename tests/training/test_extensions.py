"""What people change in a trainer, by a subclass or after it is made: it holds, as in the stock Trainer, or is refused."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from training.noisy_run import COUNTS, Model, Noisy
from training.plain_run import trainer as durable_trainer
from training.toy import toy_trainer
from transformers.utils import logging

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer


def trainer(folder, kind=LTSamTrainer, model=Model, data=None, **settings):
    given = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        **settings,
    }
    return kind(model(), LTSamConfig(**given), train_dataset=Noisy() if data is None else data)


# Subclasses.


def test_prepare_inputs_sees_the_model_in_training_mode(tmp_path):
    modes = []

    class Watching(LTSamTrainer):
        def _prepare_inputs(self, inputs):
            modes.append(self.model.training)
            return super()._prepare_inputs(inputs)

    made = trainer(tmp_path, Watching)
    made.model.eval()
    made.train()
    assert modes == [True, True]


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3)
        self.in_channels_last = []

    def forward(self, pixel_values):
        self.in_channels_last.append(pixel_values.is_contiguous(memory_format=torch.channels_last))
        return self.layer(pixel_values).mean((2, 3))


@pytest.mark.parametrize("made_first", [True, False], ids=["before", "after"])
def test_images_of_a_subclass_are_in_channels_last_order(made_first, tmp_path):
    """Made before the trainer's own preparation, or after it."""

    def images(inputs):
        return {"pixel_values": inputs["x"][:, :3, None, None] * torch.ones(8, 8), "labels": inputs["labels"]}

    class Images(LTSamTrainer):
        def _prepare_inputs(self, inputs):
            prepare = super()._prepare_inputs
            return prepare(images(inputs)) if made_first else images(prepare(inputs))

    made = trainer(tmp_path, Images, Convolution, channels_last=True, method="sgd", remove_unused_columns=False)
    made.train()
    assert made.model.in_channels_last == [True, True]


def test_a_schedule_of_a_subclass_is_not_changed_silently(tmp_path):
    class Scheduled(LTSamTrainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            if self.lr_scheduler is None:
                self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: 1.0)
            return super().create_scheduler(num_training_steps, optimizer)

    averaged = {"swa_start": 0.5, "swa_interval": 1}
    trainer(tmp_path, Scheduled, **averaged).train()
    with pytest.raises(ValueError, match=r"swa_learning_rate=0\.02.*schedule of your own.*create_scheduler"):
        trainer(tmp_path, Scheduled, **averaged, swa_learning_rate=0.02).train()
    own = trainer(tmp_path, **averaged, swa_learning_rate=0.02)
    own.train()
    own.train()  # its schedule is made anew, and is not taken for another one


def test_a_sampler_of_a_subclass_is_asked_whatever_sampling_says(tmp_path):
    class InOrder(LTSamTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    made = trainer(tmp_path, InOrder, sampling="class_balanced")
    labels = torch.cat([batch["labels"] for batch in made.get_train_dataloader()])
    assert labels.tolist() == Noisy().labels


# Attributes and settings that are changed after the trainer is made.


def test_other_label_names(tmp_path):
    rows = [{"x": torch.randn(5), "target": i % 3} for i in range(8)]
    made = LTSamTrainer(
        Model(),
        LTSamConfig(
            str(tmp_path),
            use_cpu=True,
            report_to="none",
            optim="sgd",
            optim_args="momentum=0.9",
            max_grad_norm=0.0,
            learning_rate=0.1,
            max_steps=1,
            save_strategy="no",
        ),
        train_dataset=rows,
        class_statistics=ClassStatistics(COUNTS),
    )
    made.label_names = ["target"]
    made.train()
    assert made.evaluate(rows)["eval_loss"] > 0
    made.args.sampling = "class_aware"
    assert {"x", "target"} == set(next(iter(made.get_train_dataloader())))


def test_other_class_statistics(tmp_path):
    made = toy_trainer(tmp_path, "sam", logging_strategy="steps", logging_steps=1)
    made.class_statistics = ClassStatistics(
        [500, 400, 300, 200], many_above=100, few_below=20
    )  # all of them are "many"
    made.train()
    logs = made.state.log_history[0]
    assert "loss_many" in logs and "loss_few" not in logs


def test_telemetry_and_ascent_scope_are_read_when_it_trains(tmp_path, caplog):
    settings = {"logging_strategy": "steps", "logging_steps": 1}
    plain, silenced = (toy_trainer(tmp_path, "sam", **settings) for _ in range(2))
    joint = toy_trainer(tmp_path, "sam", gradient_accumulation_steps=2, per_device_train_batch_size=4)
    silenced.args.telemetry, joint.args.ascent_scope = False, "step"
    silenced.telemetry.perturbed_pass = silenced.telemetry.losses = None  # a call would fail: nothing is collected
    logging.enable_propagation()
    with caplog.at_level("WARNING"):
        for made in (plain, silenced):
            made.train()
    logging.disable_propagation()
    assert "sam_eps_norm" in plain.state.log_history[0] and "sam_eps_norm" not in silenced.state.log_history[0]
    assert "perturbed nothing" not in caplog.text
    joint.train()
    torch.testing.assert_close(joint.model.flat(), plain.model.flat(), rtol=1e-10, atol=1e-12)


# Columns that the model does not take.


@pytest.mark.parametrize("kind", ["durable", "ltsam"])
def test_unused_columns_are_not_read(kind, tmp_path):
    """An image that cannot be decoded, in a column that no model takes."""
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(
        {
            "x": torch.randn(8, 5).tolist(),
            "labels": [0, 1, 2, 0, 1, 2, 0, 1],
            "photo": [{"bytes": b"broken", "path": None}] * 8,
        }
    ).cast_column("photo", datasets.Image())
    if kind == "durable":
        made = durable_trainer(tmp_path, data=rows, max_steps=2, save_strategy="no")
    else:
        made = trainer(tmp_path, data=rows, remove_unused_columns=True)
    made.train()
    assert made.state.global_step == 2
