"""What the landscape owes to everyone: weights bit for bit, one update of the running statistics, one dropout mask."""

import copy
import signal

import pytest
import torch
from methods.problems import gradient_of, landscape_of, problem
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hf_ltsam.landscape.landscape import MicroBatch
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.methods import METHODS, make_method


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(model, before):
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_come_back_bit_for_bit(name, dtype):
    given = problem()
    given.model, given.x = given.model.to(dtype), given.x.to(dtype)
    before = state(given.model)
    gradient_of(make_method(name), given)
    assert_same_state(given.model, before)


@pytest.mark.parametrize("name", METHODS)
def test_running_statistics_move_once(name):
    """As one ordinary forward pass in training mode moves them, whatever the number of passes."""
    if name == "lpf_sgd":
        pytest.skip("each of its shards is a batch of its own: see the next test")
    given = problem("batch norm")
    ordinary = copy.deepcopy(given.model)
    ordinary(given.x)
    still = {"sigma": 0.0} if name == "gnm" else {}  # whose only pass is at moved weights
    gradient_of(make_method(name, **still), given)
    for ours, theirs in zip(given.model.buffers(), ordinary.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert given.model[1].track_running_stats


def test_running_statistics_move_once_per_shard():
    given = problem("batch norm")
    ordinary = copy.deepcopy(given.model)
    for x in given.x.tensor_split(3):
        ordinary(x)
    gradient_of(make_method("lpf_sgd", shards=3, gamma=0.0), given)
    for ours, theirs in zip(given.model.buffers(), ordinary.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_shards_are_parts_of_the_batch():
    """Across the borders of micro-batches; loss and reached weights are those of the whole."""
    given = problem("unused")
    landscape = landscape_of(given, micro_batches=3, divisor=2)
    shards = landscape.shards(5)
    with pytest.raises(RuntimeError, match="no loss yet"):
        _ = landscape.mean_loss
    parts = [shard.gradient() for shard in shards]
    whole = landscape_of(given).gradient()
    for pieces, g in zip(zip(*(p.materialize() for p in parts)), whole.tensors):
        torch.testing.assert_close(sum(pieces), g, rtol=0, atol=1e-15)
    torch.testing.assert_close(landscape.mean_loss, F.cross_entropy(given.model(given.x), given.y).detach())
    assert landscape.reached == [True] * 4 + [False] * 2
    assert len(landscape_of(given).shards(100)) == 8, "no shard is empty"


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(()), [0] * 8])
def test_inputs_that_are_not_one_per_sample_cannot_be_cut(value):
    whole = MicroBatch({"x": torch.zeros(8, 2), "flag": True, "other": value}, torch.zeros(8, dtype=torch.long))
    with pytest.raises(ValueError, match=r"'other' is a .* cannot be dealt out to parts of a batch of 8"):
        whole.rows(slice(0, 4))
    assert MicroBatch({"x": torch.ones(8, 2), "flag": True}, whole.labels).rows(slice(2, 5)).inputs["x"].shape == (3, 2)


def test_running_statistics_move_once_per_micro_batch():
    given = problem("batch norm")
    ordinary = copy.deepcopy(given.model)
    for x in given.x.tensor_split(2):
        ordinary(x)
    gradient_of(make_method("sam"), given, micro_batches=2)
    assert torch.equal(given.model[1].running_var, ordinary[1].running_var)
    assert given.model[1].num_batches_tracked == 2


def test_normalisation_in_later_passes_is_by_the_batch():
    """With the running statistics instead, the gradient at rho = 0 would differ from the plain one."""
    given = problem("batch norm")
    given.model[1].running_mean.fill_(7.0)
    landscape = landscape_of(given)
    first, second = landscape.gradient(), landscape.gradient()
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, second.tensors))


def test_dropout_mask_is_the_same_in_every_pass_and_random_numbers_are_drawn_once():
    given = problem()
    given.model = nn.Sequential(nn.Dropout(0.5), given.model)
    torch.manual_seed(3)
    landscape = landscape_of(given)
    first = landscape.gradient()
    after_one_pass = torch.get_rng_state()
    again, shifted = landscape.gradient(), landscape.gradient(at=0.0 * first)
    for later in (again, shifted):
        assert all(torch.equal(a, b) for a, b in zip(first.tensors, later.tensors))
    assert torch.equal(torch.get_rng_state(), after_one_pass)
    other = landscape_of(given).gradient()  # the next step draws a new mask
    assert not torch.equal(first.tensors[0], other.tensors[0])


