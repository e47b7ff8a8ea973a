"""Every way around the full computation gives the same result, or is not taken."""

import pytest
import torch
from methods.problems import COUNTS, TAIL_THRESHOLD, assert_equal, landscape_of, problem, step_of
from methods.test_equations import IDS, TABLE
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.landscape.gradients import GradientTaker
from hf_ltsam.landscape.landscape import LossLandscape, MicroBatch
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import GaussianClouded
from hf_ltsam.methods import make_method
from hf_ltsam.models.cosine_classifier import CosineClassifier


class Patches(nn.Module):
    """A small transformer-like net: bare weights, layer norms, tokens, an adapter with a scale of its own."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed = Embed()
        self.norm = nn.LayerNorm(5)
        self.mlp = nn.Sequential(nn.Linear(5, 64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, 5))
        self.last = nn.LayerNorm(5)
        self.classifier = nn.Linear(5, 4)

    def forward(self, x):
        h = self.embed(x)
        h = h + self.mlp(self.norm(h))
        return self.classifier(self.last(h).mean(1))


class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 5))
        self.projection = nn.Linear(2, 5)

    def forward(self, x):
        patches = self.projection(x.view(len(x), 3, 2))
        return torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1)


class CentredByHand(nn.Module):
    """Samples see each other, and no module is known to let them."""

    def forward(self, x):
        return x - x.mean(0)


class Twice(nn.Module):
    """The same weight twice in one pass: no signal of one call tells the gradient."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        return self.classifier(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


class InPlace(nn.Module):
    """Overwrites what a linear layer gave."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 7)
        self.classifier = nn.Linear(7, 4)

    def forward(self, x):
        return self.classifier(self.first(x).mul_(3.0).tanh())


class TokensFirst(nn.Module):
    """As many tokens as samples, and tokens come first: rows of the signals are not samples."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 7)
        self.classifier = nn.Linear(7, 4)

    def forward(self, x):
        tokens = torch.stack([x * (k + 1) for k in range(len(x))])  # (tokens, n, 6)
        return self.classifier(torch.tanh(self.first(tokens)).mean(0))


class Functional(nn.Module):
    """A linear layer whose weight is also used without calling it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        return self.classifier(torch.tanh(self.first(F.linear(x, self.first.weight))))


class Checkpointed(Patches):
    def forward(self, x):
        h = checkpoint(self.embed, x, use_reentrant=False)
        h = h + checkpoint(lambda t: self.mlp(self.norm(t)), h, use_reentrant=False)
        return self.classifier(self.last(h).mean(1))


class ScaledLogits(nn.Module):
    """The losses are not made from what the classifier gave."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        return 2.0 * self.classifier(x)


def plain():
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4))


def frozen_trunk():
    model = Patches()
    model.embed.requires_grad_(False)
    model.mlp[0].requires_grad_(False)
    model.mlp[3].weight.requires_grad_(False)
    return model


MODELS = {
    "plain": plain,
    "patches": Patches,
    "frozen trunk": frozen_trunk,
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 4)),
    "batch norm at rest": lambda: nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7).eval(), nn.Tanh(), nn.Linear(7, 4)),
    "centred by hand": lambda: nn.Sequential(nn.Linear(6, 7), CentredByHand(), nn.Tanh(), nn.Linear(7, 4)),
    "twice": Twice,
    "in place": InPlace,
    "tokens first": TokensFirst,
    "functional": Functional,
    "checkpointed": Checkpointed,
    "scaled logits": ScaledLogits,
}
NO_ROWS = {"batch norm", "centred by hand", "tokens first"}
SIGNALS = {"plain", "patches", "frozen trunk", "checkpointed", "scaled logits"}


def given_with(model, n=8):
    given = problem()
    torch.manual_seed(1)
    given.model = model().double()
    order = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])  # classes and groups of the batch are mixed
    given.x, given.y = given.x[order][:n], given.y[order][:n]
    return given


def landscape(given, shortcuts, observer=None):
    def losses(logits, batch):
        return F.cross_entropy(logits, batch.labels, reduction="none")

    batch = MicroBatch({"x": given.x}, given.y)
    weights = TrainableWeights(given.model)
    return LossLandscape(
        weights, [batch], lambda b: given.model(b.inputs["x"]), losses, 1, observer, shortcuts=shortcuts
    )


def update(name, args, given, shortcuts):
    return make_method(name, **args).update(landscape(given, shortcuts), step_of(given)).materialize()


