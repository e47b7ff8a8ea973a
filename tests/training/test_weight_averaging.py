"""Stochastic weight averaging against a mean of weights and running statistics made by hand."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import IterableDataset
from training.noisy_run import Model, noisy_trainer
from training.test_resume import assert_same
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.models.spectral_norm import normalise_spectrally, normalised_layers
from hf_ltsam.training.weight_averaging import WeightAveraging


class Snapshots(TrainerCallback):
    """The weights after every step, as they were before the end of the training."""

    def __init__(self):
        self.weights = {}

    def on_step_end(self, args, state, control, model, **_):
        self.weights[state.global_step] = {name: p.detach().clone() for name, p in model.named_parameters()}


class Rows:
    """Fixed vectors, so that a pass over them can be repeated."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels = [0] * 8 + [1] * 4 + [2] * 3
        self.x = torch.randn(15, 5, generator=generator) * 3 + 1

    def __len__(self):
        return 15

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.labels[index]}


class WithoutDropout(nn.Module):
    def __init__(self, batch_norm=True):
        super().__init__()
        torch.manual_seed(0)
        norm = [nn.BatchNorm1d(8)] if batch_norm else []
        self.body = nn.Sequential(nn.Linear(5, 8), *norm, nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.body(x)


def trainer_of(folder, model=None, trainer=LTSamTrainer, callbacks=(), **settings):
    args = {
        "output_dir": str(folder),
        "num_train_epochs": 4,
        "per_device_train_batch_size": 5,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "method": "sam",
        "swa_start": 0.5,
        "logging_steps": 1,
        **settings,
    }
    snapshots = Snapshots()
    config = LTSamConfig(**args)
    made = trainer(
        model or WithoutDropout(), config, train_dataset=Rows(), eval_dataset=Rows(), callbacks=[*callbacks, snapshots]
    )
    return made, snapshots.weights


def mean(weights, steps):
    return {name: torch.stack([weights[s][name].double() for s in steps]).mean(0) for name in weights[1]}


# 3 steps an epoch, 12 in all
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [6, 9, 12]),  # the ends of the epochs from the middle on
        ({"swa_start": 0.0}, [3, 6, 9, 12]),
        ({"swa_start": 0.51}, [9, 12]),
        ({"swa_interval": 2}, [6, 8, 10, 12]),
        ({"swa_interval": 5, "swa_start": 0.0}, [5, 10]),
        ({"swa_interval": 1, "swa_start": 0.9}, [11, 12]),
        ({"gradient_accumulation_steps": 2, "swa_start": 0.25}, [2, 4, 6, 8]),  # two steps an epoch, 8 in all
        ({"max_steps": 7, "swa_start": 0.4}, [3, 6]),
    ],
    ids=str,
)
def test_the_mean_of_the_weights(settings, steps, tmp_path):
    trainer, weights = trainer_of(tmp_path, **settings)
    trainer.train()
    for name, value in mean(weights, steps).items():
        torch.testing.assert_close(trainer.model.get_parameter(name).double(), value, rtol=0, atol=1e-6)
    assert trainer.averaging.count == len(steps)
    last = max(weights)
    assert not torch.equal(trainer.model.body[0].weight, weights[last]["body.0.weight"]), (
        "the mean is not the last model"
    )


