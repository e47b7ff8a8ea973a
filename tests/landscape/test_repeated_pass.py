"""A second pass repeats the first one whatever the model's own code moves: buffers, numpy's and Python's generators."""

import random

import numpy as np
import pytest
import torch
from methods.problems import LABELS, gradient_of, landscape_of, problem, step_of
from torch import nn
from training.toy import ToyBatches, toy_trainer

from hf_ltsam.data.random_states import state_of_host
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.landscape.repeated_pass import EVERY, FIRST, PACKED, OtherMoves, free_buffers_at_rest
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.methods import make_method


class Masked(nn.Module):
    """Leaves out features as SpecAugment does: by numbers that are not torch's."""

    def __init__(self, draw):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4))
        self.draw, self.drawn = draw, []

    def forward(self, x):
        if self.training:
            mask = [self.draw() > 0.6 for _ in range(x.shape[1])]
            self.drawn.append(mask)
            x = x * torch.tensor(mask)
        return self.body(x)


class Moving(nn.Module):
    """Buffers of its own: one written in place, one set anew."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("still", torch.ones(6))
        self.register_buffer("none", None)

    def forward(self, x):
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.body(x - self.mean * self.still)


class OldSpectralNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.utils.spectral_norm(nn.Linear(6, 4))

    def forward(self, x):
        return self.body(x)


DRAWS = {"numpy": np.random.rand, "python": random.random}
METHODS = ["sam", "asam", "imbsam", "focal_sam", "sse_sam", "cc_sam", "gsam"]
ARGS = {"sse_sam": {"rho_head": 0.05, "rho_tail": 0.1, "gamma": 0.5}}


def given(model):
    made = problem("plain")
    made.model = model.to(torch.float64)
    return made


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("name", METHODS)
def test_every_pass_draws_the_same_numbers(name, draw):
    np.random.seed(0)
    random.seed(0)
    model = Masked(DRAWS[draw])
    made = given(model)
    gradient_of(make_method(name, **ARGS.get(name, {})), made)
    assert len(model.drawn) > 1
    assert all(mask == model.drawn[-1] for mask in model.drawn[1:])


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("draw", DRAWS)
def test_afterwards_the_generators_are_as_after_the_first_passes(draw, micro_batches):
    model = Masked(DRAWS[draw])
    made = given(model)
    for _ in range(2):
        np.random.seed(0)
        random.seed(0)
        DRAWS[draw]()  # the state of a training in the middle
        start = state_of_host()
        gradient_of(make_method("sam"), made, micro_batches=micro_batches)
        after = DRAWS[draw]()
        np.random.set_state(start[0])
        random.setstate(start[1])
        for part in made.x.tensor_split(micro_batches):
            made.model(part)
        assert DRAWS[draw]() == after


KINDS = {
    "numpy": lambda: Masked(np.random.rand),
    "python": lambda: Masked(random.random),
    "buffers": Moving,
    "old spectral norm": OldSpectralNorm,
}


def seeded(kind):
    torch.manual_seed(0)
    made = given(KINDS[kind]())
    np.random.seed(0)
    random.seed(0)
    return made


@pytest.mark.parametrize("kind", ["buffers", "old spectral norm"])
@pytest.mark.parametrize("name", METHODS)
def test_buffers_move_once(name, kind):
    """As one ordinary forward pass moves them."""
    made, ordinary = seeded(kind), seeded(kind)
    for _ in range(FIRST + 2):
        ordinary.model(made.x)
        gradient_of(make_method(name, **ARGS.get(name, {})), made)
        for (which, ours), theirs in zip(made.model.named_buffers(), ordinary.model.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=which)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2])
def test_a_pass_perturbed_by_next_to_nothing_gives_the_gradient_of_the_first(kind, steps):
    """From the first step on, so that a training that is resumed, which learns anew what moves, goes on alike."""
    vectors = []
    for method in (make_method("sgd"), make_method("sam", rho=1e-9)):
        made = seeded(kind)
        weights = TrainableWeights(made.model)
        for _ in range(steps):
            vector = method.update(landscape_of(made, weights=weights), step_of(made)).materialize()
        vectors.append(torch.cat([g.flatten() for g in vector]))
    torch.testing.assert_close(vectors[1], vectors[0], rtol=1e-6, atol=1e-7)


class Shared(nn.Module):
    """Two layers with one buffer, which the first one moves and the second one reads."""

    class Layer(nn.Module):
        def __init__(self, mean):
            super().__init__()
            self.register_buffer("mean", mean)

    def __init__(self):
        super().__init__()
        mean = torch.zeros(6, dtype=torch.float64)
        self.a, self.b, self.body = self.Layer(mean), self.Layer(mean), nn.Linear(6, 4)

    def forward(self, x):
        self.a.mean += x.detach().mean(0)
        return self.body(x - self.b.mean)


class OwnNorm(nn.BatchNorm1d):
    """Counts its passes beside what batch norm keeps."""

    def __init__(self, size):
        super().__init__(size)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("model", [Shared, lambda: nn.Sequential(OwnNorm(6), nn.Linear(6, 4))], ids=["shared", "norm"])
def test_shared_buffers_and_those_of_a_kind_of_norm(model):
    torch.manual_seed(0)
    made = given(model())
    weights = TrainableWeights(made.model)
    method = make_method("sam", rho=1e-9)
    for _ in range(2):
        landscape = landscape_of(made, weights=weights)
        vector = method.update(landscape, step_of(made)).materialize()
    torch.manual_seed(0)
    ordinary = given(model())
    for _ in range(2):
        ordinary.model.zero_grad()
        nn.functional.cross_entropy(ordinary.model(made.x), made.y).backward()
    for (which, ours), theirs in zip(made.model.named_buffers(), ordinary.model.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=which)
    for ours, p in zip(vector, ordinary.model.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad, rtol=1e-6, atol=1e-8)


def test_a_pass_that_fails_uses_up_no_look():
    model = Moving().to(torch.float64)
    moves = OtherMoves(model)
    for _ in range(FIRST + 1):
        with pytest.raises(RuntimeError), moves.noticed():
            raise RuntimeError("out of memory")
    with moves.noticed():
        model(torch.ones(2, 6, dtype=torch.float64))
    assert {name for _, name in moves._moved} == {"steps", "mean"} and moves._looks


def test_packed_weights_are_not_copied():
    model = nn.Module()
    model.register_buffer("qweight", torch.zeros(PACKED + 1, dtype=torch.int8))
    model.register_buffer("mean", torch.zeros(3))
    packed, mean = model.qweight, model.mean
    with free_buffers_at_rest(model):
        assert model.qweight is packed and model.mean is not mean
    assert model.mean is mean


@pytest.mark.parametrize("kind", KINDS)
def test_the_trial_of_a_shortcut_moves_nothing(kind):
    """ImbSAM's passes take some rows each; a model that draws numbers must be given all of them."""
    method = make_method("imbsam")
    plain = seeded(kind)
    theirs = gradient_of(method, plain)
    made = seeded(kind)
    ours = gradient_of(method, made, shortcuts=Shortcuts(made.model))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for (which, a), b in zip(made.model.named_buffers(), plain.model.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=which)