def rows_passed(model):
    """How many rows each forward pass of a model sees."""
    seen = []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return seen


# ---- the same result ----


@pytest.mark.parametrize(("name", "args"), TABLE, ids=IDS)
def test_same_result_as_the_full_computation(name, args):
    check_same_result(name, args, "patches")


WITH_WEIGHTINGS = [
    ("imbsam", {"rho": 0.3, "reduction": "group"}),
    ("sse_sam", {"rho_head": 0.2, "rho_tail": 0.4}),
    ("focal_sam", {"rho": 0.3, "gamma": 3.2, "lam": 0.8}),
    ("cc_sam", {"scale": 0.3, "mix": 0.6, "class_weighting": "inverse_prior"}),
    ("cc_sam", {"scale": 0.3, "norm": "per_tensor", "parameters": "all"}),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "args"), WITH_WEIGHTINGS, ids=lambda value: str(value))
def test_same_result_on_every_kind_of_model(name, args, model):
    check_same_result(name, args, model)


def check_same_result(name, args, model):
    """On the step that tries the shortcuts and on the one that takes them."""
    given = given_with(MODELS[model])
    full = update(name, args, given, None)
    shortcuts = Shortcuts(given.model)
    for _ in range(2):
        assert_equal(update(name, args, given, shortcuts), full)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("model", ["plain", "patches", "frozen trunk"])
def test_random_weightings(model, seed):
    """Some disjoint, some overlapping, some empty; at w and at w + eps."""
    given = given_with(MODELS[model])
    shortcuts = Shortcuts(given.model)
    torch.manual_seed(seed)
    weightings = [torch.rand(8, dtype=torch.float64) * (torch.rand(8) < share) for share in torch.rand(3)]
    for at in (None, 0.5):
        for _ in range(2):
            ours, full = landscape(given, shortcuts), landscape(given, None)
            offsets = [None if at is None else at * of.gradient().unit() for of in (ours, full)]
            for a, b in zip(
                ours.gradients(weightings, offsets[0]), full.gradients(weightings, offsets[1]), strict=True
            ):
                assert_equal(a.materialize(), b.materialize())
            assert torch.allclose(ours.mean_loss, full.mean_loss)


def test_the_mean_loss_counts_rows_of_weight_zero():
    given = given_with(plain)
    shortcuts = Shortcuts(given.model)
    ours = landscape(given, shortcuts)
    ours.gradients([torch.tensor([0.0, 1, 0, 0, 0, 0, 0, 0]), torch.tensor([0.0, 0, 0, 0, 2, 0, 0, 0])])
    full = landscape(given, None)
    full.gradient()
    torch.testing.assert_close(ours.mean_loss, full.mean_loss)


def test_the_observer_is_told_the_same():
    class Observer:
        def __init__(self):
            self.told = []

        def measures(self, half_precision):
            return False

        def perturbed_pass(self, *values):
            self.told.append(values)

        sample_gaps = perturbed_pass

    given = given_with(plain)
    shortcuts, ours, full = Shortcuts(given.model), Observer(), Observer()
    for observer, known in ((ours, shortcuts), (full, None)):
        loss = landscape(given, known, observer)
        make_method("sse_sam", rho_head=0.3, rho_tail=0.5).update(loss, step_of(given))
    assert len(ours.told) == len(full.told) == 4
    for a, b in zip(ours.told, full.told):
        torch.testing.assert_close(a, b)


def test_a_first_pass_at_moved_weights_tells_no_gap():
    told = []

    class Observer:
        def measures(self, half_precision):
            return False

        def perturbed_pass(self, norm, cosine, gap):
            told.append(gap)

    given = given_with(plain)
    loss = landscape(given, None, Observer())
    loss.gradient(at=loss.weights)
    assert told == [None]


# ---- taken where they may be ----


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_left_out_where_samples_do_not_interact(model):
    given = given_with(MODELS[model])
    shortcuts = Shortcuts(given.model)
    update("imbsam", {}, given, shortcuts)  # tries it
    seen = rows_passed(given.model)
    update("imbsam", {}, given, shortcuts)
    tail = sum(COUNTS[c] <= TAIL_THRESHOLD for c in given.y.tolist())
    assert seen == ([8, 8] if model in NO_ROWS else [8 - tail, tail, tail])