@pytest.mark.parametrize("accumulation", [1, 2])
def test_batch_norm_is_refreshed_over_the_training_data(accumulation, tmp_path):
    """Every batch's mean and unbiased variance, averaged over the batches of one epoch."""
    trainer, _ = trainer_of(tmp_path, gradient_accumulation_steps=accumulation)
    seen = []
    trainer.model.body[0].register_forward_hook(lambda module, x, out: seen.append(out.detach()))
    trainer.train()
    batches = seen[-3:]  # the last forward passes of all
    assert sorted(len(b) for b in batches) == [5, 5, 5] and len(set(torch.cat(batches)[:, 0].tolist())) == 15
    norm = trainer.model.body[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.1 and norm.num_batches_tracked == 3
    expected = trainer.model.body[0].weight @ Rows().x.T + trainer.model.body[0].bias[:, None]
    torch.testing.assert_close(torch.cat(batches).sum(0), expected.sum(1))  # of the averaged weights, all samples


def test_without_batch_norm_there_is_no_pass_at_the_end(tmp_path):
    trainer, weights = trainer_of(tmp_path, WithoutDropout(batch_norm=False), method="sgd")
    calls = []
    trainer.model.register_forward_hook(lambda *_: calls.append(1))
    trainer.train()
    assert len(calls) == 12
    for name, value in mean(weights, [6, 9, 12]).items():
        torch.testing.assert_close(trainer.model.get_parameter(name).double(), value, rtol=0, atol=1e-6)


def test_frozen_weights_stay_bit_for_bit_and_cost_no_copy(tmp_path):
    model = WithoutDropout()
    model.body[0].requires_grad_(False)
    before = model.body[0].weight.clone()
    trainer, weights = trainer_of(tmp_path, model)
    trainer.train()
    assert torch.equal(trainer.model.body[0].weight, before)
    assert not any("body.0" in name for name in trainer.averaging.mean_state()["names"])
    value = mean(weights, [6, 9, 12])["body.3.weight"]
    torch.testing.assert_close(trainer.model.body[3].weight.double(), value, rtol=0, atol=1e-6)


def test_bfloat16_weights_are_averaged_in_float32(tmp_path):
    trainer, weights = trainer_of(tmp_path, WithoutDropout().bfloat16(), swa_interval=1, swa_start=0.0)
    trainer.train_dataset.x = trainer.train_dataset.x.bfloat16()
    trainer.train()
    assert all(p.dtype == torch.float32 for p in trainer.averaging._mean.parameters())
    for name, value in mean(weights, range(1, 13)).items():
        assert torch.equal(trainer.model.get_parameter(name), value.bfloat16()) or torch.allclose(
            trainer.model.get_parameter(name).double(), value, rtol=2**-8, atol=1e-6
        )


def test_training_itself_is_not_changed(tmp_path):
    plain, expected = trainer_of(tmp_path, swa_start=None)
    plain.train()
    trainer, weights = trainer_of(tmp_path)
    trainer.train()
    assert all(torch.equal(weights[12][name], expected[12][name]) for name in expected[12])


def test_what_is_evaluated_and_saved_is_the_mean(tmp_path):
    at_the_end = []

    class Last(TrainerCallback):
        def on_train_end(self, args, state, control, model, **_):
            at_the_end.append(copy.deepcopy(model.state_dict()))

    trainer, _ = trainer_of(tmp_path, callbacks=[Last()])
    trainer.train()
    trainer.save_model()
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "model.safetensors")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(saved[name], value) and torch.equal(at_the_end[0][name], value)


def test_averaged_adapters(tmp_path):
    model = get_peft_model(WithoutDropout(), LoraConfig(target_modules=["body.0", "body.3"], r=2))
    trainer, weights = trainer_of(tmp_path, model)
    trainer.train()
    names = trainer.averaging.mean_state()["names"]
    assert len(names) == 4 and all("lora" in name for name in names)
    for name, value in mean(weights, [6, 9, 12]).items():
        torch.testing.assert_close(trainer.model.get_parameter(name).double(), value, rtol=0, atol=1e-6)


def test_the_power_iteration_follows_the_mean(tmp_path):
    model = WithoutDropout(batch_norm=False)
    normalise_spectrally(model, ["body.0"], iterations=5)
    trainer, _ = trainer_of(
        tmp_path, model, optim="sgd", optim_args="momentum=0.9", max_grad_norm=0.0, learning_rate=1.0
    )
    trainer.train()
    assert normalised_layers(trainer.model.eval())
    assert torch.linalg.svdvals(trainer.model.body[0].weight)[0].item() == pytest.approx(1, abs=1e-3)


# --- killed and resumed ----------------------------------------------------------------------------------------------


