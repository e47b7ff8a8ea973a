"""CC-SAM over several micro-batches: every one passes the trunk, all of them are one mini-batch."""

import copy
import logging

import pytest
import torch
from landscape.test_shortcuts import Cosines, Patches, SumOfGaps, given_with, plain, rows_passed
from methods import references
from methods.problems import LABELS, assert_equal, step_of
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.landscape.landscape import LossLandscape, MicroBatch
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import GaussianClouded
from hf_ltsam.methods import make_method

OPTIONS = [
    {"scale": 0.3},
    {"scale": 0.3, "norm": "per_tensor", "mix": 0.6},
    {"scale": 0.3, "class_weighting": "inverse_prior", "mix": 0.3},
]
SIZES = [[8], [4, 4], [3, 3, 2], [1, 5, 2], [6, 1, 1]]


def cross_entropy(logits, batch):
    return F.cross_entropy(logits, batch.labels, reduction="none")


def landscape(given, sizes, shortcuts, losses=cross_entropy, **more):
    batches = [MicroBatch({"x": x}, y) for x, y in zip(given.x.split(sizes), given.y.split(sizes), strict=True)]
    weights = TrainableWeights(given.model)
    return LossLandscape(weights, batches, lambda b: given.model(b.inputs["x"]), losses, 1, shortcuts=shortcuts, **more)


def update(given, args, sizes, shortcuts, **more):
    method = make_method("cc_sam", **args)
    return method.update(landscape(given, sizes, shortcuts, **more), step_of(given)).materialize()


@pytest.mark.parametrize("labels", ["in one micro-batch each", "soft"])
@pytest.mark.parametrize("model", [plain, Cosines])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("args", OPTIONS, ids=str)
def test_equals_the_whole_batch_at_once(args, sizes, model, labels):
    given = given_with(model)
    if labels == "soft":
        rows = torch.tensor([*LABELS["soft"], *LABELS["soft"][:2]], dtype=torch.float64)
        given.y = rows
    ours = update(given, args, sizes, Shortcuts(given.model))
    assert_equal(ours, references.cc_sam(given, **args))


@pytest.mark.parametrize("model", [Patches, Cosines])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_each_micro_batch_passes_the_trunk_twice_and_the_last_one_once(sizes, model, monkeypatch):
    """One backward pass through the trunk for each of them, whatever the number of classes."""
    given = given_with(model)
    seen, through_trunk, first = rows_passed(given.model), [], next(given.model.parameters())
    grad = torch.autograd.grad

    def counted(outputs, inputs, *rest, **options):
        through_trunk.append(any(t is first for t in inputs) if isinstance(inputs, list | tuple) else False)
        return grad(outputs, inputs, *rest, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    update(given, {"mix": 0.7}, sizes, Shortcuts(given.model))
    assert seen == [*sizes, *reversed(sizes[:-1])]
    assert sum(through_trunk) == len(sizes)


@pytest.mark.parametrize("model", [plain, Cosines])
def test_the_graph_of_one_micro_batch_is_there_at_a_time(model):
    class Counted(torch.autograd.Function):
        """Tells how many passes wait for their backward pass."""

        waiting = most = 0

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x.clone())
            ctx.kept = _Kept(Counted)
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            ctx.kept = None
            return g

    given = given_with(model)
    given.model = nn.ModuleList([given.model])[0]
    body = given.model[0] if isinstance(given.model, nn.Sequential) else given.model.body
    body.register_forward_hook(lambda _, __, output: Counted.apply(output))
    update(given, {"mix": 0.7}, [2, 2, 2, 2], Shortcuts(given.model))
    assert Counted.most == 1 and Counted.waiting == 0


class _Kept:
    """Something that a graph holds."""

    def __init__(self, counter):
        self.counter = counter
        counter.waiting += 1
        counter.most = max(counter.most, counter.waiting)

    def __del__(self):
        self.counter.waiting -= 1


def noisy(head):
    return nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Dropout(0.4), nn.Tanh(), head)


