"""At one class of each sample a method's vector is that of class indices: every method, with every loss.

The vectors of soft labels themselves are rows of `test_equations.py`.
"""

import pytest
import torch
from methods.problems import assert_equal, problem, statistics_of, step_of
from methods.test_equations import TABLE
from torch import Tensor, nn
from torch.nn import functional as F

from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.landscape.landscape import LossLandscape
from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.losses import LOSSES, make_loss
from hf_ltsam.losses.features import classifier_inputs, losses_of
from hf_ltsam.losses.protocol import takes_several_labels
from hf_ltsam.methods import METHODS, make_method
from hf_ltsam.models.cosine_classifier import CosineClassifier

FIRST = dict(reversed(TABLE))  # one row of each method
ROUNDING = 1e-10  # of gradients of length 0.1 to 10 in float64, whose classes are added up in another order
HEADS = {"linear": lambda: nn.Linear(7, 4), "cosine": lambda: CosineClassifier(7, 4, scale=30.0)}


def vector(given, method, loss, head="linear", shortcuts=True):
    """With this loss, in one landscape as the trainer makes it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), HEADS[head]()).double()
    statistics, inputs = statistics_of(given), []

    def logits(batch: MicroBatch) -> Tensor:
        with classifier_inputs(loss, model, 4) as captured:
            z = model(batch.inputs["x"])
        inputs[:] = captured
        return z

    def losses(z: Tensor, batch: MicroBatch) -> Tensor:
        return losses_of(loss, z, batch.labels, statistics, inputs)

    landscape = LossLandscape(
        TrainableWeights(model),
        [MicroBatch({"x": given.x}, given.y)],
        logits,
        losses,
        shortcuts=Shortcuts(model) if shortcuts else None,
    )
    torch.manual_seed(2)
    return method.update(landscape, step_of(given)).materialize()


@pytest.mark.parametrize("loss", [name for name, loss in LOSSES.items() if not takes_several_labels(loss)])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_with_every_loss(method, loss):
    hard, soft = problem(), problem()
    soft.y = F.one_hot(hard.y, 4).double()
    vectors = [vector(p, make_method(method, **FIRST[method]), make_loss(loss)) for p in (hard, soft)]
    assert_equal(vectors[1], vectors[0], ROUNDING)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("args", [{}, {"norm": "per_tensor"}, {"mix": 0.4}, {"class_weighting": "inverse_prior"}])
def test_the_single_pass_of_cc_sam_is_its_passes_by_class(head, args):
    given = problem(labels="soft")
    method = make_method("cc_sam", scale=0.3, **args)
    vectors = [vector(given, method, make_loss("cross_entropy"), head, shortcuts) for shortcuts in (True, False)]
    assert_equal(vectors[0], vectors[1], 1e-11)


@pytest.mark.parametrize("labels", ["hard", "soft"])
@pytest.mark.parametrize(
    ("loss", "args", "head"),
    [
        ("influence_balanced", {}, "linear"),
        ("influence_balanced", {"through_weight": True}, "linear"),  # whose divisor has a gradient to the features
        ("gaussian_clouded", {}, "cosine"),  # whose second pass has the noise of the first
    ],
)
def test_it_is_so_for_losses_that_read_features_or_draw(labels, loss, args, head):
    given = problem(labels="soft") if labels == "soft" else problem()
    method = make_method("cc_sam", scale=0.3)
    vectors = [vector(given, method, make_loss(loss, **args), head, shortcuts) for shortcuts in (True, False)]
    assert_equal(vectors[0], vectors[1], 1e-11)


@pytest.mark.parametrize("labels", ["mixed", "soft"])
@pytest.mark.parametrize("head", HEADS)
def test_it_is_so_where_a_hook_changes_what_the_classifier_is_given(head, labels, monkeypatch):
    def hooked():
        made = make()
        made.register_forward_pre_hook(lambda _, given: (2 * given[0] + 1,))
        return made

    make = HEADS[head]
    monkeypatch.setitem(HEADS, head, hooked)
    given, method, loss = problem(labels=labels), make_method("cc_sam", scale=0.3), make_loss("cross_entropy")
    vectors = [vector(given, method, loss, head, shortcuts) for shortcuts in (True, False)]
    assert_equal(vectors[0], vectors[1], 1e-11)


def test_a_row_for_every_method():
    assert set(FIRST) == set(METHODS)