# before the mean, at its first model, in mid-epoch, after the last step: 6 steps an epoch, 24 in all
@pytest.mark.parametrize(("interval", "steps"), [(None, (4, 12, 16, 24)), (3, (16,))])
def test_resumes_bit_for_bit(interval, steps, tmp_path):
    """Dropout and batch norm, and random numbers in the data."""
    settings = {"swa_start": 0.5, "swa_interval": interval, "swa_learning_rate": 0.02}
    whole = noisy_trainer(tmp_path, **settings)
    whole.train()
    for step in steps:
        resumed = noisy_trainer(tmp_path, **settings, save_strategy="no")
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_same(resumed.model, whole.model)
        ours, theirs = (t.averaging.mean_state()["mean"] for t in (resumed, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if interval is None:  # and by the same trainer, which has a mean already
        expected = copy.deepcopy(whole.model)
        whole.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert_same(whole.model, expected)


def test_the_mean_comes_back_from_its_file_bit_for_bit(tmp_path):
    noisy_trainer(tmp_path, swa_start=0.25, max_steps=16).train()
    saved = torch.load(tmp_path / "checkpoint-16" / "weight_average.pt", weights_only=True)
    assert saved["mean"]["n_averaged"] == 2  # after steps 6 and 12
    assert not (tmp_path / "checkpoint-4" / "weight_average.pt").exists()
    averaging = WeightAveraging(0.25)
    averaging.load_mean_state(saved, Model())
    again = averaging.mean_state()
    assert again["names"] == saved["names"] and averaging.count == 2
    assert all(torch.equal(again["mean"][name], value) for name, value in saved["mean"].items())


def test_without_its_file_a_resumed_run_is_refused(tmp_path):
    noisy_trainer(tmp_path, swa_start=0.0, max_steps=8).train()
    (tmp_path / "checkpoint-8" / "weight_average.pt").unlink()
    with pytest.raises(ValueError, match=r"weight_average\.pt is missing"):
        noisy_trainer(tmp_path, swa_start=0.0, max_steps=8).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("change", [{"swa_start": 0.6}, {"swa_interval": 2}, {"swa_start": None}])
def test_other_settings_are_another_run(change, tmp_path):
    noisy_trainer(tmp_path, swa_start=0.5, max_steps=6).train()
    with pytest.raises(ValueError, match="weight_averaging: "):
        noisy_trainer(tmp_path, **{"swa_start": 0.5, **change}).train(resume_from_checkpoint=True)


def test_a_second_training_starts_a_new_mean(tmp_path):
    trainer, weights = trainer_of(tmp_path)
    trainer.train()
    trainer.train()
    assert trainer.averaging.count == 3
    for name, value in mean(weights, [6, 9, 12]).items():  # the callback noted the second training's
        torch.testing.assert_close(trainer.model.get_parameter(name).double(), value, rtol=0, atol=1e-6)


# --- the learning rate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule", [{"lr_milestones": [0.25]}, {"lr_scheduler_type": "linear", "warmup_steps": 2}], ids=str
)
def test_a_constant_learning_rate_from_the_start_of_the_averaging(schedule, tmp_path):
    rates = []
    for rate in (None, 0.02):
        trainer, _ = trainer_of(tmp_path, swa_learning_rate=rate, **schedule)
        trainer.train()
        rates.append([log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log])
    assert rates[1][:6] == rates[0][:6] and rates[1][6:] == pytest.approx([0.02] * 6) != rates[0][6:]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"swa_start": 1.0}, r"LTSamConfig\(swa_start=\.\.\.\) must be in \[0, 1\), got 1\.0"),
        ({"swa_start": 160}, r"swa_start=.*160"),
        ({"swa_interval": 0}, r"swa_interval=.*at least 1, got 0"),
        ({"swa_learning_rate": 0.0}, r"swa_learning_rate=.*positive.*0\.0"),
        ({"swa_start": None, "swa_interval": 5}, r"swa_interval=5.*set swa_start as well"),
        ({"swa_start": None, "swa_learning_rate": 0.1}, r"swa_learning_rate=0\.1.*set swa_start as well"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"},
            r"load_best_model_at_end=True\) does not go with swa_start",
        ),
    ],
)
def test_settings_that_cannot_be(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"swa_interval": 100},
            r"of 12 steps, none from start=0\.5 on is a multiple of 100 \(interval\).*swa_interval",
        ),
        ({"swa_interval": 7, "swa_start": 0.6}, r"multiple of 7"),
        ({"max_steps": 2}, r"multiple of 3 \(one epoch\)"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "swa_learning_rate": 0.1, "eval_strategy": "epoch"},
            r"makes a ReduceLROnPlateau",
        ),
    ],
)
def test_refused_before_the_first_step(settings, message, tmp_path):
    trainer, weights = trainer_of(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert not weights


class Stream(IterableDataset):
    def __iter__(self):
        rows = Rows()
        while True:
            yield from (rows[i] for i in range(15))


def test_a_training_set_without_an_end(tmp_path):
    """Averaging by epochs is refused; by steps it works, and the statistics are those of as many batches as were seen."""
    for interval in (None, 2):
        trainer, _ = trainer_of(tmp_path, max_steps=6, swa_interval=interval)
        trainer.train_dataset = Stream()
        if interval is None:
            with pytest.raises(ValueError, match="no length: set swa_interval"):
                trainer.train()
    trainer.train()
    assert trainer.model.body[1].num_batches_tracked == 6


def test_thawing_while_weights_are_averaged(tmp_path):
    class Thaw(TrainerCallback):
        def on_step_begin(self, args, state, control, model, **_):
            if state.global_step == 7:
                model.body[0].requires_grad_(True)

    model = WithoutDropout()
    model.body[0].requires_grad_(False)
    trainer, _ = trainer_of(tmp_path, model, callbacks=[Thaw()])
    with pytest.raises(ValueError, match=r"'body\.0\.weight' was thawed while weights are averaged"):
        trainer.train()


def test_a_schedule_of_the_users_own_is_not_overwritten(tmp_path):
    model = WithoutDropout()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    args = LTSamConfig(
        output_dir=str(tmp_path), swa_start=0.5, swa_learning_rate=0.1, use_cpu=True, report_to="none", max_steps=6
    )
    with pytest.raises(ValueError, match="schedule of your own"):
        LTSamTrainer(model, args, train_dataset=Rows(), optimizers=(optimizer, LambdaLR(optimizer, lambda _: 1.0)))


def test_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="averaged once"):
        trainer_of(tmp_path, callbacks=[WeightAveraging(0.5)])


