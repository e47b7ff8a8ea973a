"""Every SAM method on adapted models, through the trainer, against its naive reference."""

import copy

import pytest
import torch
from adapters.adapter_training import BATCH, BATCH_LABELS, COUNTS, TAIL_THRESHOLD, OneBatch, trainer_of
from adapters.tiny import NUM_CLASSES, adapted, with_head
from methods import references
from torch import nn

from hf_ltsam import ClassStatistics
from hf_ltsam.adapters import make_adapter
from hf_ltsam.methods import METHODS, make_method
from hf_ltsam.methods.context import StepContext

LEARNING_RATE = 0.1
TABLE = {
    "sgd": {},
    "sam": {"rho": 0.5},
    "asam": {"rho": 0.5, "eta": 0.01},
    "imbsam": {"rho": 0.3},
    "sse_sam": {"rho_head": 0.2, "rho_tail": 0.4, "gamma": 0.7},
    "sam_ext": {"rho_head": 0.2, "rho_tail": 0.4},
    "focal_sam": {"rho": 0.3, "gamma": 3.2, "lam": 0.8},
    "gradient_norm": {"rho": 0.4, "alpha": 0.8},
    "gsam": {"rho": 0.4, "alpha": 0.4},
    "looksam": {"rho": 0.4, "every": 3, "alpha": 0.7},
    "msam": {"rho": 0.3, "momentum": 0.9},
    "friendly_sam": {"rho": 0.4, "sigma": 1.0, "beta": 0.9},
    "cc_sam": {"scale": 0.3},
    "pgd": {"sigma": 0.1},
    "lpf_sgd": {"gamma": 0.2, "shards": 2},
    "model_perturbation": {"rho": 0.5},
    "le_sam": {"sigma": 0.3, "rho_max": 9.0},
    "xsam": {"rho": 0.3, "rho_max": 0.6, "every": 3},
    "gnm": {"sigma": 0.1},
    "wsam": {"rho": 0.4, "gamma": 0.3},
    "momentum_focal_sam": {"rho": 0.3, "gamma": 0.8, "momentum": 0.9},
    "gsa": {"scale": 0.3, "groups": 3},
}
CENTRAL = ["sam", "imbsam", "focal_sam", "sse_sam", "cc_sam"]


class Logits(nn.Module):
    """images (n, 3, 8, 8) -> logits (n, 5)"""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(pixel_values=x)[0]


def problem_of(model):
    given = references.Problem(Logits(model), BATCH, BATCH_LABELS, COUNTS, TAIL_THRESHOLD)
    statistics = ClassStatistics(COUNTS, tail_threshold=TAIL_THRESHOLD)
    like = torch.empty((), dtype=torch.float64)
    given.generator = StepContext(BATCH_LABELS, statistics, 0.0, like, {}, step=0, seed=3).generator
    return given


def assert_equals_reference(model, method, folder):
    """One step of SGD moves the weights by the reference's gradient, and nothing else moves."""
    plain = copy.deepcopy(model).train()
    expected = getattr(references, method)(problem_of(plain), **TABLE[method])
    trainer_of(model, folder, OneBatch(), make_method(method, **TABLE[method]), learning_rate=LEARNING_RATE).train()
    for (name, now), before, g in zip(model.named_parameters(), plain.parameters(), expected, strict=True):
        moved = torch.zeros_like(now) if g is None else -LEARNING_RATE * g
        torch.testing.assert_close(now - before, moved, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert any(g is not None and g.norm() > 1e-6 for g in expected)


def test_every_method_has_a_row():
    assert set(TABLE) == set(METHODS)


@pytest.mark.parametrize("method", TABLE)
def test_every_method_on_adaptformer(method, tmp_path):
    assert_equals_reference(adapted("adaptformer", with_head("clip").double()), method, tmp_path)


@pytest.mark.parametrize("method", CENTRAL)
@pytest.mark.parametrize(("adapter", "name"), [("vpt_deep", "siglip"), ("vpt_shallow", "vit"), ("ssf", "dinov2")])
def test_the_central_methods_on_every_adapter(adapter, name, method, tmp_path):
    assert_equals_reference(adapted(adapter, with_head(name).double()), method, tmp_path)


@pytest.mark.parametrize("method", ["focal_sam", "cc_sam"])
@pytest.mark.parametrize("adapter", ["lora", "ln_tuning", "linear_probe", "none"])
def test_on_methods_of_peft(adapter, method, tmp_path):
    assert_equals_reference(make_adapter(with_head("vit").double(), adapter, num_classes=NUM_CLASSES), method, tmp_path)
