"""The published strength of every corruption, in one table.

Source of all numbers: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", by the values in the published generators of ImageNet-C (224 x 224 pixels) and CIFAR-10-C (32 x 32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise",
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)

NATIVE_SIDE = {"imagenet": 224, "cifar": 32}  # pixels that a set of parameters was published for
SMALL = 64  # pixels: images whose short side is at most this long get CIFAR's parameters

Row = tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """One corruption: five rows of numbers for each of the two image sizes.

    Args:
        names: of the columns, in the order of the numbers.
        imagenet, cifar: a row per severity.
        powers: column -> k, for what is measured in pixels: multiplied by (short side / native side)^k.
    """

    names: tuple[str, ...]
    imagenet: tuple[Row, ...]
    cifar: tuple[Row, ...]
    powers: Mapping[str, int] = field(default_factory=dict)


def _one(name: str, imagenet: Row, cifar: Row, powers: Mapping[str, int] | None = None) -> Table:
    """A corruption with a single number."""
    return Table((name,), tuple((v,) for v in imagenet), tuple((v,) for v in cifar), powers or {})


TABLES: dict[str, Table] = {
    "gaussian_noise": _one("sigma", (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": _one("photons", (60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    "impulse_noise": _one("share", (0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": _one("sigma", (0.15, 0.2, 0.35, 0.45, 0.6), (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": _one("sigma", (1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1), {"sigma": 1}),
    "defocus_blur": Table(
        ("radius", "softening"),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        {"radius": 1, "softening": 1},
    ),
    "glass_blur": Table(
        ("sigma", "reach", "rounds"),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        {"sigma": 1, "reach": 1},
    ),
    "motion_blur": Table(
        ("radius", "sigma"),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        {"radius": 1, "sigma": 1},
    ),
    # The published ranges are floating-point `arange`s, some of which overshoot their end: counted as they come out.
    "zoom_blur": Table(
        ("count", "step"),
        ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
        ((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),
    ),
    "snow": Table(
        ("mean", "std", "flake", "threshold", "radius", "sigma", "keep"),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        {"flake": 1, "radius": 1, "sigma": 1},
    ),
    # zoom: of the texture; CIFAR-10-C shrinks its textures to a fifth.
    "frost": Table(
        ("keep", "add", "zoom"),
        ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
        {"zoom": 1},
    ),
    "fog": Table(
        ("density", "decay"),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ),
    "spatter": Table(
        ("mean", "std", "sigma", "threshold", "strength", "mud_sigma"),  # strength: of water; mud_sigma 0: it is water
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 0, 1.5),
            (0.67, 0.4, 1, 0.65, 0, 1.5),
        ),
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0, 0.6),
            (0.65, 0.1, 0.5, 0.68, 0, 0.6),
        ),
        {"std": 1, "sigma": 1, "mud_sigma": 1},  # std: blurred noise has std / sigma, and drops are to stay as frequent
    ),
    "brightness": _one("increase", (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": _one("factor", (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturate": Table(
        ("factor", "increase"),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    ),
    # alpha, sigma, affine: fractions of 244 (not 224: the generator of ImageNet-C says so) and of 32, here in pixels.
    "elastic_transform": Table(
        ("alpha", "sigma", "affine"),
        ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
        ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
        {"alpha": 2, "sigma": 1, "affine": 1},  # alpha: a displacement is alpha / sigma, and is to grow with the image
    ),
    "pixelate": _one("factor", (0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": _one("quality", (25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
}


def parameters(corruption: str, severity: int, short_side: int, scale: str = "auto") -> dict[str, float]:
    """The numbers of one corruption for images of this size.

    Args:
        short_side: in pixels. What is measured in pixels grows in proportion to it.
        scale: "imagenet" or "cifar", whose numbers are taken; "auto": CIFAR's up to 64 pixels.

    CIFAR's radii are near the smallest that a grid of pixels can show: images under 32 pixels keep those of 32.
    """
    table = TABLES[corruption]
    if scale == "auto":
        scale = "cifar" if short_side <= SMALL else "imagenet"
    ratio = short_side / NATIVE_SIDE[scale]
    if scale == "cifar":
        ratio = max(1.0, ratio)
    row = (table.cifar if scale == "cifar" else table.imagenet)[severity - 1]
    return {name: value * ratio ** table.powers.get(name, 0) for name, value in zip(table.names, row)}
