"""Class vectors from labelled features: where a cosine classifier may start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The direction of the mean of each class's unit features: of all unit vectors the one of largest mean cosine.

    Args:
        features: (M, D).
        labels: (M,).
        num_classes: C.

    Returns:
        Unit vectors (C, D).

    Raises:
        ValueError: a class without a sample.
    """
    _require_every_class(labels, num_classes)
    sums = torch.zeros(num_classes, features.shape[1]).index_add_(0, labels, F.normalize(features))
    return F.normalize(sums)


def linear_probe(
    features: Tensor, labels: Tensor, num_classes: int, scale: float, class_balanced: bool = True
) -> Tensor:
    """The directions of a multinomial logistic regression without intercept.

    Minimises sum_i a_i CE(scale w x_i / ||x_i||, y_i) + ||w||^2 / 2 by L-BFGS (scikit-learn's `LogisticRegression` with
    C = 1), where a_i = M / (C n_{y_i}) if `class_balanced`, else 1.

    Args:
        features: (M, D).
        labels: (M,).
        num_classes: C, at least 2.
        scale: of the cosine classifier.
        class_balanced: give every class the same say, however many samples it has.

    Returns:
        Unit vectors (C, D).

    Raises:
        ValueError: a class without a sample.
    """
    from sklearn.linear_model import LogisticRegression

    _require_every_class(labels, num_classes)
    solver = LogisticRegression(
        C=1.0, fit_intercept=False, max_iter=1000, class_weight="balanced" if class_balanced else None
    )
    solver.fit((scale * F.normalize(features)).double().numpy(), labels.numpy())
    weights = torch.from_numpy(solver.coef_).float()
    if num_classes == 2:  # scikit-learn fits one vector, for the second class
        weights = torch.cat([-weights, weights])
    return F.normalize(weights)


def _require_every_class(labels: Tensor, num_classes: int) -> None:
    counts = torch.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"Label {len(counts) - 1} is outside the class range 0 to {num_classes - 1}.")
    if int(counts.min()) == 0:
        raise ValueError(
            f"Class {int(counts.argmin())} has no training image, so no class vector can start from images: choose init "
            "text or random."
        )
