"""Mixup and CutMix as their papers write them, and draws that depend on (seed, batch) alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_ltsam.data.mixing import MixingSettings, Mixture

IMAGES = torch.arange(4 * 3 * 8 * 6, dtype=torch.float32).view(4, 3, 8, 6)
LABELS = torch.tensor([0, 1, 2, 1])


def test_mixup_is_its_equation():
    """x = lam x_i + (1 - lam) x_j, y likewise (Zhang et al. 2018 Eq. 1)."""
    partners = torch.tensor([2, 0, 1, 3])
    inputs, labels = Mixture(partners, 0.3, None).of({"pixel_values": IMAGES, "flag": True}, LABELS, 3)
    assert inputs["flag"] is True
    for i, j in enumerate(partners.tolist()):
        torch.testing.assert_close(inputs["pixel_values"][i], 0.3 * IMAGES[i] + 0.7 * IMAGES[j])
        expected = [0.3 * (c == LABELS[i]) + 0.7 * (c == LABELS[j]) for c in range(3)]
        assert labels[i].tolist() == pytest.approx([float(v) for v in expected])


@pytest.mark.parametrize(
    ("share", "middle"), [(0.4, (0.5, 0.5)), (0.4, (0.0, 0.99)), (0.0, (0.5, 0.5)), (1.0, (0.5, 0.5))]
)
def test_cutmix_is_its_equation(share, middle):
    """x = M x_i + (1 - M) x_j with a rectangle of sides sqrt(1 - lam), lam then the share of M (Yun et al. 2019)."""
    partners = torch.tensor([1, 2, 3, 0])
    inputs, labels = Mixture(partners, share, middle).of({"x": IMAGES}, LABELS, 3)
    height, width = 8, 6
    r_h, r_w = int(height * np.sqrt(1 - share)), int(width * np.sqrt(1 - share))
    y, x = int(middle[0] * height), int(middle[1] * width)
    inside = np.zeros((height, width), bool)
    inside[max(y - r_h // 2, 0) : min(y + r_h // 2, height), max(x - r_w // 2, 0) : min(x + r_w // 2, width)] = True
    for i, j in enumerate(partners.tolist()):
        assert np.array_equal(inputs["x"][i].numpy(), np.where(inside, IMAGES[j], IMAGES[i]))
        lam = 1 - inside.mean()
        assert labels[i].tolist() == pytest.approx(
            [float(lam * (c == LABELS[i]) + (1 - lam) * (c == LABELS[j])) for c in range(3)]
        )
    assert IMAGES[0, 0, 0, 0] == 0 and IMAGES[-1, -1, -1, -1] == 4 * 3 * 8 * 6 - 1, "the batch itself is left alone"


def test_soft_labels_are_mixed_too():
    soft = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    _, labels = Mixture(torch.tensor([1, 0]), 0.5, None).of({"x": IMAGES[:2]}, soft, 2)
    assert labels.tolist() == [pytest.approx([0.6, 0.4])] * 2
    _, labels = Mixture(torch.tensor([1, 0]), 1.0, None).of({"x": IMAGES[:2]}, soft, 2)
    assert torch.equal(labels, soft)


def test_a_draw_is_a_function_of_seed_and_batch():
    settings = MixingSettings(mixup_alpha=0.4, cutmix_alpha=1.0)
    first, again = (Mixture.drawn(settings, 3, 7, 16) for _ in range(2))
    assert torch.equal(first.partners, again.partners) and (first.share, first.corner) == (again.share, again.corner)
    others = [Mixture.drawn(settings, seed, batch, 16) for seed, batch in ((4, 7), (3, 8))]
    assert all(other.share != first.share and not torch.equal(other.partners, first.partners) for other in others)
    assert sorted(first.partners.tolist()) == list(range(16))


def test_shares_are_those_of_the_distribution():
    """Of Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)); of two kinds of mixing each comes in half of the batches."""
    for alpha in (0.2, 1.0, 5.0):
        shares = np.array([Mixture.drawn(MixingSettings(mixup_alpha=alpha), 0, b, 2).share for b in range(2000)])
        assert shares.mean() == pytest.approx(0.5, abs=0.04)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    both = MixingSettings(mixup_alpha=1.0, cutmix_alpha=1.0)
    cut = [Mixture.drawn(both, 0, b, 2).corner is not None for b in range(2000)]
    assert np.mean(cut) == pytest.approx(0.5, abs=0.05)
    assert all(Mixture.drawn(MixingSettings(cutmix_alpha=1.0), 0, b, 2).corner is not None for b in range(50))


@pytest.mark.parametrize(
    ("inputs", "corner", "words"),
    [
        ({"input_ids": torch.zeros(4, 5).long()}, None, r"mixup_alpha.*'input_ids'.*int64.*mixup_alpha=0"),
        ({"pixel_values": IMAGES, "mask": torch.ones(4, 8).bool()}, (0.5, 0.5), r"cutmix_alpha.*'mask'.*bool"),
        ({"x": torch.zeros(4, 5)}, (0.5, 0.5), r"cutmix_alpha.*'x' \(4, 5\).*mixup_alpha"),
        ({"a": IMAGES, "b": IMAGES}, (0.5, 0.5), r"one input of images.*'a'.*'b'"),
    ],
)
def test_what_cannot_be_mixed(inputs, corner, words):
    with pytest.raises(ValueError, match=words):
        Mixture(torch.arange(4), 0.5, corner).of(inputs, LABELS, 3)


def test_settings_are_checked():
    from hf_ltsam import LTSamConfig

    for name in ("mixup_alpha", "cutmix_alpha"):
        with pytest.raises(ValueError, match=rf"{name}=\.\.\.\) must be non-negative.*-1"):
            LTSamConfig(use_cpu=True, **{name: -1.0})
    assert MixingSettings().mixing == {} and MixingSettings(0.2).mixing == {"mixup_alpha": 0.2}


def test_labels_outside_the_classes_are_named():
    with pytest.raises(ValueError, match="Label 2"):
        Mixture(torch.arange(4), 0.5, None).of({"x": IMAGES}, LABELS, 2)
    assert F.one_hot(LABELS).shape == (4, 3)
