"""`cuda_graphs`: the same training as without, on a stand-in for CUDA's graphs that has their ways: memory that stays.

A captured pass reads inputs and weights where they lay when it was captured, with the modules in the state of that moment,
and leaves its logits and gradients in memory that the next replay overwrites.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from training.test_channels_last import METHOD_ARGS, Wide, trainer_of
from transformers import TrainerCallback

from hf_ltsam.landscape import graphs
from hf_ltsam.methods import METHODS
from hf_ltsam.training.refusals import settings as refusals

WARM_UP = 3


def stand_in(module, inputs, allow_unused_input):
    """As `torch.cuda.make_graphed_callables`, on the CPU."""
    named = list(module.named_parameters())
    memory = [p.data for _, p in named]
    for _ in range(WARM_UP):
        module(*inputs)
    states = [
        (m, {k: getattr(m, k) for k in ("training", "track_running_stats") if hasattr(m, k)}) for m in module.modules()
    ]
    static = {}

    def into(name, tensors):
        for at, tensor in zip(static.setdefault(name, [t.clone() for t in tensors]), tensors, strict=True):
            at.copy_(tensor)
        return tuple(t.detach() for t in static[name])

    class Graph(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *given):
            for at, tensor in zip(inputs, given[: len(inputs)], strict=True):
                at.copy_(tensor)
            leaves = [m.detach().requires_grad_(p.requires_grad) for m, (_, p) in zip(memory, named, strict=True)]
            now = [(m, {k: getattr(m, k) for k in state}) for m, state in states]
            set_states(states)
            with torch.enable_grad():
                logits = functional_call(module, {name: leaf for (name, _), leaf in zip(named, leaves)}, inputs)
            set_states(now)
            ctx.logits, ctx.leaves = logits, leaves
            return into("logits", [logits])[0]

        @staticmethod
        def backward(ctx, signal):
            trained = [leaf for leaf in ctx.leaves if leaf.requires_grad]
            gradients = iter(into("gradients", torch.autograd.grad(ctx.logits, trained, signal, retain_graph=True)))
            return (*[None] * len(inputs), *(next(gradients) if leaf.requires_grad else None for leaf in ctx.leaves))

    return lambda *given: Graph.apply(*given, *(p for _, p in named))


def set_states(states):
    for module, state in states:
        for name, value in state.items():
            setattr(module, name, value)


@pytest.fixture
def captures(monkeypatch):
    """The kinds of batch that were captured, by their sizes."""
    seen = []

    def capture(module, inputs, **settings):
        seen.append(len(inputs[0]))
        return stand_in(module, inputs, **settings)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
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


def test_a_module_with_a_hook_is_refused(captures, tmp_path):
    trainer = trainer_of(tmp_path, method="sgd", cuda_graphs=True)
    trainer.model.inner.bn1.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"does not go with hooks, and BatchNorm2d \(inner.bn1\) has one"):
        trainer.train()


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
