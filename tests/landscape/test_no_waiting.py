"""No method reads from the device inside a step: tensors without values run through it, and reading one raises."""

from contextlib import nullcontext

import pytest
import torch
from methods.problems import landscape_of, problem, step_of
from methods.test_equations import IDS, TABLE
from torch import nn

from hf_ltsam.landscape.shortcuts import Shortcuts
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.methods import make_method
from hf_ltsam.models.cosine_classifier import CosineClassifier
from hf_ltsam.training.telemetry import Telemetry

DRAWING = {"pgd", "lpf_sgd", "model_perturbation", "gnm"}  # there is no generator for tensors without values


class Known(Shortcuts):
    """After the trials, which do read."""

    def __init__(self, model, rows):
        super().__init__(model)
        self._known = rows

    def may_leave_out_rows(self, *_):
        return self._known

    def may_use_signals(self, parameters):
        return self._known

    def may_open(self, head):
        return self._known


@pytest.fixture
def without_random_numbers(monkeypatch):
    """Their states lie on the host, but there are none for this device."""
    for module in ("passes", "signals", "open_pass"):
        monkeypatch.setattr(f"hf_ltsam.landscape.{module}.random_state", lambda _: (torch.empty(0), None))
        monkeypatch.setattr(f"hf_ltsam.landscape.{module}.random_numbers_of", lambda *_: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it knows no such device
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: torch.float32)


@pytest.mark.parametrize("rows", [True, False, None], ids=["shortcuts", "none allowed", "full"])
@pytest.mark.parametrize(
    ("name", "args"),
    [row for row in TABLE if row[0] not in DRAWING],
    ids=[i for i, row in zip(IDS, TABLE) if row[0] not in DRAWING],
)
def test_a_step_reads_nothing(name, args, rows, without_random_numbers):
    given = problem()
    memory = {}
    step = step_of(given, memory=memory)
    given.model, given.x, given.y = given.model.to("meta"), given.x.to("meta"), given.y.to("meta")
    loss = landscape_of(given, shortcuts=None if rows is None else Known(given.model, rows))
    loss._observer = telemetry = Telemetry(lambda: step.statistics)
    for _ in range(2):  # the second has a memory
        gradient = make_method(name, **args).update(loss, step)
        telemetry.losses(loss.first_losses, loss.labels)
        telemetry.end_step()
    assert [g.shape for g in gradient.materialize()] == [p.shape for p in TrainableWeights(given.model).parameters]
    with pytest.raises(RuntimeError):
        gradient.norm().item()


def test_cc_sam_with_a_cosine_classifier_reads_nothing(without_random_numbers):
    given = problem()
    given.model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), CosineClassifier(7, 4, learnable_scale=True)).double()
    step = step_of(given)
    given.model, given.x, given.y = given.model.to("meta"), given.x.to("meta"), given.y.to("meta")
    gradient = make_method("cc_sam", mix=0.5).update(landscape_of(given, shortcuts=Known(given.model, True)), step)
    assert [g.shape for g in gradient.materialize()] == [p.shape for p in given.model.parameters()]
