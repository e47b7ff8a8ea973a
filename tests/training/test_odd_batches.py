"""Batches and data sets at the edge, and callbacks that fail: named, or trained as they are."""

import pytest
import torch
from torch import nn
from training.noisy_run import Model, Noisy, noisy_trainer
from transformers import TrainerCallback, default_data_collator

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.methods import METHODS

STATISTICS = ClassStatistics([12, 7, 3], tail_threshold=6)


class Samples(Noisy):
    def __init__(self, *labels):
        self.labels = list(labels)


class NoBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.body(x)


def trainer(folder, dataset, model=None, collator=None, **settings):
    args = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        **settings,
    }
    return LTSamTrainer(model or Model(), LTSamConfig(**args), collator, dataset, class_statistics=STATISTICS)


def test_an_empty_batch_is_named(tmp_path):
    def empty(samples):
        return {name: value[:0] for name, value in default_data_collator(samples).items()}

    with pytest.raises(ValueError, match=r"The batch has no samples \('labels' has shape \(0,\)\)"):
        trainer(tmp_path, Noisy(), collator=empty).train()


def test_an_empty_training_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="The training set is empty"):
        trainer(tmp_path, Samples())
    with pytest.raises(ValueError, match="The training set is empty"):
        LTSamTrainer(Model(), LTSamConfig(output_dir=str(tmp_path), use_cpu=True), train_dataset=Samples())


def test_a_last_batch_of_one_sample_with_batch_norm(tmp_path, caplog):
    made = trainer(tmp_path / "run", Samples(0, 0, 0, 1, 2), save_strategy="steps", save_steps=1)
    with caplog.at_level("WARNING"), pytest.raises(ValueError, match="more than 1 value per channel") as raised:
        made.train()
    assert "5 samples in batches of 4 leave a last batch of one." in caplog.text, "said before the first step"
    assert f"{tmp_path / 'run' / 'checkpoint-1'} is complete" in raised.value.__notes__[-1]
    saved = trainer(tmp_path / "run", Samples(0, 0, 0, 1, 2))
    saved._load_from_checkpoint(str(tmp_path / "run" / "checkpoint-1"))
    for mine, theirs in zip(made.model.parameters(), saved.model.parameters()):
        assert torch.equal(mine, theirs), "the failing step left no trace in the weights"
    caplog.clear()
    with caplog.at_level("WARNING"):
        trainer(tmp_path / "other", Samples(0, 0, 0, 1, 2), NoBatchNorm()).train()
        trainer(tmp_path / "other", Samples(0, 0, 0, 1, 2), dataloader_drop_last=True).train()
    assert "last batch of one" not in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_never_occurs_and_a_data_set_smaller_than_a_batch(method, tmp_path):
    for dataset in (Samples(*[0] * 6, *[1] * 4), Samples(0, 1, 2)):
        made = trainer(tmp_path, dataset, NoBatchNorm(), method=method, per_device_train_batch_size=5, tail_threshold=6)
        made.train()
        assert made.state.global_step == made.state.max_steps > 0
        assert all(torch.isfinite(p).all() for p in made.model.parameters())


def test_nothing_is_left_when_the_only_batch_is_dropped(tmp_path):
    with pytest.raises(ValueError, match=r"leaves nothing of 3 training samples in batches of 4.* at most 3"):
        trainer(tmp_path, Samples(0, 1, 2), dataloader_drop_last=True).train()


class Fails(TrainerCallback):
    """In one of the trainer's events, at the second step."""

    def __init__(self, event):
        def fail(args, state, control, **_):
            if state.global_step >= 1:
                raise ConnectionError("the logger is not there")

        setattr(self, event, fail)


@pytest.mark.parametrize(
    "event",
    [
        "on_step_begin",
        "on_substep_end",
        "on_pre_optimizer_step",
        "on_optimizer_step",
        "on_step_end",
        "on_log",
        "on_save",
        "on_epoch_end",
    ],
)
def test_a_callback_that_fails_leaves_clean_weights_and_whole_checkpoints(event, tmp_path):
    settings = {"gradient_accumulation_steps": 2, "save_steps": 1, "logging_steps": 1, "max_steps": 4}
    whole = noisy_trainer(tmp_path / "whole", **settings)
    seen = Weights()
    whole.add_callback(seen)
    whole.train()
    failing = noisy_trainer(tmp_path / "run", callbacks=[Fails(event)], **settings)
    with pytest.raises(ConnectionError, match="not there"):
        failing.train()
    flat = torch.cat([p.detach().flatten() for p in failing.model.parameters()])
    assert any(torch.equal(flat, weights) for weights in seen.after), "the weights of a step, and not perturbed ones"
    resumed = noisy_trainer(tmp_path / "run", **settings)
    resumed.train(resume_from_checkpoint=bool(list((tmp_path / "run").glob("checkpoint-*"))))
    for (name, a), b in zip(resumed.model.state_dict().items(), whole.model.state_dict().values()):
        assert torch.equal(a, b), name


class Weights(TrainerCallback):
    """As they were at the beginning and after every step."""

    def __init__(self):
        self.after = []

    def on_step_begin(self, args, state, control, model, **_):
        self.after.append(torch.cat([p.detach().flatten() for p in model.parameters()]))

    on_step_end = on_step_begin