@pytest.mark.parametrize("model", MODELS)
def test_one_backward_pass_serves_two_weightings_where_signals_tell(model):
    given = given_with(MODELS[model])
    shortcuts = Shortcuts(given.model)
    update("focal_sam", {}, given, shortcuts)
    assert bool(shortcuts.may_use_signals(TrainableWeights(given.model).parameters)) == (model in SIGNALS)


@pytest.mark.parametrize("model", ["plain", "seeing its batch"])
def test_a_first_batch_without_tail_tells_the_same(model):
    """Where all have the weights 1 and 0, the signals of any model would do."""
    given = given_with({"plain": plain, "seeing its batch": lambda: GateModule(HIDDEN["mean over the batch"])}[model])
    if model != "plain":
        given.model.gate.data.fill_(1.0)
    shortcuts, weights = Shortcuts(given.model), TrainableWeights(given.model)
    taker = GradientTaker(weights, 8, 1.0, shortcuts)
    taker.take(lambda: F.cross_entropy(given.model(given.x), given.y, reduction="none"), [None, torch.zeros(8)])
    assert shortcuts.may_use_signals(weights.parameters) == (model == "plain")


def test_signals_are_tried_again_when_other_weights_are_trained():
    given = given_with(Patches)
    shortcuts = Shortcuts(given.model)
    update("focal_sam", {}, given, shortcuts)
    given.model.embed.requires_grad_(False)
    assert shortcuts.may_use_signals(TrainableWeights(given.model).parameters) is None


def test_batch_norm_that_wakes_up_is_noticed():
    given = given_with(MODELS["batch norm at rest"])
    shortcuts = Shortcuts(given.model)
    update("imbsam", {}, given, shortcuts)
    given.model.train()
    full = update("focal_sam", {"rho": 0.5}, given, None)
    assert_equal(update("focal_sam", {"rho": 0.5}, given, shortcuts), full)
    seen = rows_passed(given.model)
    update("imbsam", {}, given, shortcuts)
    assert seen == [8, 8]


def test_inputs_that_cannot_be_cut_are_passed_whole():
    given = given_with(plain)
    shortcuts = Shortcuts(given.model)
    batch = MicroBatch({"x": given.x, "other": torch.zeros(3)}, given.y)
    assert not shortcuts.may_leave_out_rows(TrainableWeights(given.model), batch, lambda _: 1 / 0)


# ---- dropout ----


def dropped(seed, name, args, shortcuts, model):
    given = problem()
    given.model = model
    torch.manual_seed(seed)
    return update(name, args, given, shortcuts)


@pytest.mark.parametrize(("name", "args"), WITH_WEIGHTINGS, ids=lambda value: str(value))
def test_dropout_draws_what_the_full_computation_draws(name, args):
    torch.manual_seed(0)
    model = Patches(dropout=0.5).double()
    shortcuts = Shortcuts(model)
    for seed in range(3):
        full = dropped(seed, name, args, None, model)
        state = torch.get_rng_state()
        assert_equal(dropped(seed, name, args, shortcuts, model), full)
        assert torch.equal(torch.get_rng_state(), state)


def test_dropout_that_sets_in_keeps_its_masks_within_the_step():
    """The tail's second pass at the same weights is its first one again."""
    torch.manual_seed(0)
    given = problem()
    given.model = Patches(dropout=0.0).double()
    shortcuts, step = Shortcuts(given.model), step_of(given)
    landscape(given, shortcuts).gradients([step.head, step.tail])
    given.model.mlp[2].p = 0.5
    loss = landscape(given, shortcuts)
    _, g_tail = loss.gradients([step.head, step.tail])
    assert_equal(loss.gradient(step.tail).materialize(), g_tail.materialize(), 0)
    seen = rows_passed(given.model)
    landscape(given, shortcuts).gradients([step.head, step.tail])
    assert set(seen) == {8}, "rows that draw are not left out from now on"


# ---- CC-SAM ----