# --- without our trainer ---------------------------------------------------------------------------------------------


class WithLoss(WithoutDropout):
    def forward(self, x, labels=None):
        logits = super().forward(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_the_callback_works_in_the_stock_trainer(tmp_path):
    snapshots = Snapshots()
    args = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=4,
        per_device_train_batch_size=5,
        use_cpu=True,
        report_to="none",
        save_steps=6,
        disable_tqdm=True,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.01,
    )

    class NoLabels(WithLoss):
        def forward(self, x, labels=None):
            return super().forward(x, torch.zeros(len(x), dtype=torch.long) if labels is None else labels)

    def trainer():
        return Trainer(NoLabels(), args, train_dataset=Rows(), callbacks=[WeightAveraging(0.5), snapshots])

    trained = trainer()
    trained.train()
    for name, value in mean(snapshots.weights, [6, 9, 12]).items():
        torch.testing.assert_close(trained.model.get_parameter(name).double(), value, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="Resume with DurableTrainer or LTSamTrainer"):
        trainer().train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_stopped_before_there_is_a_mean(tmp_path, caplog):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = True

    trainer, weights = trainer_of(tmp_path, callbacks=[Stop()])
    trainer.train()
    assert torch.equal(trainer.model.body[0].weight, weights[1]["body.0.weight"])


def test_the_state_names_what_was_averaged(tmp_path):
    trainer, _ = trainer_of(tmp_path, save_strategy="epoch")
    trainer.train()
    saved = json.loads((tmp_path / "checkpoint-12" / "ltsam.json").read_text())
    assert saved["weight_averaging"] == {"start": 0.5, "interval": None}
