"""Predictions do not depend on the batch size, and agree with a loop written by hand."""

import pytest
import torch
from torch import nn

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification
from hf_ltsam.metrics.long_tail import predicted_classes
from hf_ltsam.training.prediction import TIE, near_ties, predict_logits


class Images:
    """N images of v views."""

    def __init__(self, n, views=1, seed=0):
        self.pixels = torch.randn(n, views, 3, 8, 8, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=5)).eval()


@pytest.mark.parametrize("views", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_loop_by_hand_gives_the_same(model, views, batch_size):
    images = Images(37, views)
    with torch.no_grad():
        by_hand = torch.stack([sum(model(view[None]).logits[0] for view in image) / views for image in images.pixels])
    logits = predict_logits(model, images, batch_size)
    torch.testing.assert_close(logits, by_hand)
    assert torch.equal(logits.argmax(1), by_hand.argmax(1))


class RoundsByBatchSize(nn.Module):
    """Logits of 10 and 10 + gap, off by some 1e-6 of their size, depending on how many rows are computed at once."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, pixel_values):
        self.rows.append(len(pixel_values))
        gap = pixel_values[:, 0, 0, 0] * 5e-5
        error = 2e-5 * (-1) ** len(pixel_values)
        return torch.stack([torch.full_like(gap, 10.0), 10 + gap + error], dim=1)


def test_ties_within_rounding_do_not_depend_on_the_batch_size():
    images = Images(24)
    predictions = [predict_logits(RoundsByBatchSize(), images, size).argmax(1) for size in (1, 4, 5, 24)]
    assert all(torch.equal(predictions[0], p) for p in predictions[1:])
    assert 0 < predictions[0].sum() < 24  # there is something to decide


def test_only_ties_are_computed_alone():
    class Clear(RoundsByBatchSize):
        def forward(self, pixel_values):
            logits = super().forward(pixel_values)
            logits[1:, 1] += 1  # the first row of a batch remains a tie
            return logits

    model = Clear()
    predict_logits(model, Images(12), 6)
    assert model.rows == [6, 1, 6, 1]


def test_near_ties():
    logits = torch.tensor(
        [[10.0, 10.0, 0.0], [10.0, 10 - 0.5e-3, 0.0], [10.0, 9.99, 0.0], [0.0, 0.0, 0.0], [-1e4, 0.0, 0.5]]
    )
    assert near_ties(logits).tolist() == [True, True, False, True, True]
    assert TIE == 1e-4
    twelve = torch.arange(12.0).repeat(3, 1)
    twelve[1, 7] = 6.9999  # the fifth place
    twelve[2, 9] = 8.9999  # the second and third: neither the first nor the leading five change
    assert near_ties(twelve).tolist() == [False, False, False]
    twelve[1, 7] = 6.0
    assert near_ties(twelve).tolist() == [False, True, False]


def test_nan_is_no_class():
    class Diverged(nn.Module):
        def forward(self, pixel_values):
            return torch.tensor([[0.0, float("nan")], [1.0, 0.0]])

    assert predicted_classes(predict_logits(Diverged(), Images(2))).tolist() == [-1, 0]


def test_workers_change_nothing(model):
    images = Images(9)
    assert torch.equal(predict_logits(model, images, 4, num_workers=2), predict_logits(model, images, 4))


def test_settings_come_back(model):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    predict_logits(model, Images(2))
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"num_workers": -1}])
def test_settings_out_of_range(model, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        predict_logits(model, Images(2), **settings)
