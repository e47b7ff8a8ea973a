"""A run and its curvature, trained and measured once, in the place of all that a table would start; and what a picture must be."""

import copy
import itertools
import json
import re
import shlex
import shutil

import yaml
from cli.reproduce.in_process import Ended

from hf_ltsam.cli.sharpness import command as sharpness
from hf_ltsam.cli.sharpness.options import parse_options
from hf_ltsam.cli.train import train
from hf_ltsam.runs.recipes import read_recipe

GIVEN = {
    "builder": "image_folder", "model": "cifar_resnet", "depth": 8, "learning_rate": 0.1, "optim": "sgd", "num_train_epochs": 2,
    "per_device_train_batch_size": 12, "many_above": 10, "few_below": 5, "use_cpu": True, "disable_tqdm": True, "method": "sam",
    "eval_strategy": "epoch", "save_strategy": "epoch", "loss": "cross_entropy",
}  # fmt: skip
COUNTS = [int(5000 * 0.01 ** (c / 9)) for c in range(10)]


def train_once(images, folder):
    """The stored run: two epochs, evaluated after each, with curvature of one class at both checkpoints and a surface."""
    words = [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))]
    train.main(["--dataset", str(images), "--output_dir", str(folder), *words])
    measured = sharpness.save_figures
    sharpness.save_figures = lambda path: []  # tested with `ltsam sharpness`
    try:
        sharpness.main(
            [str(folder), "--classes", "2", "--spectrum", "--checkpoints", "--surface", "2d", "--points", "3", "--lanczos_steps", "3",
             "--trace_probes", "1", "--max_samples", "3"]
        )  # fmt: skip
    finally:
        sharpness.save_figures = measured
    return folder


def put_run(stored, run, position):
    """The stored run in the folder of a row: its settings, and accuracies of its own."""
    for name in ("trainer_state.json", "predictions.json"):
        run.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(stored / name, run.folder / name)
    record, expanded = json.loads((stored / "metrics.json").read_text()), run.row.expanded
    chosen = {
        kind: {"name": expanded.get(kind, GIVEN[kind]), "args": expanded.get(f"{kind}_args") or {}}
        for kind in ("method", "loss")
    }
    shares = [0.9 - 0.01 * (position % 40), 0.7, 0.4 + 0.01 * (position % 40)]
    test = record["results"]["test"]
    test |= {
        "overall": sum(shares) / 3,
        "balanced": sum(shares) / 3,
        "groups": dict(zip(("many", "medium", "few"), shares)),
        "per_class": shares,
    }
    settings = {
        "reweighting": {"scheme": expanded.get("reweighting", "none"), "start": expanded.get("reweighting_start", 0.0)}
    }
    settings["mixing"] = {name: expanded[name] for name in ("mixup_alpha", "cutmix_alpha") if name in expanded}
    record |= {**chosen, **settings, "seed": run.seed, "command": f"ltsam train --config {run.row.recipe}"}
    if run.row.first_stage is not None:
        before = read_recipe(run.row.first_stage)
        first = {name: before.get(name, GIVEN[name]) for name in ("method", "loss")}
        expanded = {**{name: before[name] for name in ("spectral_norm",) if name in before}, **expanded}
        stage = {"name": expanded["second_stage"], "args": expanded.get("second_stage_args") or {}}
        record["second_stage"] = {
            **stage,
            "first_stage": {"folder": run.row.first_stage, **{k: {"name": v} for k, v in first.items()}},
        }
    (run.folder / "metrics.json").write_text(json.dumps(record))
    (run.folder / "recipe.yaml").write_text(f"# {record['command']}\n{yaml.safe_dump(expanded)}")