class Checkpointed(nn.Module):
    """Its trunk runs again in a backward pass."""

    def __init__(self):
        super().__init__()
        *trunk, self.classifier = noisy(nn.Linear(7, 4))
        self.trunk = nn.Sequential(*trunk)

    def forward(self, x):
        return self.classifier(checkpoint(self.trunk, x, use_reentrant=False))


@pytest.mark.parametrize("sizes", [[8], [4, 4], [3, 3, 2]], ids=str)
def test_activation_checkpointing(sizes):
    """A forward pass in a backward one is that of its sweep: batch norm is at rest in both, or in neither."""
    given = given_with(Checkpointed)
    full, results = copy.deepcopy(given), []
    for problem, shortcuts in ((given, Shortcuts(given.model)), (full, None)):
        torch.manual_seed(3)
        results.append(update(problem, {"scale": 0.3, "mix": 0.5}, sizes, shortcuts))
    assert_equal(*results)


@pytest.mark.parametrize("sizes", [[4, 4], [3, 3, 2]], ids=str)
@pytest.mark.parametrize("cosine", [False, True])
def test_dropout_batch_norm_and_a_loss_that_draws(sizes, cosine):
    """The same masks and noise as in all passes of the full computation; running statistics move once."""
    loss, statistics = GaussianClouded(), ClassStatistics([500, 120, 20, 5])

    def losses(logits, batch):
        return loss(logits, batch.labels, statistics)

    given = given_with(lambda: noisy(Cosines().classifier if cosine else nn.Linear(7, 4)))
    if cosine:
        given.model[0], given.model[1] = nn.Linear(6, 5).double(), nn.BatchNorm1d(5).double()
    full = copy.deepcopy(given)
    results = []
    for problem, shortcuts in ((given, Shortcuts(given.model)), (full, None)):
        torch.manual_seed(3)
        results.append(update(problem, {"scale": 0.3, "mix": 0.5}, sizes, shortcuts, losses=losses))
    assert_equal(*results)
    for name, value in full.model.state_dict().items():
        torch.testing.assert_close(given.model.state_dict()[name], value, rtol=0, atol=1e-14, msg=name)


def test_the_observer_is_told_the_same():
    for model in (plain, Cosines):
        given = given_with(model)
        ours, full = SumOfGaps(), SumOfGaps()
        for observer, known in ((ours, Shortcuts(given.model)), (full, None)):
            update(given, {"scale": 0.3, "mix": 0.5}, [3, 4, 1], known, observer=observer)
        torch.testing.assert_close(ours.gaps, full.gaps)
        torch.testing.assert_close(ours.norms[0], torch.stack(full.norms).mean())


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.classifier = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return 2.0 * self.classifier(torch.tanh(self.body(x)))


def test_a_classifier_that_is_not_simply_last_is_computed_in_full():
    given = given_with(Scaled)
    shortcuts = Shortcuts(given.model)
    for _ in range(2):
        ours = update(given, {"scale": 0.3}, [3, 5], shortcuts)
        assert_equal(ours, references.cc_sam(given, scale=0.3))
    assert shortcuts.may_open(given.model.classifier) is False


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("scaled", "this Linear is another case"),
        ("hooked", "this Linear is another case"),
        ("no shortcuts", "exact_rows=False, torch_compile and sharded weights"),
        ("one pass", None),
        ("all weights", None),  # which are perturbed for each class by the method's own cost
    ],
)
def test_what_keeps_one_pass_from_serving_all_classes_is_told_once(case, said, caplog):
    logging.Logger.warning_once.cache_clear()
    given = given_with(Scaled if case == "scaled" else plain)
    if case == "hooked":
        given.model[-1].register_forward_pre_hook(lambda *_: None)
    shortcuts = None if case == "no shortcuts" else Shortcuts(given.model)
    arguments = {"scale": 0.3, **({"parameters": "all"} if case == "all weights" else {})}
    for _ in range(2):
        update(given, arguments, [3, 5], shortcuts)
    told = [record.message for record in caplog.records]
    assert len(told) == (said is not None) and all("2 C_b" in message and said in message for message in told)
