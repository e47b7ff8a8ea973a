"""Every loss against its paper's equation in naive numpy, one sample at a time and nothing of ours imported there."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.losses import (
    LDAM,
    LOSSES,
    BalancedSoftmax,
    ClassBalanced,
    CrossEntropy,
    FeatureLoss,
    Focal,
    GaussianClouded,
    InfluenceBalanced,
    LabelAwareSmoothing,
    LogitAdjustment,
    VectorScaling,
    make_loss,
)
from hf_ltsam.losses.protocol import takes_several_labels

COUNTS = (500, 120, 33, 7, 1)
STATISTICS = ClassStatistics(counts=COUNTS)


# --- the papers, naively ---------------------------------------------------------------------------------------------


def ce(z, y):
    return math.log(sum(math.exp(v) for v in z)) - z[y]


def focal(z, y, n, gamma=2.0):  # Lin 2017 Eq. 4
    p = math.exp(z[y]) / sum(math.exp(v) for v in z)
    return -((1 - p) ** gamma) * math.log(p)


def class_balanced(z, y, n, beta=0.9999):  # Cui 2019 Sec. 4, weights summing to C
    alpha = [(1 - beta) / (1 - beta**m) for m in n]
    return alpha[y] * len(n) / sum(alpha) * ce(z, y)


def ldam(z, y, n, max_m=0.5, s=30.0):  # Rangwani et al. 2022 Eq. 1, Lyu et al. 2025 Eq. 98; C tuned so that max = max_m
    big_c = max_m * min(n) ** 0.25
    cosine = [v / s for v in z]
    cosine[y] -= big_c / n[y] ** 0.25
    return ce([s * v for v in cosine], y)


def logit_adjustment(z, y, n, tau=1.0):  # Menon 2021 Eq. 10
    return ce([v + tau * math.log(m / sum(n)) for v, m in zip(z, n)], y)


def balanced_softmax(z, y, n):  # Ren 2020 Sec. 3
    return -math.log(n[y] * math.exp(z[y]) / sum(m * math.exp(v) for v, m in zip(z, n)))


def vector_scaling(z, y, n, gamma=0.05, tau=0.75):  # Rangwani et al. 2022 Eq. 3, Lyu et al. 2025 Eq. 100; Kini 2021
    scaled = [v * (m / max(n)) ** gamma + tau * math.log(m / sum(n)) for v, m in zip(z, n)]
    return ce(scaled, y)


def label_aware_smoothing(z, y, n, head=0.3, tail=0.0, shape="concave"):  # Zhong 2021: q_y = 1 - f(N_y), rest shared
    small, large = min(n), max(n)
    angle = math.pi * (n[y] - small) / (2 * (large - small))
    f = {
        "concave": tail + (head - tail) * math.sin(angle),
        "linear": tail + (head - tail) * (n[y] - small) / (large - small),
        "convex": head + (head - tail) * math.sin(3 * math.pi / 2 + angle),
    }[shape]
    return sum((1 - f if j == y else f / (len(n) - 1)) * ce(z, j) for j in range(len(n)))


def influence_balanced(z, y, n, alpha=1000.0, epsilon=1e-3, class_weighting="inverse"):  # Park 2021 Sec. 3
    exp = [math.exp(v) for v in z]
    error = [e / sum(exp) - (k == y) for k, e in enumerate(exp)]
    h = [2 * v for v in z[:3]]
    influence = sum(abs(e * h_l) for e in error for h_l in h)  # of the last layer's weight (C, D), entry by entry
    inverse = [1 / m for m in n] if class_weighting == "inverse" else [1] * len(n)
    return alpha * len(n) * inverse[y] / sum(inverse) * ce(z, y) / (influence + epsilon)


def gaussian_clouded(z, y, n, m=0.0, s=30.0, noise=0.5, xi=None):  # Li 2022; xi = 0 where no gradient is asked for
    rarity = [math.log(max(n) / k) / math.log(max(n) / min(n)) for k in n]
    shifted = [v - s * noise * r * min(abs(x), 1) for v, r, x in zip(z, rarity, xi or [0] * len(n))]
    shifted[y] -= s * m
    return ce(shifted, y)


def binary_cross_entropy(z, y, n, tau=0.0, class_weighting="none"):  # Menon 2021 Eq. 10, of two classes for every label
    inverse = [1 / m if class_weighting == "inverse" else 1 for m in n]
    total = 0.0
    for c, (v, m) in enumerate(zip(z, n)):
        p = 1 / (1 + math.exp(-v) * ((1 - m / sum(n)) / (m / sum(n))) ** tau)
        total -= len(n) * inverse[c] / sum(inverse) * math.log(p if c == y else 1 - p)
    return total / len(n)


CASES = [
    ("cross_entropy", {}, lambda z, y, n: ce(z, y)),
    ("focal", {}, focal),
    ("focal", {"gamma": 0.5}, focal),
    ("class_balanced", {}, class_balanced),
    ("class_balanced", {"beta": 0.9}, class_balanced),
    ("class_balanced", {"beta": 0.0}, class_balanced),
    ("ldam", {}, ldam),
    ("ldam", {"max_m": 0.3, "s": 10.0}, ldam),
    ("logit_adjustment", {}, logit_adjustment),
    ("logit_adjustment", {"tau": 0.75}, logit_adjustment),
    ("balanced_softmax", {}, balanced_softmax),
    ("vector_scaling", {}, vector_scaling),
    ("vector_scaling", {"gamma": 0.3, "tau": 1.25}, vector_scaling),
    ("label_aware_smoothing", {}, label_aware_smoothing),
    ("label_aware_smoothing", {"head": 0.4, "tail": 0.1, "shape": "linear"}, label_aware_smoothing),
    ("label_aware_smoothing", {"head": 0.4, "tail": 0.1, "shape": "convex"}, label_aware_smoothing),
    ("influence_balanced", {}, influence_balanced),
    ("influence_balanced", {"alpha": 3.0, "epsilon": 0.5, "class_weighting": "none"}, influence_balanced),
    ("gaussian_clouded", {}, gaussian_clouded),
    ("gaussian_clouded", {"m": 0.1, "s": 20.0, "noise": 1.0}, gaussian_clouded),
    ("binary_cross_entropy", {}, binary_cross_entropy),
    ("binary_cross_entropy", {"tau": 1.0, "class_weighting": "inverse"}, binary_cross_entropy),
]


def losses_of(loss, logits, labels, like=None):
    """With features that follow from the logits, or from others, where the loss reads them; labels as it takes them."""
    labels = F.one_hot(labels, logits.shape[1]) if takes_several_labels(loss) else labels
    features = ((logits if like is None else like).detach()[:, :3] * 2,) if isinstance(loss, FeatureLoss) else ()
    return loss(logits, labels, STATISTICS, *features)


def a_batch(n=40, num_classes=5, dtype=torch.float64, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.arange(n) % num_classes
    return logits.to(dtype), labels


@pytest.mark.parametrize("name, arguments, reference", CASES)
def test_the_equation(name, arguments, reference):
    logits, labels = a_batch()
    got = losses_of(make_loss(name, **arguments), logits, labels)
    expected = [reference(z, y, COUNTS, **arguments) for z, y in zip(logits.tolist(), labels.tolist())]
    assert got.shape == (40,) and got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_every_registered_loss_has_a_case():
    assert {name for name, _, _ in CASES} == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_the_equation(name):
    loss = make_loss(name, **({"alpha": 1.0, "through_weight": True} if name == "influence_balanced" else {}))
    logits, labels = a_batch(n=6)
    fixed = logits.clone()

    def losses(z):
        torch.manual_seed(0)  # some losses draw
        return losses_of(loss, z, labels, fixed)

    assert torch.autograd.gradcheck(losses, logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_types(name, dtype):
    logits, labels = a_batch(dtype=dtype)
    logits.requires_grad_()
    losses = losses_of(make_loss(name), logits, labels)
    losses.sum().backward()
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert logits.grad.dtype == dtype and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_lose_nothing_in_the_adjustment(name):
    """log n_c of 1,280 and 1,279 images are one number in bfloat16."""
    logits, labels = a_batch(dtype=torch.bfloat16, seed=3)
    exact = losses_of(make_loss(name), logits.double(), labels)
    torch.testing.assert_close(losses_of(make_loss(name), logits, labels).double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_samples_do_not_interact_and_nothing_is_written(name):
    loss = make_loss(name)
    logits, labels = a_batch(n=7)
    kept = logits.clone()
    together = losses_of(loss, logits, labels)
    alone = torch.cat([losses_of(loss, logits[i : i + 1], labels[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(logits, kept, rtol=0, atol=0)
    torch.testing.assert_close(together, losses_of(loss, logits, labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_selection_gives_an_empty_loss(name):
    logits, labels = a_batch(n=5)
    assert losses_of(make_loss(name), logits[:0], labels[:0]).shape == (0,)


@pytest.mark.parametrize("loss", [*(cls() for cls in LOSSES.values()), Focal(gamma=0.5), Focal(gamma=0)], ids=repr)
def test_extreme_logits_stay_finite(loss):
    """(1 - p)^gamma has no derivative at p = 1 for gamma < 1."""
    logits = torch.tensor([[200.0, 0, 0, 0, -200], [-200.0, 0, 0, 0, 200]], requires_grad=True)
    losses = losses_of(loss, logits, torch.tensor([0, 0]))
    losses.sum().backward()
    assert losses.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize("n, num_classes", [(1, 2), (7, 10), (64, 10), (100, 1000), (3, 8142)])
def test_cross_entropy_has_torchs_gradient_bit_for_bit(n, num_classes):
    logits, labels = a_batch(n, num_classes, torch.float32)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    CrossEntropy()(ours, labels, ClassStatistics(counts=(1,) * num_classes)).mean().backward()
    F.cross_entropy(theirs, labels).backward()
    assert torch.equal(ours.grad, theirs.grad)


# --- identities ------------------------------------------------------------------------------------------------------


def value_and_gradient(loss, statistics=STATISTICS):
    logits, labels = a_batch()
    logits.requires_grad_()
    losses = loss(logits, labels, statistics)
    return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]


@pytest.mark.parametrize(
    "one, other",
    [
        (Focal(gamma=0), CrossEntropy()),
        (ClassBalanced(beta=0), CrossEntropy()),
        (LDAM(max_m=0), CrossEntropy()),
        (LogitAdjustment(tau=0), CrossEntropy()),
        (VectorScaling(gamma=0, tau=0), CrossEntropy()),
        (LabelAwareSmoothing(head=0.0), CrossEntropy()),
        (GaussianClouded(noise=0.0), CrossEntropy()),
        (LabelAwareSmoothing(0.4, 0.4, "convex"), LabelAwareSmoothing(0.4, 0.4)),
        (VectorScaling(gamma=0, tau=0.75), LogitAdjustment(tau=0.75)),
        (BalancedSoftmax(), LogitAdjustment(tau=1)),
    ],
)
def test_limits(one, other):
    for a, b in zip(value_and_gradient(one), value_and_gradient(other)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("loss", [ClassBalanced(), LogitAdjustment(), BalancedSoftmax(), VectorScaling()], ids=repr)
def test_a_balanced_training_set_leaves_cross_entropy(loss):
    balanced = ClassStatistics(counts=(20,) * 5)
    for a, b in zip(value_and_gradient(loss, balanced), value_and_gradient(CrossEntropy())):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_label_aware_smoothing_between_tail_and_head():
    """The largest class is smoothed by `head`, the smallest by `tail`, and with one size for all everything by `tail`."""
    for shape in ("concave", "linear", "convex"):
        loss = LabelAwareSmoothing(0.4, 0.1, shape)
        for statistics, label, eps in ((STATISTICS, 0, 0.4), (STATISTICS, 4, 0.1), (ClassStatistics((7,) * 5), 2, 0.1)):
            logits = torch.zeros(1, 5, dtype=torch.float64)
            logits[0, label] = 1.0
            plain = math.log(math.e + 4)
            assert loss(logits, torch.tensor([label]), statistics).item() == pytest.approx(plain - 1 + eps)


def test_ldam_margins_follow_the_fourth_root():
    """One tight logit: the loss of a class rises with s times its margin, the smallest class having max_m."""
    statistics = ClassStatistics(counts=(16, 1))
    logits = torch.zeros(2, 2, dtype=torch.float64)
    got = LDAM(max_m=0.5, s=30.0)(logits, torch.tensor([0, 1]), statistics)
    margins = [0.25, 0.5]  # 16^(-1/4) = 1/2
    assert got.tolist() == pytest.approx([math.log1p(math.exp(30 * m)) for m in margins])


def test_per_class_tables_are_made_once(monkeypatch):
    losses = [make_loss(name) for name in LOSSES]
    logits, labels = a_batch(n=5)
    for loss in losses:
        losses_of(loss, logits, labels)
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: pytest.fail("a table was made anew"))
    for loss in losses:
        losses_of(loss, logits, labels)


# --- Gaussian clouded logits -----------------------------------------------------------------------------------------


def test_the_cloud_of_a_training_pass():
    logits, labels = a_batch()
    arguments = {"m": 0.1, "s": 5.0, "noise": 0.8}
    torch.manual_seed(3)
    got = make_loss("gaussian_clouded", **arguments)(logits.clone().requires_grad_(), labels, STATISTICS)
    torch.manual_seed(3)
    xi = torch.randn(40, 5, dtype=torch.float64) / 3
    rows = zip(logits.tolist(), labels.tolist(), xi.tolist())
    expected = [gaussian_clouded(z, y, COUNTS, xi=x, **arguments) for z, y, x in rows]
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-10)


def test_classes_of_one_size_have_no_cloud():
    logits, labels = a_batch()
    balanced = ClassStatistics(counts=(20,) * 5)
    got = GaussianClouded(noise=1.0)(logits.requires_grad_(), labels, balanced)
    torch.testing.assert_close(got, CrossEntropy()(logits, labels, balanced))


# --- influence-balanced ----------------------------------------------------------------------------------------------


def last_layer_gradients(loss):
    """||d l_i / d W||_1 of each sample, W the last layer's weight, and lam_i."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    h, labels = torch.randn(10, 3, generator=generator, dtype=torch.float64), torch.arange(10) % 5
    losses = loss(h @ weight.T, labels, STATISTICS, h)
    norms = [torch.autograd.grad(loss_i, weight, retain_graph=True)[0].abs().sum().item() for loss_i in losses]
    inverse = [1 / n for n in COUNTS]
    return norms, [loss.alpha * 5 * inverse[y] / sum(inverse) for y in labels.tolist()]


