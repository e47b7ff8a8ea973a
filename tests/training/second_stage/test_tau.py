"""tau-normalisation and how tau is chosen."""

import numpy as np
import pytest
import torch
from torch import nn

from hf_ltsam.training.second_stage import choose_tau, hold_out, tau_normalise


def test_class_vectors_are_divided_by_a_power_of_their_length_and_biases_go():
    torch.manual_seed(0)
    before, layer = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()
    layer.load_state_dict(before.state_dict())
    tau_normalise(layer, 0.7)
    for c in range(3):
        w = before.weight[c].detach().numpy()
        np.testing.assert_allclose(layer.weight[c].detach().numpy(), w / np.sqrt((w**2).sum()) ** 0.7, rtol=1e-10)
    assert (layer.bias == 0).all()
    tau_normalise(layer, 1.0)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-10)


def test_zero_leaves_the_weights():
    layer = nn.Linear(6, 3, bias=False)
    before = layer.weight.clone()
    tau_normalise(layer, 0.0)
    assert torch.equal(layer.weight, before)


def test_the_choice_is_by_the_mean_over_classes():
    """A long class vector wins everything until lengths are evened out; then the rare class, of one image, is right too."""
    weight = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[1.0, 0.2]] * 9 + [[0.6, 1.2]])
    labels = torch.tensor([0] * 9 + [1])
    choice = choose_tau(weight, features, labels, (1.0, 0.0, 0.5, 3.0))
    assert choice.accuracies == {
        0.0: 0.5,
        0.5: 0.5,
        1.0: 1.0,
        3.0: 0.5,
    }  # at 0.5: 2 * 0.6 = 1.2 against 1.2, a tie for class 0
    assert (choice.tau, choice.samples) == (1.0, 10)


def test_every_class_is_held_out_by_its_share():
    labels = torch.tensor([0] * 50 + [1] * 11 + [2] * 2 + [4])
    rows = hold_out(labels, 0.2, seed=1)
    assert np.bincount(labels[rows], minlength=5).tolist() == [10, 2, 1, 0, 0]
    assert torch.equal(rows, hold_out(labels, 0.2, seed=1)) and (rows[1:] > rows[:-1]).all()
    assert not torch.equal(rows, hold_out(labels, 0.2, seed=2))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.3, 0.49])
def test_a_share_below_a_half_leaves_a_class_at_least_half_of_it(share):
    for size in range(1, 30):
        assert len(hold_out(torch.zeros(size, dtype=torch.long), share, seed=0)) <= size // 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"tau": -1}, "TauNorm"),
        ({"taus": []}, "must be a list"),
        ({"share": 1.0}, r"share=\.\.\."),
        ({"share": 0}, r"share=\.\.\."),
    ],
)
def test_refusals(args, message):
    from hf_ltsam.training.second_stage import make_second_stage

    with pytest.raises(ValueError, match=message):
        make_second_stage("tau_norm", **args)
