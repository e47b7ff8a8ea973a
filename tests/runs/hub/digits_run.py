"""A finished run of the digits demo with fixed numbers: what a card is compared on must not vary by machine."""

import copy
import json

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, ClassStatistics

COUNTS = (128, 82, 53, 34, 22, 14, 9, 6, 3, 2)
STATISTICS = ClassStatistics(COUNTS, tail_threshold=10, many_above=40, few_below=10)
PER_CLASS = (1.0, 1.0, 0.98, 0.98, 0.96, 0.96, 0.94, 0.92, 0.92, 0.88)
CORRUPTIONS = ("gaussian_noise", "fog", "jpeg_compression")
METRICS = {
    "schema_version": 1,
    "seed": 0,
    "method": {
        "name": "focal_sam",
        "args": {"rho": 0.1, "gamma": 3.0, "lam": 0.5, "plain": "exact", "interval": 1, "start": 0.0, "stop": 1.0},
    },
    "loss": {"name": "logit_adjustment", "args": {"tau": 1.0}},
    "class_statistics": STATISTICS.to_dict(),
    "results": {
        "test": {
            "overall": 0.954,
            "balanced": 0.954,
            "groups": {"many": 0.99333, "medium": 0.96667, "few": 0.915},
            "per_class": list(PER_CLASS),
            "ece": 0.0213,
            "samples": 500,
        }
    },
    "reweighting": {"scheme": "none", "start": 0.0},
    "weight_averaging": {},
    "model": {"model": "cifar_resnet", "pretrained": True, "depth": 8},
    "data": {
        "dataset": "runs/demo/digits",
        "builder": "auto",
        "imbalance_ratio": None,
        "training_labels_sha256": "ab" * 32,
    },
    "timing": {"train_seconds": 7.25, "seconds_per_step": 0.0201},
    "hardware": "1 x cpu (x86_64, 2 threads)",
    "command": "ltsam train --config=demo/digits --method=focal_sam --seed=0 --dataset=runs/demo/digits",
    "versions": {"python": "3.11.7", "hf_ltsam": "0.1.0", "torch": "2.11.0", "transformers": "5.10.1"},
}
EVALUATION = {
    "schema_version": 1,
    "checkpoint": {"name": "runs/demo/la_focal_sam/seed0", "fingerprint": "f" * 64, "num_classes": 10},
    "class_statistics": STATISTICS.to_dict(),
    "sets": {
        "usps": {
            "result": {
                "identity": {},
                "note": "",
                "overall": 0.61,
                "balanced": 0.6,
                "groups": {"many": 0.8, "medium": 0.6, "few": 0.45},
                "samples": 2007,
            }
        },
        "digits_c": {
            "cells": {},
            "summary": {
                "errors": dict(zip(CORRUPTIONS, (0.41, 0.302, 0.07))),
                "severities": [3],
                "mean_error": 0.26067,
                "ce": {},
                "mce": None,
                "relative_to": None,
                "groups": {},
            },
        },
    },
}
SHARPNESS = {
    "schema_version": 1,
    "weights_sha256": "0" * 64,
    "loss": {"name": "cross_entropy", "args": {}},
    "spectra": {
        "class 0": {"samples": 128, "lam_max": {"value": 3.456}, "lam_min": {"value": -0.0123}, "ratios": {"abs_min_over_max": 0.00356},
                    "trace": {"value": 12.34, "standard_error": 0.2}},
        "class 9": {"samples": 2, "lam_max": {"value": 40.1}, "lam_min": {"value": -2.5}, "ratios": {"abs_min_over_max": 0.0623},
                    "trace": {"value": 88.8, "standard_error": None}},
    },
}  # fmt: skip


def metrics(seed=0, shift=0.0, **changes):
    """The record of a seed whose accuracies are shifted."""
    values = {**copy.deepcopy(METRICS), "seed": seed, **changes}
    test = values["results"]["test"]
    test["overall"] += shift
    test["groups"] = {name: value + shift for name, value in test["groups"].items()}
    return values


def write(folder, values):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(values))
    (folder / "recipe.yaml").write_text(f"config: demo/digits\nseed: {values['seed']}\noutput_dir: {folder}\n")
    config = CifarResNetConfig(depth=8, width=2, num_channels=1, id2label={c: str(c) for c in range(10)})
    config.save_pretrained(folder)
    STATISTICS.save(folder)
    return folder


def write_seeds(root):
    """Three seeds beside each other; the first is the one that is published."""
    write(root / "seed1", metrics(1, 0.01))
    write(root / "seed2", metrics(2, -0.01))
    return write(root / "seed0", metrics())


def with_weights(folder):
    config = CifarResNetConfig.from_pretrained(folder)
    CifarResNetForImageClassification(config).save_pretrained(folder)
    return folder
