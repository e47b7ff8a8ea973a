"""Half precision with a gradient scaler, and steps that are not taken."""

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.methods import METHODS

ARGS = {
    "max_steps": 8,
    "per_device_train_batch_size": 4,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "learning_rate": 0.1,
    "lr_scheduler_type": "linear",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "max_grad_norm": 0.0,
}
METHOD_ARGS = {"cc_sam": {"scale": 0.5, "mix": 0.5}, "sse_sam": {"gamma": 0.5}}


class HalfGradients(torch.autograd.Function):
    """The identity, whose gradient passes through float16 as in mixed precision on an accelerator."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g.half().to(g.dtype)


class Net(nn.Module):
    def __init__(self, *, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.classifier = nn.Linear(6, 7), nn.Linear(7, 4)
        self.norm = nn.BatchNorm1d(7) if norm else nn.Identity()

    def forward(self, x, labels=None):
        logits = self.classifier(HalfGradients.apply(torch.tanh(self.norm(self.first(x)))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if labels is not None else {"logits": logits}


class Points(Dataset):
    def __init__(self, poisoned=()):
        self.x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
        for index in poisoned:
            self.x[index, 2] = torch.nan
        self.labels = [[0, 0, 0, 1, 0, 2, 1, 3][i % 8] for i in range(32)]

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.labels[index]}


class Watch(TrainerCallback):
    """Scale of the scaler, weights, learning rate and buffers after every step."""

    def __init__(self):
        self.trainer, self.scales, self.weights, self.rates, self.statistics, self.memories = None, [], [], [], [], []

    def on_step_end(self, args, state, control, model, optimizer, lr_scheduler, **_):
        scaler = self.trainer.accelerator.scaler
        self.scales.append(None if scaler is None else scaler.get_scale())
        self.weights.append([p.detach().clone() for p in model.parameters()])
        self.statistics.append([b.clone() for b in model.buffers()])
        self.rates.append(lr_scheduler.get_last_lr()[0])
        if isinstance(self.trainer, LTSamTrainer):
            self.memories.append(
                {k: list(v) if isinstance(v, list) else v for k, v in self.trainer.method_memory.values.items()}
            )


def train(kind, folder, scale=None, data=None, norm=False, callbacks=(), **settings):
    config = LTSamConfig if issubclass(kind, LTSamTrainer) else TrainingArguments
    watch = Watch()
    method = settings.get("method")
    args = config(
        output_dir=str(folder),
        **{**ARGS, **settings},
        **({"method_args": METHOD_ARGS.get(method), "tail_threshold": 4} if method else {}),
    )
    trainer = kind(Net(norm=norm), args, train_dataset=data or Points(), callbacks=[watch, *callbacks])
    if scale is not None:
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
    watch.trainer = trainer
    trainer.train()
    return trainer, watch


TOO_LARGE = 2.0**22  # gradients of about 0.1 overflow float16 above 2^19


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"max_grad_norm": 0.1}], ids=str)
def test_plain_sgd_scales_and_skips_as_the_stock_trainer_does(settings, tmp_path):
    """Momentum, schedule and scale history, bit for bit. (The stock optimizer decays no bias: there is no decay here.)"""
    _, stock = train(Trainer, tmp_path, TOO_LARGE, **settings)
    _, ours = train(LTSamTrainer, tmp_path, TOO_LARGE, method="sgd", **settings)
    assert ours.scales == stock.scales
    assert ours.rates == stock.rates
    assert ours.scales[0] < TOO_LARGE, "there was no overflow"
    assert any(a < b for a, b in zip(ours.scales, ours.scales[1:])), "the scale never grew"
    for a, b in zip(ours.weights, stock.weights, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_skipped_step_leaves_weights_and_memory_alone(method, accumulation, tmp_path):
    settings = {"method": method, "gradient_accumulation_steps": accumulation}
    _, seen = train(LTSamTrainer, tmp_path, TOO_LARGE, **settings)
    skipped = [k for k in range(8) if seen.scales[k] < ([TOO_LARGE, *seen.scales])[k]]
    assert 0 in skipped
    assert len(skipped) < 8
    start = [p.detach().clone() for p in Net().parameters()]
    for k in skipped:
        before = start if k == 0 else seen.weights[k - 1]
        assert all(torch.equal(a, b) for a, b in zip(seen.weights[k], before))
        assert_same_memory(seen.memories[k], seen.memories[k - 1] if k else {})
    assert all(w.isfinite().all() for w in seen.weights[-1])


def assert_same_memory(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        same = all(map(torch.equal, value, b[key])) if isinstance(value, list) else value == b[key]
        assert same, key


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_cancels(method, tmp_path):
    """With a scale that nothing overflows at, training is that without a scaler, up to float16's rounding."""
    _, plain = train(LTSamTrainer, tmp_path, method=method, max_steps=4)
    _, scaled = train(LTSamTrainer, tmp_path, 1024.0, method=method, max_steps=4)
    start = torch.cat([p.detach().flatten() for p in Net().parameters()])
    a, b = (torch.cat([p.flatten() for p in w.weights[-1]]) - start for w in (plain, scaled))
    assert (a - b).norm() < 5e-3 * a.norm()