def put_curvature(stored, analysis, position):
    """What was measured of the stored run, for every subset that is asked for, of ten classes or a hundred."""
    request = parse_options(analysis.arguments())
    results = json.loads((stored / "sharpness" / "sharpness.json").read_text())
    subsets = [*request.groups, *(f"class {c}" for c in request.classes)]
    counts = COUNTS if all(int(c) < 10 for c in request.classes) else [500 - 4 * c for c in range(100)]
    results["class_statistics"] |= {"counts": counts, "many_above": 1000, "few_below": 200}
    results["class_names"] = [f"class {c}" for c in range(len(counts))]
    scales = {name: (1 + 0.4 * position) * (1 + 3 * k) for k, name in enumerate(subsets)}
    results["spectra"] = (
        {name: scaled(results["spectra"]["class 2"], scale) for name, scale in scales.items()}
        if request.spectra
        else {}
    )
    evolution = results.pop("evolution")
    if request.checkpoints:
        results["evolution"] = {
            f"{name} @ {step}": {**scaled(evolution[f"class 2 @ {step}"], scale), "subset": name}
            for name, scale in scales.items() for step in (2, 4)
        }  # fmt: skip
    for surface in results["surface"].values():
        loss = surface["loss"]["class 2"]
        surface["loss"] = {name: [[scale * value for value in row] for row in loss] for name, scale in scales.items()}
    if request.surface is None:
        results["surface"] = {}
    results["command"] = shlex.join(["ltsam", "sharpness", *analysis.arguments()])
    (analysis.run.folder / "sharpness").mkdir(exist_ok=True)
    (analysis.run.folder / "sharpness" / "sharpness.json").write_text(json.dumps(results))


def scaled(record, scale):
    """Extreme eigenvalues of a Hessian, and their density if it has one, times a number."""
    record = copy.deepcopy(record)
    for name in ("lam_min", "lam_max", "trace"):
        if name in record:
            record[name]["value"] *= scale
    if "density" in record:
        record["density"]["grid"] = [scale * x for x in record["density"]["grid"]]
        record["density"]["values"] = [y / scale for y in record["density"]["values"]]
    return record


def in_place_of_processes(monkeypatch, stored, started, run_kind, analysis_kind):
    """Everything that a table starts is there at once."""

    def run(task, threads):
        started.append(f"{task.row.name}/seed{task.seed}")
        put_run(stored, task, len(started) - 1)
        return Ended()

    def measure(task, threads):
        started.append(f"curvature of {task.run.row.name}/seed{task.run.seed}")
        put_curvature(stored, task, len(started))
        return Ended()

    monkeypatch.setattr(run_kind, "start", run)
    monkeypatch.setattr(analysis_kind, "start", measure)


def faults_of(figure):
    """Words of a drawn figure that are cut, numbers and words around its panels that touch, accuracies that cannot be."""
    width, height = figure.bbox.size
    boxes = [(text.get_text(), text.get_window_extent()) for text in around(figure)]
    cut = [words for words, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]
    touching = [
        f"{a!r} and {b!r}"
        for (a, one), (b, two) in itertools.combinations(boxes, 2)
        if one.shrunk(0.9, 0.9).overlaps(two.shrunk(0.9, 0.9))
    ]
    axes = [panel.yaxis for panel in figure.axes if re.search("accuracy.*%", panel.yaxis.label.get_text())]
    outside = [words for axis in axes for words in map(number_of, ticks_of(axis)) if not 0 <= words <= 100]
    return [
        *(f"cut: {words!r}" for words in cut),
        *(f"touching: {pair}" for pair in touching),
        *(f"an accuracy of {number:g} %" for number in outside),
    ]


def number_of(label):
    return float(label.get_text().replace("\N{MINUS SIGN}", "-"))


def around(figure):
    """Titles, labels and numbers of all panels, and legends."""
    texts = [figure._supxlabel, figure._supylabel, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        if axes.get_visible():
            texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
            texts += [label for axis in (axes.xaxis, axes.yaxis) for label in ticks_of(axis)]
    return [text for text in texts if text is not None and text.get_visible() and text.get_text().strip()]


def ticks_of(axis):
    """Labels that are drawn: those of ticks inside the axis."""
    low, high = sorted(axis.get_view_interval())
    return [
        tick.label1
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if tick.label1.get_visible() and low <= tick.get_loc() <= high
    ]
