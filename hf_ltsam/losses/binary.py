"""A loss for samples of several classes at a time: each label is answered by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from hf_ltsam.class_statistics import ClassStatistics, per_class
from hf_ltsam.data.soft_labels import check_several
from hf_ltsam.hyperparameters import NON_NEGATIVE, Documented, require, require_choice
from hf_ltsam.losses.protocol import Loss, wide
from hf_ltsam.losses.reweighting import SCHEMES, class_weights


@dataclass(frozen=True)
class BinaryCrossEntropy(Documented, Loss):
    """Binary cross-entropy: l = (1/C) sum over c of w_c BCE(z_c + tau log(pi_c / (1 - pi_c)), y_c).

    Labels are 0 or 1 for every class (n, C), of which a sample may have none, one or several; pi_c is the share of the
    training images with label c. With the defaults it is the loss of transformers' `multi_label_classification`.

    Args:
        tau: strength of the logit adjustment, >= 0; 0 is off. The model then learns logits as of labels that are as frequent
            as they are rare, so that 0 stays the threshold of a balanced decision.
        class_weighting: w_c of mean 1 over labels: "none", "inverse" or "effective_number", as `class_weights` has them.

    A method that weights samples by class takes the mean over the labels of a sample, and one without a label for one of the
    most frequent label.
    Source: logit adjustment of Menon et al. 2021 Eq. 10 for two classes, label by label; weights as Cui et al. 2019 Sec. 4.
    """

    title: ClassVar = "BCE"
    citations: ClassVar = ("menon2021", "cui2019")
    several_labels: ClassVar[bool] = True  # of a sample at a time

    tau: float = 0.0
    class_weighting: str = "none"

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, tau=self.tau)
        require_choice(self, SCHEMES, class_weighting=self.class_weighting)

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        check_several(labels, logits.shape[1])
        logits = wide(logits)
        adjusted = logits + self.tau * _log_odds(statistics, logits, statistics.total)
        losses = F.binary_cross_entropy_with_logits(adjusted, labels.to(logits.dtype), reduction="none")  # (n, C)
        return (class_weights(self.class_weighting, statistics, logits) * losses).mean(1)


@per_class
def _log_odds(counts: Tensor, total: int) -> Tensor:
    """log(pi / (1 - pi)); a label that all images have counts as missing in half an image."""
    return (counts / (total - counts).clamp_min(0.5)).log()
