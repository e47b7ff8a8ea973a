"""Images for the tests of corruptions: photographs where the shared material is there, and made ones."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

SHARED = Path(os.environ.get("LTSAM_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Sky, ground, a few coloured disks and a little grain, uint8 (height, width, 3)."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    image = np.stack([90 + 60 * y / height, 110 + 30 * x / width, 200 - 120 * y / height], axis=-1)
    for _ in range(6):
        centre, radius = rng.uniform(0, 1, 2) * (height, width), rng.uniform(0.08, 0.3) * min(height, width)
        image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = rng.uniform(20, 235, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def photographs(side: int) -> list[np.ndarray]:
    """Six real images of this side, 32 or 224; an empty list where the shared material is absent."""
    if not SHARED.is_dir():
        return []
    if side == 32:
        rows = pq.read_table(SHARED / "data/cifar100/test.parquet", columns=["img"]).slice(0, 6)["img"].to_pylist()
        return [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows]
    files = sorted((SHARED / "samples/imagenet").glob("*/*"))[::17]
    return [np.asarray(Image.open(file).convert("RGB").resize((side, side))) for file in files]


def png(image: np.ndarray) -> dict:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def labelled_scenes(count: int, side: int = 16) -> Dataset:
    """Columns `img`, `label` (a `ClassLabel`) and `note`."""
    features = Features({"img": ImageFeature(), "label": ClassLabel(names=["dog", "cat"]), "note": Value("string")})
    rows = {
        "img": [png(scene(side, side, seed)) for seed in range(count)],
        "label": [i % 2 for i in range(count)],
        "note": [f"row {i}" for i in range(count)],
    }
    return Dataset.from_dict(rows, features=features)