def test_cc_sam_passes_the_trunk_once_and_takes_one_backward_pass(monkeypatch):
    given = given_with(Patches)
    shortcuts = Shortcuts(given.model)
    seen, backwards = rows_passed(given.model), []
    grad = torch.autograd.grad

    def counted(outputs, inputs, *rest, **options):
        backwards.append(len(inputs) if isinstance(inputs, list | tuple) else 1)
        return grad(outputs, inputs, *rest, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    update("cc_sam", {"mix": 0.7}, given, shortcuts)
    assert seen == [8]
    assert backwards == [1, len(list(given.model.parameters()))], "to the logits, then to all weights"


class Cosines(nn.Module):
    """A trunk and a cosine classifier of class vectors with any length."""

    def __init__(self, *, learnable_scale=False):
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.classifier = CosineClassifier(5, 4, scale=7.0, learnable_scale=learnable_scale)
        with torch.no_grad():
            self.classifier.weight.mul_(torch.rand(4, 1) + 0.5)

    def forward(self, x):
        return self.classifier(torch.tanh(self.body(x)))


COSINE_OPTIONS = [
    {},
    {"mix": 0.6},
    {"mix": 0.0},
    {"norm": "per_tensor"},
    {"class_weighting": "inverse_prior", "mix": 0.3},
    {"norm": "per_tensor", "class_weighting": "inverse_prior"},
]


@pytest.mark.parametrize(
    ("learnable_scale", "frozen"),
    [
        (False, None),
        (True, None),
        (False, "body"),
        (True, "body"),
        (True, "classifier.weight"),
    ],
)
@pytest.mark.parametrize("args", COSINE_OPTIONS, ids=str)
def test_cc_sam_passes_the_trunk_once_for_cosines(args, learnable_scale, frozen):
    given = given_with(lambda: Cosines(learnable_scale=learnable_scale))
    for name, parameter in given.model.named_parameters():
        parameter.requires_grad_(frozen is None or not name.startswith(frozen))
    shortcuts, seen = Shortcuts(given.model), rows_passed(given.model)
    for _ in range(2):
        seen.clear()
        ours = update("cc_sam", {"scale": 0.3, **args}, given, shortcuts)
        assert seen == [8]
        assert_equal(ours, update("cc_sam", {"scale": 0.3, **args}, given, None))


class SumOfGaps:
    """An observer that keeps the norms it is told and adds up the gaps of the 8 samples."""

    def __init__(self):
        self.norms, self.gaps = [], torch.zeros(8, dtype=torch.float64)

    def measures(self, half_precision):
        return False

    def perturbed_pass(self, norm, cosine, gap):
        self.norms.append(norm)

    def sample_gaps(self, gaps, labels):
        self.gaps = self.gaps + gaps


def test_cc_sam_for_cosines_tells_the_same_gaps():
    given = given_with(Cosines)
    ours, full = SumOfGaps(), SumOfGaps()
    for observer, known in ((ours, Shortcuts(given.model)), (full, None)):
        make_method("cc_sam", scale=0.3, mix=0.5).update(landscape(given, known, observer), step_of(given))
    torch.testing.assert_close(ours.gaps, full.gaps)
    torch.testing.assert_close(ours.norms[0], torch.stack(full.norms).mean())


def test_vectors_of_a_cosine_classifier_scale_as_vectors_do():
    given = given_with(Cosines)
    ours, full = (landscape(given, known).class_gradients(given.y, 4) for known in (Shortcuts(given.model), None))
    head = [i for i, (name, _) in enumerate(given.model.named_parameters()) if name.startswith("classifier")]
    factors = torch.tensor([[0.5], [-2.0], [3.0], [0.0]], dtype=torch.float64)
    for vectors, columns in ((ours, slice(None)), (full, head)):
        once, twice = vectors.scaled(factors), vectors.scaled(factors).scaled(factors)
        torch.testing.assert_close(once.norms()[:, columns], factors.abs() * vectors.norms()[:, columns])
        torch.testing.assert_close(twice.norms()[:, columns], factors.square() * vectors.norms()[:, columns])
    torch.testing.assert_close(ours.norms(), full.norms()[:, head])


def test_cc_sam_for_cosines_under_gradient_accumulation():
    """The loss is divided before the backward pass, and the vector is that of the whole loss all the same."""
    given = given_with(Cosines)
    method, step = make_method("cc_sam", scale=0.3, mix=0.5), step_of(given)
    divided = method.update(landscape_of(given, divisor=4, shortcuts=Shortcuts(given.model)), step)
    assert_equal(divided.materialize(), method.update(landscape_of(given), step).materialize())


def test_cc_sam_for_cosines_in_bfloat16():
    given = given_with(Cosines)
    given.model, given.x = given.model.bfloat16(), given.x.bfloat16()
    ours, full = (update("cc_sam", {"scale": 0.3}, given, known) for known in (Shortcuts(given.model), None))
    for a, b in zip(ours, full):
        assert a.dtype == torch.bfloat16
        assert (a - b).norm() < 0.05 * b.norm()


@pytest.mark.parametrize("trained", ["weight", "bias"])
@pytest.mark.parametrize("norm", ["global", "per_tensor"])
def test_cc_sam_with_half_a_classifier(trained, norm):
    given = given_with(plain)
    for name, parameter in given.model[2].named_parameters():
        parameter.requires_grad_(name == trained)
    args = {"scale": 0.3, "norm": norm}
    assert_equal(update("cc_sam", args, given, Shortcuts(given.model)), update("cc_sam", args, given, None))


def test_cc_sam_in_bfloat16_under_autocast():
    """The model returns float32 logits made from the classifier's bfloat16 ones."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = plain()

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.inner(x).float()

    torch.manual_seed(0)
    given = problem()
    given.model, given.x = Mixed(), given.x.float()
    seen = rows_passed(given.model)
    ours = update("cc_sam", {"scale": 0.3}, given, Shortcuts(given.model))
    assert seen == [8]
    full = update("cc_sam", {"scale": 0.3}, given, None)
    for a, b in zip(ours, full):
        assert (a - b).norm() < 0.03 * b.norm()


def test_signals_under_autocast():
    torch.manual_seed(0)
    given = problem()
    given.model, given.x = Patches(), given.x.float()
    given.model.forward = torch.autocast("cpu", torch.bfloat16)(given.model.forward)
    shortcuts = Shortcuts(given.model)
    full = update("focal_sam", {"rho": 0.5}, given, None)
    for _ in range(2):
        for a, b in zip(update("focal_sam", {"rho": 0.5}, given, shortcuts), full):
            assert a.dtype == torch.float32
            assert (a - b).norm() < 0.03 * b.norm()
    assert shortcuts.may_use_signals(TrainableWeights(given.model).parameters)


# ---- what a trial must not miss ----


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, h):
        return self.weight * h


class OwnGate(nn.Module):
    """A branch that starts at zero hides what it does; the gate is a parameter of the whole model."""

    def __init__(self, branch):
        super().__init__()
        self.first, self.gate, self.branch = nn.Linear(6, 6), nn.Parameter(torch.zeros(1)), branch
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        h = self.first(x)
        return self.classifier(h + self.gate * self.branch(self, h))


class GateModule(nn.Module):
    """The same, and the gate is a module, whose signals may be taken."""

    def __init__(self, branch):
        super().__init__()
        self.first, self.gated, self.branch, self.classifier = nn.Linear(6, 6), Gate(), branch, nn.Linear(6, 4)

    @property
    def gate(self):
        return self.gated.weight

    def forward(self, x):
        h = self.first(x)
        return self.classifier(h + self.gated(self.branch(self, h)))


HIDDEN = {
    "mean over the batch": lambda self, h: h - h.mean(0),
    "largest of the batch": lambda self, h: h / h.abs().max(),
    "weight used without its module": lambda self, h: F.linear(h, self.first.weight),
    "classifier used in the trunk": lambda self, h: F.linear(h, self.classifier.weight) @ self.classifier.weight,
}


@pytest.mark.parametrize("branch", HIDDEN)
@pytest.mark.parametrize("gated", [OwnGate, GateModule])
@pytest.mark.parametrize(("name", "args"), WITH_WEIGHTINGS, ids=lambda value: str(value))
def test_a_branch_that_starts_at_zero_is_not_overlooked(name, args, gated, branch):
    given = given_with(lambda: gated(HIDDEN[branch]))
    shortcuts = Shortcuts(given.model)
    for gate in (0.0, 1.0):
        given.model.gate.data.fill_(gate)
        assert_equal(update(name, args, given, shortcuts), update(name, args, given, None))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_size_of_the_losses_does_not_matter(scale):
    given = given_with(MODELS["centred by hand"])
    batch, weights = MicroBatch({"x": given.x}, given.y), TrainableWeights(given.model)

    def losses(batch):
        return scale * F.cross_entropy(given.model(batch.inputs["x"]), batch.labels, reduction="none")

    assert not Shortcuts(given.model).may_leave_out_rows(weights, batch, losses)
    for model, verdict in ((given.model, False), (plain().double(), True)):
        batch_loss = lambda b, m=model: scale * F.cross_entropy(m(b.inputs["x"]), b.labels, reduction="none")  # noqa: E731
        assert Shortcuts(model).may_leave_out_rows(TrainableWeights(model), batch, batch_loss) == verdict


def test_a_loss_that_draws_only_where_a_gradient_is_asked_for_leaves_no_row_out():
    given = given_with(plain)
    batch, weights = MicroBatch({"x": given.x}, given.y), TrainableWeights(given.model)
    statistics, loss = ClassStatistics(COUNTS), GaussianClouded()
    state = torch.get_rng_state()

    def losses(batch):
        return loss(given.model(batch.inputs["x"]), batch.labels, statistics)

    assert not Shortcuts(given.model).may_leave_out_rows(weights, batch, losses)
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_that_are_not_finite_decide_nothing():
    given = given_with(plain)
    shortcuts, weights = Shortcuts(given.model), TrainableWeights(given.model)
    batch = MicroBatch({"x": given.x}, given.y)
    before = [p.clone() for p in given.model.parameters()]
    assert not shortcuts.may_leave_out_rows(weights, batch, lambda b: torch.full((len(b),), torch.nan))
    assert shortcuts.may_leave_out_rows(weights, batch, lambda b: given.model(b.inputs["x"]).square().sum(1))
    assert all(torch.equal(a, b) for a, b in zip(before, given.model.parameters())), "the trial puts the weights back"


class OwnEnd(nn.Module):
    """A trunk and a classifier, and something after it."""

    def __init__(self, end):
        super().__init__()
        self.body, self.classifier, self.end = nn.Linear(6, 6), nn.Linear(6, 4), end

    def forward(self, x):
        return self.end(self.classifier, torch.tanh(self.body(x)))


ENDS = {
    "in place": lambda head, h: head(h).mul_(4.0),
    "by keyword": lambda head, h: head(input=h),
    "scaled": lambda head, h: 2 * head(h),
    "twice": lambda head, h: head(h) + 0 * head(h),
}


@pytest.mark.parametrize("end", ENDS)
def test_cc_sam_where_the_classifier_is_not_simply_last(end):
    given = given_with(lambda: OwnEnd(ENDS[end]))
    shortcuts = Shortcuts(given.model)
    for _ in range(2):
        assert_equal(update("cc_sam", {"scale": 0.3}, given, shortcuts), update("cc_sam", {"scale": 0.3}, given, None))


def test_cc_sam_with_a_hook_that_changes_the_logits():
    given = given_with(plain)
    given.model[2].register_forward_hook(lambda *call: 3 * call[2])
    assert_equal(update("cc_sam", {}, given, Shortcuts(given.model)), update("cc_sam", {}, given, None))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(("name", "args"), WITH_WEIGHTINGS, ids=lambda value: str(value))
def test_weight_norm_is_no_plain_linear_layer(name, args):
    given = given_with(plain)
    given.model[0], given.model[2] = (nn.utils.weight_norm(given.model[k]) for k in (0, 2))
    shortcuts = Shortcuts(given.model)
    for _ in range(2):
        assert_equal(update(name, args, given, shortcuts), update(name, args, given, None))


class FixedSize(nn.Module):
    """Takes batches of eight alone."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        return self.classifier(x.view(8, 6))


class OneVector(nn.Module):
    """A linear layer with eight outputs that is given one vector: its rows are no samples."""

    def __init__(self):
        super().__init__()
        self.bias_of_all, self.classifier = nn.Linear(6, 8), nn.Linear(6, 4)

    def forward(self, x):
        return self.classifier(x) + self.bias_of_all(torch.ones_like(x[0])).sum() * torch.arange(4)


@pytest.mark.parametrize("model", [FixedSize, OneVector])
@pytest.mark.parametrize(("name", "args"), WITH_WEIGHTINGS, ids=lambda value: str(value))
def test_models_of_another_kind_are_computed_in_full(name, args, model):
    given = given_with(model)
    shortcuts = Shortcuts(given.model)
    for _ in range(2):
        assert_equal(update(name, args, given, shortcuts), update(name, args, given, None))


def test_a_gradient_that_a_hook_has_kept_is_left_alone():
    given, kept, copies = given_with(plain), [], []

    def keep(g):
        kept.append(g)
        copies.append(g.clone())

    given.model[0].weight.register_hook(keep)
    update("sam", {"rho": 1.0}, given, None)
    assert len(kept) == 2 and all(torch.equal(a, b) for a, b in zip(kept, copies))


def test_the_copy_of_the_weights_follows_their_type():
    model = plain().bfloat16()
    weights = TrainableWeights(model)
    with weights.moved(weights.vector):
        pass
    model.float()
    with torch.no_grad():
        model[0].weight.fill_(1 / 3)
    with weights.moved(weights.vector):
        pass
    assert torch.equal(model[0].weight, torch.full((7, 6), 1 / 3))
