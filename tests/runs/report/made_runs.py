"""Runs whose numbers are known, written as JSON by hand: no model, no training."""

import json

import numpy as np
import yaml

COUNTS = (40, 30, 12, 5, 2)
GROUPS = {"many": (0, 1), "medium": (2,), "few": (3, 4)}  # many_above 20, few_below 10


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))


def statistics(counts=COUNTS, tail_threshold=None):
    return {"counts": list(counts), "tail_threshold": tail_threshold, "many_above": 20, "few_below": 10}


def test_result(per_class, groups=GROUPS, ece=0.05, samples=50):
    shown = {name: float(np.mean([per_class[c] for c in classes])) for name, classes in groups.items() if classes}
    mean = float(np.mean(per_class))
    return {
        "overall": mean,
        "balanced": mean,
        "groups": shown,
        "per_class": list(per_class),
        "ece": ece,
        "samples": samples,
    }


def metrics(per_class, seed=0, method="sgd", loss="cross_entropy", seconds=100.0, args=None, **more):
    return {
        "schema_version": 1, "seed": seed, "method": {"name": method, "args": args or {}},
        "loss": {"name": loss, "args": {}}, "class_statistics": statistics(), "results": {"test": test_result(per_class)},
        "reweighting": {"scheme": "none", "start": 0.0}, "weight_averaging": {}, "model": {"depth": 8},
        "data": {"dataset": "images", "training_labels_sha256": "00"},
        "timing": {"train_seconds": seconds, "seconds_per_step": 0.25}, "hardware": "1 x cpu",
        "command": f"ltsam train --method {method} --seed {seed}", "versions": {"torch": "2.15"}, **more,
    }  # fmt: skip


def predictions(right, labels, names=("a", "b", "c", "d", "e"), confidence=0.9):
    """Where an image is wrong, the next class is predicted."""
    labels = np.asarray(labels)
    predicted = np.where(right, labels, (labels + 1) % len(names))
    lists = {"labels": labels.tolist(), "predicted": predicted.tolist(), "confidence": [confidence] * len(labels)}
    return {"schema_version": 1, "class_names": list(names), "test": lists}


def history(accuracies, sam=None):
    """One evaluation and one log for every epoch; `sam`: name -> value for each."""
    entries = []
    for k, accuracy in enumerate(accuracies):
        groups = {f"eval_{name}": accuracy for name in ("overall", "many", "medium", "few")}
        entries.append({"epoch": k + 1.0, "step": 10 * (k + 1), **groups})
        telemetry = {name: values[k] for name, values in (sam or {}).items()}
        entries.append({"epoch": k + 1.0, "step": 10 * (k + 1), "loss": 0.5, **telemetry})
    return {"log_history": entries}


NORMS = {"gradient_norm": 0.5, "weight_norm": 3.0, "trainable_parameters": 1000, "training_samples": 50}


def extremes(low, high):
    return {
        "lam_min": {"value": low, "error_bound": 0.0}, "lam_max": {"value": high, "error_bound": 0.0},
        "ratios": {"abs_min_over_max": abs(low / high), "abs_max_over_min": abs(high / low)},
    }  # fmt: skip


def sharpness(counts=COUNTS, subsets=("all", "class 0", "class 4")):
    grid = np.linspace(-2, 10, 200)
    density = {"grid": grid.tolist(), "values": np.exp(-(grid**2)).tolist()}
    losses = (1 + np.add.outer(np.linspace(-1, 1, 5) ** 2, np.linspace(-1, 1, 5) ** 2)).tolist()
    coordinates = [np.linspace(-1, 1, 5).tolist()] * 2
    return {
        "schema_version": 1, "weights_sha256": "0" * 64,
        "class_statistics": statistics(counts), "class_names": [str(c) for c in range(len(counts))], "max_samples": None,
        "loss": {"name": "cross_entropy", "args": {}},
        "spectra": {n: {**extremes(-1.25, 9.5), "samples": 9, "trace": {"value": 33.0}, "density": density} for n in subsets},
        "evolution": {
            f"{n} @ {s}": {"subset": n, "step": s, "epoch": s / 10, **extremes(-s / 100, 4.0), **NORMS, "loss": 5 / s}
            for n in subsets for s in (10, 20)
        },
        "surface": {
            "2d": {"coordinates": coordinates, "directions": ["random (seed 0)", "random (seed 1)"],
                   "loss": dict.fromkeys(subsets, losses)},
            "1d": {"coordinates": coordinates[:1], "directions": ["random (seed 0)"], "loss": dict.fromkeys(subsets, losses[0])},
        },
    }  # fmt: skip


def shifted(errors):
    """Of a plain set, and of one with corruptions: corruption -> severity -> error."""
    cells = {c: {str(s): {"overall": 1 - e, "samples": 50} for s, e in row.items()} for c, row in errors.items()}
    means = {c: float(np.mean(list(row.values()))) for c, row in errors.items()}
    summary = {
        "errors": means, "severities": sorted(next(iter(errors.values()))), "mean_error": float(np.mean(list(means.values()))),
        "groups": {"many": 0.9, "few": 0.4}, "mce": None, "relative_to": None,
    }  # fmt: skip
    plain = {"overall": 0.625, "groups": {"many": 0.75}, "samples": 60}
    return {
        "schema_version": 1, "checkpoint": {"name": "x"}, "class_statistics": None,
        "sets": {"sketch": {"result": plain}, "images_c": {"cells": cells, "summary": summary}},
    }  # fmt: skip


def write_run(folder, record, **files):
    """Files by name: `predictions`, `trainer_state`, `sharpness`, `ood_results`, `recipe` (settings)."""
    write(folder / "metrics.json", record)
    places = {"sharpness": "sharpness/sharpness.json", "ood_results": "evaluation/ood_results.json"}
    for name, values in files.items():
        if name == "recipe":
            write(folder / "recipe.yaml", f"# {record['command']}\n{yaml.safe_dump(values)}")
        else:
            write(folder / places.get(name, f"{name}.json"), values)
    return folder


def complete_run(folder, seed, per_class, right, labels, **record):
    """A run that lacks nothing."""
    own = metrics(per_class, seed, **record)
    return write_run(
        folder, own, predictions=predictions(right, labels), sharpness=sharpness(),
        trainer_state=history([0.2, 0.5, 0.7], {"sam_eps_norm": [0.1] * 3, "sam_new_name": [1.0, 2.0, 3.0]}),
        ood_results=shifted({"fog": {1: 0.2, 3: 0.4}, "gaussian_noise": {1: 0.1, 3: 0.5}}),
        recipe={"method": own["method"]["name"], "loss": own["loss"]["name"], "learning_rate": 0.1, "seed": seed},
    )  # fmt: skip