@pytest.mark.parametrize("draw", DRAWS)
def test_rows_are_not_left_out_once_numbers_were_drawn(draw):
    made = seeded(draw)
    shortcuts = Shortcuts(made.model)
    gradient_of(make_method("sam"), made, shortcuts=shortcuts)
    weights = TrainableWeights(made.model)
    batch = MicroBatch({"x": made.x}, made.y)
    assert not shortcuts.may_leave_out_rows(weights, batch, lambda _: pytest.fail("nothing to be tried"))


class NoisyToy(nn.Module):
    """Draws from numpy, in training, from a step on."""

    def __init__(self, begins):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4, dtype=torch.float64)
        self.begins, self.passes = begins, 0

    def forward(self, x):
        self.passes += 1
        return self.body(x * np.random.rand() if self.training and self.passes > self.begins else x)


class ManyBatches(ToyBatches):
    def __iter__(self):
        while True:
            yield from super().__iter__()


@pytest.mark.parametrize("steps", [FIRST + 2, 2 * EVERY + 2])
def test_generators_are_looked_at_again_now_and_then(steps, tmp_path):
    """A model that begins to draw later is found by the next look."""
    model = NoisyToy(begins=4 * FIRST)
    trainer = toy_trainer(tmp_path, "sam", model, max_steps=steps)
    trainer.train_dataset = ManyBatches()
    trainer.train()
    assert trainer.gradient_step._weights.other_moves._draws == (steps > EVERY)


@pytest.mark.parametrize("kind", [lambda: NoisyToy(begins=0), lambda: MovingToy()], ids=["numpy", "buffers"])
def test_telemetry_changes_nothing(kind, tmp_path):
    """Every 250th step looks at the gradients of head and tail, by passes of its own."""
    weights = []
    for telemetry in (True, False):
        np.random.seed(0)
        trainer = toy_trainer(tmp_path, "sgd", kind(), max_steps=260, telemetry=telemetry, learning_rate=0.01)
        trainer.train_dataset = ManyBatches()
        trainer.train()
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


class MovingToy(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4, dtype=torch.float64)
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.body(x - self.mean)


def test_the_labels_of_the_problem_are_mixed():
    assert len(set(LABELS["mixed"])) == 4  # head and tail, so that every method makes several passes
