"""Images per second of every corruption, in one process.

    python benchmarks/corruptions.py [--sides 32 224] [--repetitions 5] [--output corruptions.json]

Every corruption is run at all five severities on a photograph-like image (coloured clouds and edges); reported is the
best of the repetitions, the least disturbed one, and the mean over the 15 corruptions of ImageNet-C: images per second
of their mean time. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dataset_builders.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt


def picture(side: int) -> NDArray[np.uint8]:
    """(side, side, 3)."""
    rng = np.random.default_rng(0)
    clouds = ndimage.gaussian_filter(rng.standard_normal((side, side, 3)), (side / 12, side / 12, 0), mode="wrap")
    image = 128 + 45 * clouds / clouds.std() + 25 * (clouds[..., :1] > 0) + 4 * rng.standard_normal((side, side, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def best_seconds(image: NDArray[np.uint8], corruption: str, repetitions: int) -> float:
    """Per image, averaged over the severities."""
    seconds = []
    for repetition in range(-1, repetitions):  # the first one fills caches
        start = time.perf_counter()
        for severity in SEVERITIES:
            corrupt(image, corruption, severity, seed=repetition)
        seconds.append((time.perf_counter() - start) / len(SEVERITIES))
    return min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[32, 224], help="of the images, in pixels")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write all numbers to this JSON file")
    options = parser.parse_args()
    print(f"numpy {np.__version__}, {os.cpu_count()} cores, {platform.machine()}; images per second and process")
    rates: dict[str, dict[str, float]] = {}
    for side in options.sides:
        image = picture(side)
        seconds = {name: best_seconds(image, name, options.repetitions) for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS)}
        rates[str(side)] = {name: 1 / value for name, value in seconds.items()}
        rates[str(side)]["mean of 15"] = 1 / statistics.mean(seconds[name] for name in CORRUPTIONS)
    print(f"{'':20}" + "".join(f"{side:>5} px" for side in options.sides))
    for name in rates[str(options.sides[0])]:
        print(f"{name:20}" + "".join(f"{rates[str(side)][name]:8.0f}" for side in options.sides))
    if options.output:
        options.output.write_text(json.dumps(rates, indent=2) + "\n")


if __name__ == "__main__":
    main()
