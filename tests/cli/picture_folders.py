"""Folders of made-up pictures, one for each class."""

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")


def draw_images(folder, counts, size, seed=0):
    """PNGs in class folders; the colour tells the class."""
    rng = np.random.default_rng(seed)
    for c, (name, count) in enumerate(zip(CLASSES, counts)):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            image = rng.integers(0, 120, (size, size, 3), dtype=np.uint8)
            image[..., c] += 120
            Image.fromarray(image).save(folder / name / f"{k}.png")
