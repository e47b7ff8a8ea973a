"""Mixup and CutMix: pairs of images of a batch mixed, and their labels with them.

Shapes: n images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_ltsam.data.keys import random_key
from hf_ltsam.data.soft_labels import shares_of
from hf_ltsam.hyperparameters import NON_NEGATIVE, require

_MIXING = 0x313  # key word: no random numbers shared with other augmentation


@dataclass
class MixingSettings:
    """Settings of a training; both 0: images are not mixed."""

    mixup_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Mix pairs of training images and their labels by shares from Beta(alpha, alpha), one share for a batch "
            "(mixup, Zhang et al. 2018: 0.2 for ImageNet, 1 for CIFAR). 0: off."
        },
    )
    cutmix_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Put a rectangle of another training image into each one, its share of the area from Beta(alpha, alpha) "
            "(CutMix, Yun et al. 2019: 1). With mixup_alpha as well, each batch takes one of both at random. 0: off."
        },
    )

    def check_mixing(self) -> None:
        """Refuse an alpha that is no parameter of a Beta distribution.

        Raises:
            ValueError: naming the setting and its value.
        """
        require(NON_NEGATIVE, self, mixup_alpha=self.mixup_alpha, cutmix_alpha=self.cutmix_alpha)

    @property
    def mixing(self) -> dict[str, float]:
        """The settings that are not 0."""
        settings = {"mixup_alpha": self.mixup_alpha, "cutmix_alpha": self.cutmix_alpha}
        return {name: alpha for name, alpha in settings.items() if alpha}


@dataclass(frozen=True)
class Mixture:
    """What one batch draws.

    Args:
        partners: of each image, the position of the image that is mixed in (n,); a permutation.
        share: of the image itself, in [0, 1]; its partner has the rest.
        corner: where the middle of CutMix's rectangle lies, as shares of height and width; None: mixup.
    """

    partners: Tensor
    share: float
    corner: tuple[float, float] | None

    @classmethod
    def drawn(cls, settings: MixingSettings, seed: int, batch: int, size: int) -> Mixture:
        """A function of (seed, number of the batch, n) alone: nothing to save, and the same in any process.

        Args:
            seed: of the training.
            batch: number of the micro-batch in the training, counted over steps, processes and accumulation.
            size: n.
        """
        generator = np.random.default_rng(random_key(seed, _MIXING, batch))
        choices = [name for name in ("mixup", "cutmix") if getattr(settings, f"{name}_alpha")]
        choice = choices[int(generator.integers(len(choices)))]
        alpha = getattr(settings, f"{choice}_alpha")
        share = float(generator.beta(alpha, alpha))
        y, x = generator.random(2).tolist()
        partners = torch.from_numpy(generator.permutation(size))
        return cls(partners, share, (y, x) if choice == "cutmix" else None)

    def of(self, inputs: Mapping[str, Any], labels: Tensor, num_classes: int) -> tuple[dict[str, Any], Tensor]:
        """Inputs and labels (n, C) of the mixed batch.

        Args:
            inputs: of the model: images (n, channels, height, width), or for mixup any floating-point rows.
            labels: class indices (n,), or soft ones (n, C).
            num_classes: C.

        Raises:
            ValueError: an input that cannot be mixed.
        """
        rows = {name: value for name, value in inputs.items() if isinstance(value, Tensor) and value.ndim}
        _check_inputs(rows, self.corner is not None)
        partners = self.partners.to(labels.device, non_blocking=True)
        shares = shares_of(labels, num_classes)
        if self.corner is None:
            mixed, share = {name: _mixup(value, partners, self.share) for name, value in rows.items()}, self.share
        else:
            ((name, images),) = rows.items()
            pasted, share = _cutmix(images, partners, self.share, self.corner)
            mixed = {name: pasted}
        return {**inputs, **mixed}, share * shares + (1 - share) * shares[partners]


def _mixup(values: Tensor, partners: Tensor, share: float) -> Tensor:
    """share x_i + (1 - share) x_j. Source: Zhang et al. 2018 Eq. 1, with one share for a batch as in their code."""
    return share * values + (1 - share) * values[partners]


def _cutmix(images: Tensor, partners: Tensor, share: float, middle: tuple[float, float]) -> tuple[Tensor, float]:
    """A rectangle of x_j in x_i, and the share of the pixels that stay.

    Its sides are sqrt(1 - share) of the image's, its middle is uniform, and it is clipped at the border, after which the
    share is counted anew. Source: Yun et al. 2019 Eq. 1 and 2, and their code.
    """
    height, width = images.shape[2:]
    side = (1 - share) ** 0.5
    top, bottom = _extent(middle[0], side, height)
    left, right = _extent(middle[1], side, width)
    pasted = images.clone()
    pasted[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return pasted, 1 - (bottom - top) * (right - left) / (height * width)


def _extent(middle: float, side: float, length: int) -> tuple[int, int]:
    centre, half = int(middle * length), int(side * length) // 2
    return max(centre - half, 0), min(centre + half, length)


def _check_inputs(rows: Mapping[str, Tensor], images: bool) -> None:
    option = "cutmix_alpha" if images else "mixup_alpha"
    for name, value in rows.items():
        if not value.is_floating_point():
            raise ValueError(
                f"{option} mixes images, and the model's input {name!r} is of {value.dtype}, which cannot be mixed: set "
                f"{option}=0."
            )
    if images and (len(rows) != 1 or any(value.ndim != 4 for value in rows.values())):
        shapes = ", ".join(f"{name!r} {tuple(value.shape)}" for name, value in rows.items()) or "no tensor"
        raise ValueError(
            f"{option} takes one input of images (n, channels, height, width); the batch has {shapes}: set {option}=0, or "
            "take mixup_alpha."
        )
