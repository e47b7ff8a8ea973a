"""What `ltsam sharpness` finds on a run of the demo, for its most frequent and its rarest digit."""

from __future__ import annotations

import shlex
from pathlib import Path

from training_scripts.analyze_sharpness import compute
from training_scripts.sharpness_options import parse_options

# Few images and steps, to save time; without a class named, these two are looked at.
OPTIONS = ["--max_samples", "16", "--lanczos_steps", "25", "--spectrum", "--checkpoints", "--surface", "2d",
           "--points", "9"]        # fmt: skip


def save_curvature(run: Path) -> Path:
    """Spectra, their extremes over the checkpoints, and a loss surface, in `RUN/sharpness`.

    Returns:
        The path of `sharpness.json`.
    """
    words = [str(run), *OPTIONS]
    return compute(parse_options(words), shlex.join(["ltsam", "sharpness", *words]), progress=False)