def test_accumulated_gradients_are_left_alone():
    given = problem()
    for p in given.model.parameters():
        p.grad = torch.full_like(p, 0.25)
    gradient_of(make_method("sam"), given)
    assert all(p.grad.eq(0.25).all() for p in given.model.parameters())


@pytest.mark.parametrize("empty", ["no head", "no tail"])
@pytest.mark.parametrize("name", METHODS)
def test_an_empty_group_is_finite(name, empty):
    assert all(g.isfinite().all() for g in gradient_of(make_method(name), problem(labels=empty)))


# ---- interrupted in the middle of a perturbed pass ----


class Interrupted(nn.Module):
    """Calls `action` in the forward or the backward of the k-th pass."""

    def __init__(self, model, action, forward_of=None, backward_of=None):
        super().__init__()
        self.model, self.action = model, action
        self.forward_of, self.backward_of = forward_of, backward_of
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes == self.forward_of:
            self.action()
        logits = self.model(x)
        if self.passes == self.backward_of:
            logits.register_hook(self.in_backward)
        return logits

    def in_backward(self, gradient):
        self.action()
        return gradient


def raise_(error):
    raise error


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", [{"forward_of": 2}, {"backward_of": 2}])
def test_an_exception_leaves_the_weights_unperturbed(error, where):
    given = problem("batch norm")
    before = [p.detach().clone() for p in given.model.parameters()]
    given.model = Interrupted(given.model, lambda: raise_(error), **where)
    with pytest.raises(type(error)):
        gradient_of(make_method("sam", rho=1.0), given)
    assert all(torch.equal(p, b) for p, b in zip(given.model.parameters(), before))
    assert given.model.model[1].track_running_stats


def test_ctrl_c_leaves_the_weights_unperturbed():
    given = problem()
    before = state(given.model)
    inner = given.model
    given.model = Interrupted(inner, lambda: signal.raise_signal(signal.SIGINT), forward_of=2)
    with pytest.raises(KeyboardInterrupt):
        gradient_of(make_method("sam", rho=1.0), given)
    assert_same_state(inner, before)


@pytest.mark.parametrize("where", [{"forward_of": 2}, {"backward_of": 2}])
def test_a_state_saved_in_the_middle_holds_the_unperturbed_weights(where):
    given = problem("tied")
    before, saved, inside = state(given.model), {}, {}
    inner = given.model
    model = Interrupted(
        inner, lambda: (saved.update(state(model)), inside.update(w=inner.first.weight.clone())), **where
    )
    given.model = model
    gradient_of(make_method("sam", rho=1.0), given)
    assert not torch.equal(inside["w"], before["first.weight"]), "the pass was not perturbed: the test proves nothing"
    assert {name: value.tolist() for name, value in saved.items()} == {
        f"model.{name}": value.tolist() for name, value in before.items()
    }
    assert not model._state_dict_hooks, "hooks are removed"


def test_restoring_twice_is_harmless():
    weights = TrainableWeights(problem().model)
    before = [p.detach().clone() for p in weights.parameters]
    with weights.moved(WeightVector([torch.ones_like(p) for p in weights.parameters])):
        weights.restore()
        with torch.no_grad():
            weights.parameters[0].add_(1.0)  # whatever happens to restored weights is not undone
    assert torch.equal(weights.parameters[0], before[0] + 1.0)


def test_two_offsets_at_once_are_refused():
    weights = TrainableWeights(problem().model)
    offset = WeightVector([torch.ones_like(p) for p in weights.parameters])
    with weights.moved(offset), pytest.raises(RuntimeError, match="one offset at a time"), weights.moved(offset):
        pass


def test_a_model_without_trainable_weights_is_refused():
    with pytest.raises(ValueError, match=r"Linear has no parameter with requires_grad=True"):
        TrainableWeights(nn.Linear(2, 2).requires_grad_(False))


