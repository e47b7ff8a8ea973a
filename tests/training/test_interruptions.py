"""What happens in the middle of a step, through the trainer."""

import os
import signal
import sys

import pytest
import torch
from forked import call, free_port, rank_environment
from safetensors.torch import load_file
from time_limits import PATIENCE
from torch import nn
from transformers import TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.methods import METHODS

CLASSES = 3


def images(n=8):
    torch.manual_seed(1)
    return [{"pixel_values": torch.randn(3, 8, 8), "labels": i % CLASSES} for i in range(n)]


def trainer(folder, model, method="sam", callbacks=None, **settings):
    args = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "tail_threshold": 2,
        **settings,
    }
    method_args = {"rho": 1.0} if method == "sam" else None
    return LTSamTrainer(
        model, LTSamConfig(method=method, method_args=method_args, **args), train_dataset=images(), callbacks=callbacks
    )


def resnet():
    torch.manual_seed(0)
    return CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=CLASSES))


class InPass(nn.Module):
    """Does something inside the k-th forward pass."""

    def __init__(self, k, action):
        super().__init__()
        self.k, self.action, self.passes = k, action, 0

    def __call__(self, module, args):
        self.passes += 1
        if self.passes == self.k:
            self.action()


def test_ctrl_c_in_the_second_pass_leaves_the_weights_of_the_step_before(tmp_path):
    model = resnet()
    before = [p.detach().clone() for p in model.parameters()]
    model.register_forward_pre_hook(InPass(2, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, model).train()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before))
    assert all(p.grad is None for p in model.parameters())


def test_a_signal_handler_that_saves_in_a_perturbed_pass_saves_unperturbed_weights(tmp_path):
    model = resnet()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    running = trainer(tmp_path / "run", model)
    inside = {}

    def save(*_):
        inside["weight"] = next(model.parameters()).detach().clone()
        running.save_model(str(tmp_path / "trainer"))
        model.save_pretrained(tmp_path / "model")
        running._save_checkpoint(model, None)

    previous = signal.signal(signal.SIGUSR1, save)
    try:
        model.register_forward_pre_hook(InPass(2, lambda: signal.raise_signal(signal.SIGUSR1)))
        running.train()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert not torch.equal(inside["weight"], next(iter(before.values()))), "the pass was not perturbed"
    for folder in ("trainer", "model", "run/checkpoint-0"):
        saved = load_file(tmp_path / folder / "model.safetensors")
        assert all(torch.equal(saved[name], value) for name, value in before.items()), folder


def test_callbacks_see_unperturbed_weights(tmp_path):
    class Norms(TrainerCallback):
        def __init__(self):
            self.seen = []

        def on_pre_optimizer_step(self, args, state, control, model, **_):
            self.seen.append(next(model.parameters()).detach().clone())

    model, norms = resnet(), Norms()
    before = next(model.parameters()).detach().clone()
    trainer(tmp_path, model, callbacks=[norms], max_steps=1).train()
    assert torch.equal(norms.seen[0], before)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_activation_checkpointing_accumulation_and_bf16(method, tmp_path):
    def vit():
        torch.manual_seed(0)
        return ViTForImageClassification(
            ViTConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=8,
                patch_size=4,
                num_labels=CLASSES,
                hidden_dropout_prob=0.1,
            )
        )

    def train(**settings):
        made = trainer(
            tmp_path, vit(), method, per_device_train_batch_size=4, gradient_accumulation_steps=2, **settings
        )
        made.train()
        return list(made.model.parameters())

    plain, checkpointed = train(), train(gradient_checkpointing=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed))
    rounded = train(bf16=True)
    difference = max((a - b).abs().max().item() for a, b in zip(plain, rounded))
    assert 0 < difference < 0.02


def test_what_is_saved_loads_with_transformers_alone(tmp_path):
    from transformers import AutoModelForImageClassification

    from hf_ltsam import ClassStatistics

    made = trainer(tmp_path / "run", resnet())
    made.train()
    made.save_model()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(x).logits, made.model.eval()(x).logits)
    assert ClassStatistics.load(tmp_path / "run") == made.class_statistics


def test_the_trainer_restores_where_the_landscape_could_not(tmp_path, monkeypatch):
    """A second interrupt may cut the landscape's own restoring short."""
    from hf_ltsam.landscape.weights import TrainableWeights

    model = resnet()
    before = [p.detach().clone() for p in model.parameters()]
    restore, calls = TrainableWeights.restore, []

    def interrupted_once(self):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        restore(self)

    monkeypatch.setattr(TrainableWeights, "restore", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, model).train()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sam", "focal_sam"])
def test_a_compiled_model_trains_alike(method, tmp_path):
    plain, compiled = (
        trainer(tmp_path, resnet(), method),
        trainer(tmp_path, resnet(), method, torch_compile=True, torch_compile_backend="aot_eager"),
    )
    plain.train()
    compiled.train()
    for a, b in zip(plain.model.parameters(), compiled.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sam", "imbsam", "focal_sam", "cc_sam", "looksam"])
def test_the_passes_of_a_method_share_compiled_code(method, tmp_path):
    """One graph for passes that move batch norm's running statistics, one for those that do not."""
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    reset()
    counters.clear()
    settings = {"max_steps": 4, "per_device_train_batch_size": 4}
    trainer(tmp_path, resnet(), method, torch_compile=True, torch_compile_backend="eager", **settings).train()
    assert 1 <= counters["stats"]["unique_graphs"] <= 2


def test_an_exponential_moving_average_sees_unperturbed_weights(tmp_path):
    """torch's own, in a callback, as people write it."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    class Ema(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **_):
            self.mean, self.seen = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)), []

        def on_step_end(self, args, state, control, model, **_):
            self.mean.update_parameters(model)
            self.seen.append(next(model.parameters()).detach().clone())

    ema = Ema()
    trainer(tmp_path, resnet(), "sam", callbacks=[ema], max_steps=3).train()
    expected = ema.seen[0]  # the first update takes the weights as they are
    for weights in ema.seen[1:]:
        expected = 0.5 * expected + 0.5 * weights
    torch.testing.assert_close(next(ema.mean.parameters()).detach(), expected)


def test_the_memory_of_a_method_belongs_to_one_training(tmp_path):
    made = trainer(tmp_path, resnet())
    made.method_memory.values["left.over"] = torch.ones(1)
    made.train()
    assert "left.over" not in made.method_memory.values


def test_processes_that_would_each_train_alone_are_refused(tmp_path, monkeypatch):
    from hf_ltsam.training.durable_trainer import DurableTrainer

    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with monkeypatch.context() as launched:
        launched.setenv("LOCAL_RANK", "0")
        with pytest.raises(ValueError, match=r"2 processes were launched together, .*no GPU.*multi_cpu.yaml"):
            DurableTrainer(nn.Linear(2, 2), args)
    DurableTrainer(nn.Linear(2, 2), args)  # set by something that is no launcher


@pytest.mark.parametrize("rank", [0, 1])  # who opens the meeting point, and who looks for it
def test_a_process_that_does_not_come_is_not_waited_for_longer_than_the_time_out(rank, tmp_path):
    assert call(lonely, rank, free_port(), tmp_path / "log").wait(PATIENCE) == 1
    assert (
        "TimeoutError: Not all of 2 processes have come within ddp_timeout=1 seconds" in (tmp_path / "log").read_text()
    )


def lonely(rank, port, log):
    sys.stderr = log.open("w", buffering=1)
    os.environ |= rank_environment(rank, 2, port)
    LTSamConfig(str(log.parent / "run"), use_cpu=True, ddp_timeout=1, report_to="none")
