"""Class weights of the loss, and their deferral to a later part of training (DRW)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics, per_class
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import BELOW_ONE, SHARE, nearest, require
from hf_ltsam.losses.protocol import wide

SCHEMES = ("none", "inverse", "effective_number")
DRW = ("effective_number", 0.8)  # scheme and start of Cao et al. 2019: from 160 of 200 epochs on
# beta of the effective number of samples: one of Cui et al. 2019's values, and the one in the published code of DRW
BETA = 0.9999


def class_weights(scheme: str, statistics: ClassStatistics, like: Tensor, beta: float = BETA) -> Tensor:
    """Class weights (C,) with mean 1 over classes, on the device of `like` and in its floating-point type.

    Args:
        scheme: "none", all ones; "inverse", proportional to 1/n_c (Rangwani et al. 2022 Eq. 2);
            "effective_number", proportional to (1 - beta)/(1 - beta^n_c) (Cui et al. 2019 Sec. 4), which made every
            published DRW number.
        beta: of the effective number, in [0, 1): 0 is "none", and "inverse" is the limit at 1.

    Raises:
        ValueError: unknown scheme, or beta outside [0, 1).
    """
    if scheme not in SCHEMES:
        raise ValueError(f"Unknown re-weighting scheme {scheme!r}.{nearest(scheme, SCHEMES)}")
    if scheme == "inverse":
        return _inverse_weights(statistics, like)
    require(BELOW_ONE, "class_weights", beta=beta)
    return _effective_number_weights(statistics, like, 0.0 if scheme == "none" else beta)


def without_drw(loss: str) -> str | None:
    """The loss in a name such as "ldam_drw", "LDAM-DRW" or "drw", which means it with the re-weighting `DRW`; else None."""
    name, _, deferred = loss.lower().rpartition("drw")
    return None if deferred or not loss.lower().endswith("drw") else name.strip("-_+ ") or "cross_entropy"


@dataclass(frozen=True)
class Reweighting:
    """Class weights from a point of training on: l_i becomes w_{y_i} l_i, the mean still taken over the batch size.

    Of soft labels q, which a loss is linear in, l(z, q) becomes l(z, w q).

    Args:
        scheme: "none", "inverse" or "effective_number", see `class_weights`.
        start: share of training, in [0, 1], from which the weights apply; DRW starts at 160 of 200 epochs, 0.8.

    Source: Cao et al. 2019 Alg. 1; Rangwani et al. 2022 Eq. 2 and Alg. 1.
    """

    scheme: str = "none"
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            hint = nearest(str(self.scheme), SCHEMES)
            raise ValueError(f"Reweighting(scheme=...) does not know {self.scheme!r}.{hint}")
        require(SHARE, self, start=self.start)

    def active(self, progress: float) -> bool:
        """Whether weights apply at `progress`, completed steps / total steps in [0, 1)."""
        return self.scheme != "none" and progress >= self.start

    def weights(self, progress: float, statistics: ClassStatistics, labels: Tensor, like: Tensor) -> Tensor | None:
        """w_{y_i} (n,) for labels (n,), in device and floating-point type of `like`; None stands for all ones.

        Also for soft labels, which are weighted `within`.
        """
        if not self.active(progress) or are_soft(labels):
            return None
        return class_weights(self.scheme, statistics, like)[labels]

    def within(self, progress: float, statistics: ClassStatistics, labels: Tensor) -> Tensor:
        """Soft labels q (n, C) as w q; class indices (n,), and where no weights apply, as they are."""
        if not self.active(progress) or not are_soft(labels):
            return labels
        return class_weights(self.scheme, statistics, wide(labels)) * labels


@per_class
def _inverse_weights(counts: Tensor) -> Tensor:
    return _mean_one(1 / counts)


@per_class
def _effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    # 1 - beta^n as expm1 keeps its digits where beta^n is close to 1; the factor 1 - beta cancels
    log_beta = torch.tensor(beta, dtype=counts.dtype).log()
    return _mean_one(-1 / torch.expm1(counts * log_beta))


def _mean_one(weights: Tensor) -> Tensor:
    return weights / weights.mean()
