"""The hyper-parameters of every recipe's method, beside those of its source."""

import pytest
from cli.reproduce.recipe_rows import ROWS, run_of

# Rangwani et al. 2022 Table 5; for LA the radius of Focal-SAM, for IB that of CE + DRW
SAM = {
    ("lt", "cifar10"): {"ce": 0.1, "ce_drw": 0.5, "ldam_drw": 0.8, "vs": 0.5, "la": 0.2},
    ("lt", "cifar100"): {"ce": 0.2, "cb": 0.2, "ce_drw": 0.8, "ldam_drw": 0.8, "vs": 0.8, "la": 0.3, "ib": 0.8},
    ("step", "cifar10"): {"ce": 0.1, "ce_drw": 0.2, "ldam_drw": 0.1, "vs": 0.2},
    ("step", "cifar100"): {"ce": 0.5, "ce_drw": 0.2, "ldam_drw": 0.5, "vs": 0.2},
}
AT_160 = {"piecewise": {"values": [0.1, 0.2], "boundaries": [0.8]}}
# rho, gamma, lam: Li et al. 2025, code
FOCAL_SAM = {
    "cifar10": (0.2, 3.0, 0.5),
    "cifar100": (0.3, 3.2, 0.8),
    "imagenet_lt": (AT_160, 0.8, 0.8),
    "inaturalist2018": (0.2, 2.0, 1.1),
    "places_lt": (AT_160, 0.8, 0.8),
}
CLIP_FOCAL_SAM = {
    "cifar10": (0.05, 1.5, 0.7),
    "cifar100": (0.05, 5.5, 0.8),
    "imagenet_lt": (0.05, 0.5, 0.8),
    "inaturalist2018": (0.02, 0.2, 1.0),
    "places_lt": (0.05, 0.5, 0.8),
}
STEPS = {"piecewise": {"values": [0.05, 0.1, 0.5], "epochs": [5, 60]}}  # Rangwani et al. 2022 App. C
STEPS_OF_THE_CODE = {"piecewise": {"values": [0.05, 0.1, 0.2], "epochs": [5, 75]}}


def sam_radius(row):
    if row.source in ("lyu2025", "zhou2023b"):
        return 0.05
    if row.clip:
        return CLIP_FOCAL_SAM[row.data][0]
    if row.on_cifar:
        return SAM[row.kind, row.data][row.loss]
    if row.source == "rangwani2022":
        return STEPS_OF_THE_CODE if (row.data, row.loss) == ("inaturalist2018", "ce_drw") else STEPS
    return FOCAL_SAM[row.data][0]


def imbsam_radius(row):
    if row.small:
        return 0.05
    if row.source == "lyu2025" and not row.on_cifar:
        return 0.15
    if row.clip or not row.on_cifar:
        return sam_radius(row)
    return 0.1


def sse_sam(row):
    tail = 0.05 if row.small else 0.1 if row.on_cifar else 0.15
    return {"rho_head": 0.05, "rho_tail": tail, "gamma": 0.7 if row.on_cifar else 0.8, "normalizer": "total"}


EXPECTED = {
    "sgd": lambda row: None,
    "swa": lambda row: None,
    "spectral_norm": lambda row: None,
    "sam": lambda row: {"rho": sam_radius(row)},
    "imbsam": lambda row: {"rho": imbsam_radius(row), "tail_weight": 1.0},
    "cc_sam": lambda row: {"scale": 1e-2, **({"class_weighting": "none"} if row.source == "li2025" else {})},
    "focal_sam": lambda row: dict(zip(("rho", "gamma", "lam"), (CLIP_FOCAL_SAM if row.clip else FOCAL_SAM)[row.data])),
    "focal_sam_reuse": lambda row: dict(zip(("rho", "gamma", "lam", "plain"), (*FOCAL_SAM[row.data], "reuse"))),
    "sse_sam": sse_sam,
    "sam_ext": lambda row: {"rho_head": 0.05, "rho_tail": 0.1, "normalizer": "total"},
    "pgd": lambda row: {"sigma": 1e-4},
    "lpf_sgd": lambda row: {"gamma": 1e-3, "shards": 8},
    "model_perturbation": lambda row: {"rho": 1e-3},
    "asam": lambda row: {"rho": 0.5, "eta": 0.01},
    "gradient_norm": lambda row: {"rho": 0.1, "alpha": 0.8},
    "gsam": lambda row: {"rho": 0.05, "alpha": 0.4},
    "looksam": lambda row: {"rho": 0.05, "every": 5, "alpha": 0.7},
    "msam": lambda row: {"rho": 0.3, "momentum": 0.9},
    "friendly_sam": lambda row: {"rho": 0.05, "sigma": 1.0, "beta": 0.9},
    "late_sam": lambda row: {"rho": sam_radius(row), "start": 0.8 if row.decay else 0.875},
    "late_focal_sam": lambda row: {**dict(zip(("rho", "gamma", "lam"), FOCAL_SAM[row.data])), "start": 0.875},
    "momentum_focal_sam": lambda row: {"rho": 0.3, "gamma": 3.2, "momentum": 0.9},
    "momentum_focal_sam_reuse": lambda row: {"rho": 0.3, "gamma": 3.2, "momentum": 0.9, "plain": "reuse"},
    "wsam": lambda row: {"rho": 0.05, "gamma": 0.9},
    "gsa": lambda row: {"scale": 1e-2, "groups": 4},
    "gnm": lambda row: {"sigma": 0.005 / 3},
    "le_sam": lambda row: {"sigma": 0.05, "rho_max": 0.5},
    "xsam": lambda row: {"rho": 0.15, "rho_max": 0.3, "every": 170},
}


@pytest.mark.parametrize("method", EXPECTED)
def test_hyperparameters_of_the_sources(method):
    rows = [row for row in ROWS if row.method == method]
    assert rows
    for row in rows:
        assert row.run.config.method_args == EXPECTED[method](row), row.name


def test_no_row_is_left_out():
    assert {row.method for row in ROWS} == set(EXPECTED)


def test_radii_that_change_are_shares_of_the_training():
    rho = run_of("imagenet_lt_la_focal_sam").config.method_hyperparameters["rho"]
    assert rho["piecewise"]["boundaries"] == [0.8]  # epoch 160 of 200, and 240 of 300
    rho = run_of("imagenet_lt_ldam_drw_sam_rangwani2022").config.method_hyperparameters["rho"]
    assert rho["piecewise"]["boundaries"] == [5 / 90, 60 / 90]