def test_one_forward_serves_several_weightings():
    given = problem()
    calls = []

    given.model.register_forward_hook(lambda *_: calls.append(1))
    landscape = landscape_of(given)
    a, b = torch.rand(8, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    g_a, g_b = landscape.gradients([a, b])
    assert len(calls) == 1
    for g, w in ((g_a, a), (g_b, b)):
        torch.testing.assert_close(g.tensors, landscape.gradient(w).tensors)


def test_the_mean_loss_is_the_unperturbed_one():
    given = problem()
    landscape = landscape_of(given, micro_batches=3)
    with pytest.raises(RuntimeError, match="no loss yet"):
        _ = landscape.mean_loss
    g = landscape.gradient()
    landscape.gradient(at=g)
    torch.testing.assert_close(landscape.mean_loss, F.cross_entropy(given.model(given.x), given.y).detach())


def test_a_part_of_the_model_saved_in_the_middle_holds_unperturbed_weights():
    given = problem("tied")
    before, saved = given.model.first.weight.detach().clone(), {}
    inner = given.model
    given.model = Interrupted(inner, lambda: saved.update(state(inner.first)), forward_of=2)
    gradient_of(make_method("sam", rho=1.0), given)
    assert torch.equal(saved["weight"], before)


class Checkpointed(nn.Module):
    """Batch norm inside activation checkpointing: its forward is repeated in the backward pass."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh())
        self.classifier = nn.Linear(7, 4)

    def forward(self, x):
        return self.classifier(checkpoint(self.body, x, use_reentrant=False))


@pytest.mark.parametrize("name", METHODS)
def test_batch_norm_under_activation_checkpointing(name):
    given, plain = problem("batch norm"), problem("batch norm")
    torch.manual_seed(0)
    given.model = Checkpointed().double()
    plain.model = nn.Sequential(*given.model.body, given.model.classifier)
    method = make_method(name, **({"shards": 2} if name == "lpf_sgd" else {}))  # no shard of one sample
    for a, b in zip(gradient_of(method, given), gradient_of(method, plain), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_running_statistics_of_instance_norm_move_once():
    given = problem()
    given.x = given.x.view(8, 2, 3)
    given.model = nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), given.model).double()
    ordinary = copy.deepcopy(given.model)
    ordinary(given.x)
    gradient_of(make_method("sam", rho=1.0), given)
    assert torch.equal(given.model[0].running_mean, ordinary[0].running_mean)
    assert given.model[0].momentum == ordinary[0].momentum


def test_a_parameter_counts_as_reached_if_any_pass_reached_it():
    given = problem("unused")
    landscape = landscape_of(given)
    landscape.gradient()
    reached = list(landscape.reached)
    landscape.gradient(torch.zeros(8))
    assert landscape.reached == reached == [True, True, True, True, False, False]


def test_the_observer_is_told_the_weighted_gap():
    told, of_samples = [], []

    class Observer:
        def measures(self, half_precision):
            return False

        def perturbed_pass(self, norm, cosine, gap):
            told.append((norm, cosine, gap))

        def sample_gaps(self, gaps, labels):
            of_samples.append((gaps, labels))

    given = problem()
    landscape = landscape_of(given, micro_batches=2)
    landscape._observer = Observer()
    weighting = torch.rand(8, dtype=torch.float64)
    offset = 0.3 * landscape.gradient(weighting).unit()
    before = F.cross_entropy(given.model(given.x), given.y, reduction="none")
    perturbed = landscape.gradient(weighting, at=offset)
    with torch.no_grad():
        for p, e in zip(given.model.parameters(), offset.materialize()):
            p.add_(e)
    after = F.cross_entropy(given.model(given.x), given.y, reduction="none")
    norm, cosine, gap = told[0]
    torch.testing.assert_close(gap, (weighting * (after - before)).mean().detach())
    assert norm == pytest.approx(0.3)
    torch.testing.assert_close(cosine, offset.cosine(perturbed))
    ((gaps, labels),) = of_samples
    torch.testing.assert_close(gaps, (weighting * (after - before)).detach())
    assert torch.equal(labels, given.y)


def test_the_gaps_of_rows_that_were_left_out_are_zero():
    of_samples = []

    class Observer:
        def measures(self, half_precision):
            return False

        def perturbed_pass(self, *values): ...

        def sample_gaps(self, gaps, labels):
            of_samples.append(gaps)

    given = problem()
    full, partial = landscape_of(given), landscape_of(given, shortcuts=Shortcuts(given.model))
    weighting = torch.tensor([0, 1.0, 0, 0, 2, 0, 0, 0.5], dtype=torch.float64)
    for landscape in (full, partial):
        landscape._observer = Observer()
        landscape.gradient(weighting, at=0.3 * landscape.gradient().unit())
    torch.testing.assert_close(*of_samples)
    assert of_samples[0].count_nonzero() == 3