def test_small_gradients_survive_only_under_the_scale(tmp_path):
    """Losses of 1e-7 vanish in float16, and with them SAM's direction; scaled, the direction is the one of float32."""

    def tiny(logits, labels, statistics):
        return 1e-7 * nn.functional.cross_entropy(logits, labels, reduction="none")

    def direction(scale):
        seen = []

        class Gradient(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model, **_):
                seen.append(model.first.weight.grad.clone())

        args = LTSamConfig(output_dir=str(tmp_path), method="sam", method_args={"rho": 0.5}, **{**ARGS, "max_steps": 1})
        trainer = LTSamTrainer(Net(), args, train_dataset=Points(), loss=tiny, callbacks=[Gradient()])
        if scale:
            trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer.train()
        return seen[0] / (scale or 1)

    lost, kept = direction(None), direction(2.0**24)
    assert kept.norm() > 0
    assert (lost - kept).norm() > 0.1 * kept.norm()


def test_an_ascent_that_is_not_finite_perturbs_nothing(tmp_path):
    """Only the tail's gradient overflows, so ImbSAM has no direction; the step is the plain one."""
    from hf_ltsam.landscape.landscape import LossLandscape, MicroBatch
    from hf_ltsam.landscape.vector import WeightVector
    from hf_ltsam.landscape.weights import TrainableWeights

    net, data = Net(), Points()
    batch = MicroBatch({"x": data.x[:8]}, torch.tensor(data.labels[:8]))
    landscape = LossLandscape(
        TrainableWeights(net),
        [batch],
        lambda b: net(**b.inputs)["logits"],
        lambda z, b: nn.functional.cross_entropy(z, b.labels, reduction="none"),
    )
    infinite = WeightVector([torch.full_like(p, torch.inf) for p in net.parameters()])
    undefined = 0.05 * infinite.unit()
    for g, plain in zip(landscape.gradient(at=undefined).tensors, landscape.gradient().tensors):
        assert torch.equal(g, plain)


# ---- samples that are not finite ----


def poisoned_steps(seen):
    before = [[p.detach() for p in Net().parameters()], *seen.weights]
    return [k for k in range(8) if all(torch.equal(a, b) for a, b in zip(before[k], before[k + 1]))]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 2, "ascent_scope": "step"},
        {"ascent_size": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(("scale", "bad"), [(None, 13), (None, 5), (64.0, 5)])
def test_a_sample_that_is_not_a_number_is_named_and_its_step_skipped(scale, bad, settings, tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        trainer, seen = train(LTSamTrainer, tmp_path, scale, data=Points([bad]), norm=True, method="msam", **settings)
    named = [r.getMessage() for r in caplog.records if "is skipped" in r.getMessage()]
    epochs = 2 if settings.get("gradient_accumulation_steps") else 1
    assert len(named) == epochs
    assert all("loss nan" in message and str(bad) in message.replace(",", "").rstrip(".").split() for message in named)
    assert len(named[0].split("samples ")[1].split(", ")) == (8 if "ascent_scope" in settings else 4)
    assert trainer.state.log_history[-2]["skipped_steps"] == epochs
    assert all(w.isfinite().all() for w in [*seen.weights[-1], *seen.statistics[-1]])
    (step,) = [int(m.split()[1]) for m in named[:1]]
    if step:
        assert_same_memory(seen.memories[step], seen.memories[step - 1])
        assert all(map(torch.equal, seen.statistics[step], seen.statistics[step - 1]))
        assert all(map(torch.equal, seen.weights[step], seen.weights[step - 1]))
    else:
        assert seen.memories[0] == {}


def test_too_many_in_a_row_end_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match=r"Step 2 .*That is 3 in a row.*max_skipped_steps=3"):
        train(LTSamTrainer, tmp_path, data=Points(range(32)), method="sam", max_skipped_steps=3)


def test_not_in_a_row(tmp_path):
    """Three of eight batches are bad; never three one after another with this order."""
    trainer, _ = train(LTSamTrainer, tmp_path, data=Points([3, 30]), method="sam", max_skipped_steps=3, max_steps=16)
    assert 2 <= trainer.state.log_history[-2]["skipped_steps"] <= 4


def test_the_memory_is_put_back_before_a_checkpoint_is_written(tmp_path):
    train(LTSamTrainer, tmp_path, 2.0**30, method="msam", max_steps=2, save_strategy="steps", save_steps=1)
    saved = list(tmp_path.glob("checkpoint-*/method_memory.pt"))
    assert not saved, "both steps overflowed: there is nothing to remember"
