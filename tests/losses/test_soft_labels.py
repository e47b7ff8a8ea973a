"""Soft labels: every loss is linear in them, and at one class of each sample it is what it is for class indices."""

import pytest
import torch
from losses.test_losses import CASES as ALL_CASES
from losses.test_losses import COUNTS, STATISTICS
from torch.nn import functional as F

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.soft_labels import check_shares, class_sums, of_samples, present_classes, shares_of, smoothed
from hf_ltsam.losses import FeatureLoss, make_loss
from hf_ltsam.losses.reweighting import Reweighting

CASES = [case for case in ALL_CASES if case[0] != "binary_cross_entropy"]  # its labels are no shares
C = len(COUNTS)
IDS = [f"{name}-{'-'.join(map(str, args.values()))}" for name, args, _ in CASES]
# -log p from a softmax that keeps all classes and its logarithm's difference are one number but for this, relative
ROUNDING = {torch.float64: 1e-12, torch.float32: 3e-5}


def problem(dtype=torch.float64, n=7):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, C, dtype=torch.float64, generator=generator)
    shares = torch.rand(n, C, dtype=torch.float64, generator=generator)
    shares[0, 1:], shares[1, 2:] = 0, 0
    labels = torch.randint(C, (n,), generator=generator)
    return logits.to(dtype), shares / shares.sum(1, keepdim=True), labels


def losses_and_gradient(loss, logits, labels, weights=None):
    torch.manual_seed(1)  # GCL draws
    z = logits.clone().requires_grad_()
    more = (2 * z[:, :3],) if isinstance(loss, FeatureLoss) else ()
    losses = loss(z, labels, STATISTICS, *more)
    total = losses.sum() if weights is None else (weights * losses).sum()
    return losses.detach(), torch.autograd.grad(total, z)[0]


@pytest.mark.parametrize(("name", "args", "naive"), CASES, ids=IDS)
def test_is_the_mean_over_the_classes_of_a_sample(name, args, naive):
    logits, shares, _ = problem()
    loss = make_loss(name, **args)
    more = (2 * logits[:, :3],) if isinstance(loss, FeatureLoss) else ()
    expected = [
        sum(
            q * (naive(z, y, COUNTS, **args) if args or name != "cross_entropy" else naive(z, y, COUNTS))
            for y, q in enumerate(row)
        )
        for z, row in zip(logits.tolist(), shares.tolist())
    ]
    ours = loss(logits, shares, STATISTICS, *more)
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("name", "args", "naive"), CASES, ids=IDS)
def test_at_one_class_it_is_the_loss_of_that_class(name, args, naive, dtype):
    logits, _, labels = problem(dtype)
    hard = losses_and_gradient(make_loss(name, **args), logits, labels)
    soft = losses_and_gradient(make_loss(name, **args), logits, F.one_hot(labels, C).to(dtype))
    for a, b in zip(hard, soft):
        torch.testing.assert_close(a, b, rtol=ROUNDING[dtype], atol=ROUNDING[dtype] / 10)


@pytest.mark.parametrize("name", ["cross_entropy", "logit_adjustment", "balanced_softmax", "vector_scaling"])
def test_at_one_class_it_is_that_to_the_last_bit(name):
    logits, _, labels = problem(torch.float32, n=64)
    hard = losses_and_gradient(make_loss(name), logits, labels)
    soft = losses_and_gradient(make_loss(name), logits, F.one_hot(labels, C).float())
    assert all(torch.equal(a, b) for a, b in zip(hard, soft))


@pytest.mark.parametrize("scheme", ["inverse", "effective_number"])
@pytest.mark.parametrize(("name", "args", "naive"), CASES, ids=IDS)
def test_class_weights_are_inside_of_the_mean(name, args, naive, scheme):
    """As torch's cross-entropy takes `weight`: sum over c of w_c q_c l_c."""
    logits, shares, labels = problem()
    loss, reweighting = make_loss(name, **args), Reweighting(scheme)
    ones = [torch.full((len(logits),), c) for c in range(C)]
    by_class = [losses_and_gradient(loss, logits, y)[0] for y in ones]
    w = [reweighting.weights(0.5, STATISTICS, y, logits)[0] for y in ones]
    expected = sum(w_c * shares[:, c] * by_class[c] for c, w_c in enumerate(w))
    ours = losses_and_gradient(loss, logits, reweighting.within(0.5, STATISTICS, shares))[0]
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    assert reweighting.within(0.5, STATISTICS, labels) is labels, "class indices are weighted outside"
    assert Reweighting(scheme, start=0.8).within(0.5, STATISTICS, shares) is shares, "before their start"


def test_class_weights_of_labels_in_bfloat16_keep_their_digits():
    statistics, labels = ClassStatistics((1280, 1270, 3)), torch.tensor([0, 1, 2])
    hard = Reweighting("inverse").weights(0.0, statistics, labels, torch.zeros(()))
    soft = Reweighting("inverse").within(0.0, statistics, F.one_hot(labels, 3).bfloat16())
    assert torch.equal(soft.sum(1), hard)


def test_smoothed_labels_are_torch_s_label_smoothing():
    logits, shares, labels = problem()
    ours = make_loss("cross_entropy")(logits, smoothed(labels, C, 0.1), STATISTICS)
    stock = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-6)  # shares of indices are float32
    assert torch.equal(smoothed(shares, C, 0.0), shares)
    w = torch.rand(C, dtype=torch.float64)  # the class weights of a sample of one class are those of its smoothed loss
    weighted = make_loss("cross_entropy")(logits, smoothed(w * F.one_hot(labels, C), C, 0.1), STATISTICS)
    torch.testing.assert_close(weighted, w[labels] * stock, rtol=0, atol=1e-6)


def test_values_of_classes_for_samples():
    values = torch.tensor([0.1, 0.7, 0.3, 0.9, 0.2])
    labels = torch.tensor([4, 0, 2, 2])
    assert torch.equal(of_samples(values, labels), of_samples(values, shares_of(labels, C)))
    soft = torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert of_samples(values, soft).tolist() == pytest.approx([0.4, 0.2])
    assert present_classes(soft) == [0, 1, 4] and present_classes(labels) == [0, 2, 4]
    assert class_sums(soft, C).tolist() == [0.5, 0.5, 0, 0, 1] and class_sums(labels, C).tolist() == [1, 0, 2, 0, 1]


def test_rows_that_are_no_shares():
    check_shares(torch.tensor([[0.7, 0.3], [0, 1]]).bfloat16(), 2)
    for rows, words in (
        ([[0.7, 0.7]], "Row 0.*1.4"),
        ([[0.5, 0.5], [-0.5, 1.5]], "Row 1.*-0.5"),
        ([[float("nan"), 1]], "nan"),
    ):
        with pytest.raises(ValueError, match=words):
            check_shares(torch.tensor(rows), 2)
    with pytest.raises(ValueError, match=r"\(n, 3\).*\(1, 2\)"):
        check_shares(torch.tensor([[1.0, 0]]), 3)
    with pytest.raises(ValueError, match="Label 3"):
        shares_of(torch.tensor([0, 3]), 3)


def test_weighted_shares_are_smoothed_by_their_weight():
    """A sample of weight w, its label smoothed, is w times the smoothed sample: of mixed images under class weights too."""
    weights = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    shares = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(smoothed(weights * shares, 3, 0.3), weights * (0.7 * shares + 0.1))
