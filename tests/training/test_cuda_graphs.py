"""`cuda_graphs`: the same training as without, by torch's own captures of kernels that run on the CPU (cuda_graphs_in_memory.py).

A captured pass reads inputs and weights where they lay when it was captured, with the modules in the state of that moment,
and leaves its logits and gradients in memory that the next replay overwrites.
"""

import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from training.cuda_graphs_in_memory import in_memory
from training.test_channels_last import METHOD_ARGS, Wide, trainer_of
from transformers import TrainerCallback

from hf_ltsam.landscape import graphs
from hf_ltsam.methods import METHODS
from hf_ltsam.training.refusals import settings as refusals


@pytest.fixture
def captures(monkeypatch):
    """The kinds of batch that were captured, by their sizes."""
    in_memory(monkeypatch)
    seen, capture = [], torch.cuda.make_graphed_callables

    def noted(module, inputs, **settings):
        seen.append(len(inputs[0]))
        return capture(module, inputs, **settings)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", noted)
    monkeypatch.setattr(refusals, "_check_graphs", lambda *_: None)
    return seen


def assert_alike(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(y, x, rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


def trained(folder, model=Wide, **settings):
    given = {"per_device_train_batch_size": 12, "max_steps": 8, "exact_rows": False, **settings}
    trainer = trainer_of(folder, model, **given)
    trainer.train()
    return trainer.model


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_alike(method, captures, tmp_path):
    settings = {"method": method, "method_args": METHOD_ARGS.get(method)}
    plain, replayed = (trained(tmp_path, cuda_graphs=c, max_steps=4, **settings) for c in (False, True))
    assert_alike(plain, replayed)
    assert captures


class Dropping(Wide):
    """With dropout, whose mask is the same in all passes of a step."""

    def forward(self, pixel_values):
        return nn.functional.dropout(super().forward(pixel_values), 0.5, self.training)


def test_a_capture_draws_no_random_numbers_and_moves_no_statistics(captures, tmp_path):
    plain, replayed = (trained(tmp_path, Dropping, cuda_graphs=c, method="sam") for c in (False, True))
    assert_alike(plain, replayed)
    assert set(captures) == {12, 4}  # the last batch of an epoch is a kind of its own


@pytest.mark.parametrize("what", ["a weight", "a norm"])
def test_what_is_frozen_on_the_way_stays(what, captures, tmp_path):
    class Freeze(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            if state.global_step == 4 and what == "a weight":
                model.inner.conv1.weight.requires_grad_(False)
            if (
                state.global_step >= 4 and what == "a norm"
            ):  # the Trainer puts the model into training mode at every step
                model.inner.bn1.train = lambda mode=True: model.inner.bn1
                model.inner.bn1.training = False

    def of(graphed):
        trainer = trainer_of(tmp_path, method="sam", cuda_graphs=graphed, max_steps=8, exact_rows=False)
        trainer.add_callback(Freeze())
        trainer.train()
        return trainer.model

    assert_alike(of(False), of(True))
    assert len(captures) == 4  # both passes, before and after


class Doubling(Wide):
    """Doubles the gradient of a weight."""

    def __init__(self):
        super().__init__()
        self.inner.conv1.weight.register_hook(lambda g: 2 * g)


class Hooked(Wide):
    def __init__(self):
        super().__init__()
        self.inner.bn1.register_forward_hook(lambda *_: None)


class HookedOnTheWayBack(Wide):
    def __init__(self):
        super().__init__()
        self.inner.bn1.register_full_backward_pre_hook(lambda *_: None)


class LayerDrop(Wide):
    def forward(self, pixel_values):
        scale = 2 if self.training and random.random() < 0.5 else 1
        return scale * super().forward(pixel_values)


class Counting(Wide):
    calls = 0

    def forward(self, pixel_values):
        self.calls += 1
        return super().forward(pixel_values) * (1 + self.calls / 10)


class Remembering(Wide):
    def forward(self, pixel_values):
        self.given = pixel_values
        return super().forward(pixel_values)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Doubling, "inner.conv1.weight has a hook"),
        (Hooked, r"BatchNorm2d \(inner.bn1\) has a hook"),
        (HookedOnTheWayBack, r"BatchNorm2d \(inner.bn1\) has a hook"),
        (LayerDrop, "LayerDrop draws random numbers on the CPU"),
        (Counting, r"calls of Counting \(the model\) is set in every pass"),
        (Remembering, r"given of Remembering \(the model\) is set in every pass"),
    ],
)
def test_a_pass_that_does_more_than_start_kernels_is_refused(model, words, captures, tmp_path):
    with pytest.raises(ValueError, match=words):
        trained(tmp_path, model, method="sgd", cuda_graphs=True)


class At(TrainerCallback):
    """Does something to the model before its sixth step, when the pass has been captured and replayed."""

    def __init__(self, change):
        self.change = change

    def on_step_begin(self, args, state, control, model=None, **_):
        if state.global_step == 5:
            self.change(model.inner.bn1)


def test_a_later_hook_is_refused(captures, tmp_path):
    trainer = trainer_of(tmp_path, method="sgd", cuda_graphs=True, max_steps=8)
    trainer.add_callback(At(lambda norm: norm.register_forward_hook(lambda *_: None)))
    with pytest.raises(ValueError, match=r"BatchNorm2d \(inner.bn1\) has a hook, which a replay would not call"):
        trainer.train()


def test_another_buffer_is_seen(captures, tmp_path):
    def replace(norm):
        norm.running_mean = torch.zeros_like(norm.running_mean)

    def of(graphed):
        trainer = trainer_of(tmp_path, method="sgd", cuda_graphs=graphed, max_steps=8, exact_rows=False)
        trainer.add_callback(At(replace))
        trainer.train()
        return trainer.model

    assert_alike(of(False), of(True))
    assert len(captures) == 2  # before and after


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2, "ascent_scope": "step", "method": "imbsam"},
        {"gradient_accumulation_steps": 2, "method": "sam", "bf16": True},
    ],
)
def test_accumulated_steps_train_alike(settings, captures, tmp_path):
    assert_alike(*(trained(tmp_path, cuda_graphs=c, max_steps=4, **settings) for c in (False, True)))
    assert captures


def test_kinds_beyond_the_most_are_passed_through_as_usual(captures, monkeypatch, tmp_path):
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 1)
    assert_alike(trained(tmp_path, method="sgd"), trained(tmp_path, method="sgd", cuda_graphs=True))
    assert captures == [12]


def test_without_a_gpu_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match="it needs a CUDA GPU, and the training is on cpu"):
        trainer_of(tmp_path, cuda_graphs=True)


class OnGPU:
    type = "cuda"


@pytest.mark.parametrize(
    ("settings", "own_loss", "words"),
    [
        ({"torch_compile": True}, False, "torch_compile=True makes graphs of its own"),
        ({"gradient_checkpointing": True}, False, "cannot be captured"),
        ({"world_size": 2}, False, "2 processes were launched"),
        ({}, True, "the whole loss is one pass"),
    ],
)
def test_what_it_does_not_go_with_is_refused(settings, own_loss, words):
    given = {"cuda_graphs": True, "torch_compile": False, "gradient_checkpointing": False, "world_size": 1, **settings}
    with pytest.raises(ValueError, match=words):
        refusals._check_graphs(SimpleNamespace(device=OnGPU(), **given), own_loss)


@pytest.mark.parametrize("setting", ["torch_compile", "cuda_graphs"])
def test_a_loss_of_features_names_the_setting_that_hides_them(setting):
    assert refusals.hides_modules(SimpleNamespace(**{setting: True})) == setting
