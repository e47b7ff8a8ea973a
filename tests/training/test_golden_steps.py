"""The updates that the published implementations make, made by LTSamTrainer."""

import json

import pytest
import torch
from training.toy import LABELS, Toy, toy_trainer
from transformers import TrainerCallback

from hf_ltsam.methods import METHODS, make_method


class Snapshots(TrainerCallback):
    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model, **_):
        self.weights.append(model.flat())

    on_step_end = on_train_begin


def updates(tmp_path, method, **settings):
    snapshots = Snapshots()
    toy_trainer(tmp_path, method, callbacks=[snapshots], **settings).train()
    return [after - before for before, after in zip(snapshots.weights, snapshots.weights[1:])]


def golden_method(entry):
    """The entry's method in our names: its stage 2 of SSE-SAM is gamma = 0 with the given radii."""
    name, args = entry["method"], dict(entry["args"])
    if name.startswith("sse_sam"):
        args["gamma"] = 0.0 if "stage 2" in name else 1.0
    return name.split()[0], args


def test_every_golden_entry(shared, tmp_path):
    golden = json.loads((shared / "golden" / "steps.json").read_text())
    assert golden["labels"] == LABELS
    covered = set()
    for entry in golden["methods"]:
        name, args = golden_method(entry)
        if name not in METHODS:
            continue
        covered.add(name)
        tolerance = 1e-7 if name == "focal_sam" else 1e-10
        for ours, theirs in zip(updates(tmp_path, make_method(name, **args)), entry["updates"], strict=True):
            torch.testing.assert_close(
                ours,
                torch.tensor(theirs, dtype=torch.float64),
                rtol=0,
                atol=tolerance,
                msg=lambda m, n=name: f"{n}: {m}",
            )
    # sam_ext is sse_sam with gamma = 1, which has its entry; of the others the file holds no published steps
    assert covered == set(METHODS) & {"sgd", "sam", "asam", "imbsam", "sse_sam", "focal_sam", "cc_sam"}


# Each update u of shared/golden/steps.json by its two projections sum_i cos(i) u_i and sum_i sin(i) u_i, so that a clone
# without that file is checked as well: what the published implementations do in two steps, in float64.
PROJECTIONS = [
    ("sgd", {}, [[-0.006526002766, 0.063453204182], [-0.008355543488, 0.058597385496]]),
    ("sam", {"rho": 0.05}, [[-0.005943696812, 0.067450879216], [-0.005376169136, 0.065627320238]]),
    ("asam", {"rho": 0.5, "eta": 0.0}, [[-0.004054728561, 0.080561144755], [0.002752287931, 0.090685542244]]),
    ("imbsam", {"rho": 0.05}, [[-0.00598280936, 0.065230013381], [-0.007531692956, 0.060906382317]]),
    (
        "imbsam",
        {"rho": 0.05, "tail_weight": 2.0},
        [[-0.008702553973, 0.06778541979], [-0.019420156555, 0.045495467948]],
    ),
    (
        "sse_sam",
        {"rho_head": 0.05, "rho_tail": 0.1, "normalizer": "group", "gamma": 1.0},
        [[-0.004889894896, 0.069911163255], [-0.003797328109, 0.068962415799]],
    ),
    (
        "sse_sam",
        {"rho_head": 0.0, "rho_tail": 0.1, "normalizer": "group", "gamma": 0.0},
        [[-0.005400914427, 0.067037535543], [-0.006631484936, 0.063285083072]],
    ),
    (
        "focal_sam",
        {"rho": 0.3, "gamma": 3.2, "lam": 0.8},
        [[-0.004118795558, 0.072488786785], [0.000579836844, 0.072301349896]],
    ),
    (
        "focal_sam",
        {"rho": 0.05, "gamma": 0.0, "lam": 1.0},
        [[-0.005943696812, 0.067450879216], [-0.005376169136, 0.065627320238]],
    ),
]


@pytest.mark.parametrize(("name", "args", "projections"), PROJECTIONS, ids=[f"{n}-{a}" for n, a, _ in PROJECTIONS])
def test_projections_of_the_golden_updates(tmp_path, name, args, projections):
    probes = torch.arange(44, dtype=torch.float64).cos(), torch.arange(44, dtype=torch.float64).sin()
    tolerance = 1e-7 if name == "focal_sam" else 1e-10
    for update, expected in zip(updates(tmp_path, make_method(name, **args)), projections, strict=True):
        assert [float(p @ update) for p in probes] == pytest.approx(expected, abs=tolerance)


# SSE-SAM with the total norm has no published code: the norm of its first update, from an independent evaluation of the
# paper's Eq. 13 and 14.
FIRST_UPDATE_NORMS = [
    ("sse_sam", {"rho_head": 0.05, "rho_tail": 0.1, "gamma": 1.0}, 0.056225951521),
    ("sse_sam", {"rho_head": 0.0, "rho_tail": 0.1, "gamma": 0.0}, 0.053045262934),
]


@pytest.mark.parametrize(("name", "args", "norm"), FIRST_UPDATE_NORMS)
def test_norm_of_the_first_update(tmp_path, name, args, norm):
    assert updates(tmp_path, make_method(name, **args))[0].norm().item() == pytest.approx(norm, abs=1e-11)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_plain_gradient_accumulates_as_one_batch(tmp_path, accumulation):
    whole = updates(tmp_path, make_method("sgd"))
    parts = updates(
        tmp_path,
        make_method("sgd"),
        gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=8 // accumulation,
    )
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-15)


def test_toy_is_the_golden_one():
    assert Toy().flat()[:2].tolist() == pytest.approx([-0.27201055, -0.49999510], abs=1e-7)