def test_every_sample_has_the_influence_of_its_class():
    """What the loss is named after, and what holds only where the divisor is a weight and nothing flows through it."""
    norms, lam = last_layer_gradients(InfluenceBalanced(epsilon=1e-12))
    assert norms == pytest.approx(lam, rel=1e-9)
    through, lam = last_layer_gradients(InfluenceBalanced(epsilon=1e-12, through_weight=True))
    assert through != pytest.approx(lam, rel=1e-2)


@pytest.mark.parametrize("through_weight", [False, True])
def test_what_flows_through_the_features(through_weight):
    logits, labels = a_batch(n=4)
    features = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    losses = InfluenceBalanced(through_weight=through_weight)(logits.requires_grad_(), labels, STATISTICS, features)
    (gradient,) = torch.autograd.grad(losses.sum(), features, allow_unused=True)
    assert (gradient is not None) == through_weight


# --- names and bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_frozen_hashable_and_json_able(name):
    loss = make_loss(name)
    assert loss == LOSSES[name]() and hash(loss) == hash(LOSSES[name]())
    assert all(isinstance(v, float | str | bool) for v in dataclasses.asdict(loss).values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.gamma = 1.0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: make_loss("logit_adjustmnet"), r"Unknown loss 'logit_adjustmnet'.*'logit_adjustment'"),
        (lambda: make_loss("focal", gama=1.0), r"'focal' has no argument 'gama'.*'gamma'"),
        (lambda: make_loss("cross_entropy", tau=1.0), r"'cross_entropy' has no argument 'tau'"),
        (lambda: Focal(gamma=-1), r"Focal\(gamma=\.\.\.\) must be non-negative and finite, got -1"),
        (lambda: Focal(gamma=float("nan")), r"Focal\(gamma=.*nan"),
        (lambda: Focal(gamma=float("inf")), r"Focal\(gamma=.*inf"),
        (lambda: Focal(gamma="2"), r"Focal\(gamma=.*'2'"),
        (lambda: ClassBalanced(beta=1.0), r"ClassBalanced\(beta=.*\[0, 1\).*1\.0"),
        (lambda: ClassBalanced(beta=-0.1), r"ClassBalanced\(beta=.*-0\.1"),
        (lambda: LDAM(max_m=-0.5), r"LDAM\(max_m=.*non-negative.*-0\.5"),
        (lambda: LDAM(s=0), r"LDAM\(s=.*positive.*0"),
        (lambda: LogitAdjustment(tau=-1), r"LogitAdjustment\(tau=.*-1"),
        (lambda: LabelAwareSmoothing(head=1.0), r"LabelAwareSmoothing\(head=.*\[0, 1\).*1\.0"),
        (lambda: LabelAwareSmoothing(tail=-0.1), r"LabelAwareSmoothing\(tail=.*\[0, 1\).*-0\.1"),
        (lambda: LabelAwareSmoothing(shape="sine"), r"LabelAwareSmoothing\(shape='sine'\) does not exist.*'?concave"),
        (lambda: GaussianClouded(noise=-1), r"GaussianClouded\(noise=.*non-negative.*-1"),
        (lambda: GaussianClouded(s=0), r"GaussianClouded\(s=.*positive.*0"),
        (lambda: InfluenceBalanced(alpha=0), r"InfluenceBalanced\(alpha=.*positive.*0"),
        (lambda: InfluenceBalanced(epsilon=-1), r"InfluenceBalanced\(epsilon=.*positive.*-1"),
        (
            lambda: InfluenceBalanced(class_weighting="inverted"),
            r"class_weighting='inverted'\) does not exist.*'inverse'",
        ),
        (lambda: InfluenceBalanced(through_weight="yes"), r"InfluenceBalanced\(through_weight=.*'yes'"),
        (lambda: VectorScaling(gamma=-1), r"VectorScaling\(gamma=.*-1"),
        (lambda: VectorScaling(tau=None), r"VectorScaling\(tau=.*None"),
    ],
)
def test_bad_names_and_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_noise_of_the_clouded_logits_is_cut_off_at_one(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, -9.0))
    z = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    y = torch.arange(5)
    rarity = [math.log(COUNTS[0] / n) / math.log(COUNTS[0] / COUNTS[-1]) for n in COUNTS]
    loss = GaussianClouded(noise=0.5, m=0.1, s=2.0)
    for row, c, ours in zip(z.tolist(), y.tolist(), loss(z, y, STATISTICS).tolist()):
        clouded = [v - 2.0 * (0.5 * r + 0.1 * (k == c)) for k, (v, r) in enumerate(zip(row, rarity))]
        assert ours == pytest.approx(ce(clouded, c), rel=1e-9)
