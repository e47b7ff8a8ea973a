"""A run as one plain checkpoint, with its adapter merged into the weights."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import AutoImageProcessor

from hf_ltsam.runs.folder import load_run, weights_digest
from hf_ltsam.runs.record import read_metrics, write_metrics

FACTS = ("metrics.json", "recipe.yaml", "class_statistics.json")  # what the run says about itself


def main(words: Sequence[str]) -> None:
    """ltsam export RUN OUT."""
    parser = argparse.ArgumentParser(
        prog="ltsam export", description="Write a run as one plain checkpoint, adapter merged."
    )
    parser.add_argument("run", type=Path, help="the output folder of a training run")
    parser.add_argument("out", type=Path, help="a new folder")
    arguments = parser.parse_args(words)
    export(arguments.run, arguments.out)
    print(
        f"{arguments.out} holds the whole model: AutoModelForImageClassification.from_pretrained, after import hf_ltsam."
    )


def export(run: Path, out: Path) -> None:
    """Weights, image processor, and what the run says about itself.

    Raises:
        FileNotFoundError: no run there.
        ValueError: the folder to write holds something, or the adapter cannot be merged.
    """
    if not (run / "config.json").is_file():
        raise FileNotFoundError(f"{run} holds no finished run: there is no config.json in it.")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name a new folder.")
    model: Any = merged(load_run(run), run)
    model.save_pretrained(out)
    AutoImageProcessor.from_pretrained(run).save_pretrained(out)
    for name in FACTS:
        if (run / name).is_file():
            shutil.copy2(run / name, out / name)
    _results_stay_true(run, out)


def _results_stay_true(run: Path, out: Path) -> None:
    """The merged weights compute the same, so the results that were those of the run's weights are theirs too."""
    if not (run / FACTS[0]).is_file():
        return
    record = read_metrics(run)
    if record.weights_sha256 and record.weights_sha256 == weights_digest(run):
        write_metrics(out, replace(record, weights_sha256=weights_digest(out)))


def merged(model: nn.Module, run: Path) -> nn.Module:
    """The model without its adapter, which computes the same.

    Raises:
        ValueError: the adapter is no change of weights; says so.
    """
    if not isinstance(model, PeftModel):
        return model
    tuner: Any = model.base_model  # LoraModel, IA3Model, ...
    try:
        return tuner.merge_and_unload()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{run} holds an adapter ({type(tuner).__name__}) that cannot become part of the weights: {error} Load "
            f"it as it is: hf_ltsam.load_run({str(run)!r})."
        ) from error
