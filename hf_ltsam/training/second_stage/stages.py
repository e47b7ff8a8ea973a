"""The second stages by name, and the loss of CC-SAM's. Shapes: n batch, D features, C classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.hyperparameters import BELOW_ONE, COUNT, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, Documented, build, require
from hf_ltsam.landscape.vector import TINY
from hf_ltsam.losses.protocol import FeatureLoss, Loss, wide
from hf_ltsam.runs.identity import describe
from hf_ltsam.training.second_stage.heads import Head, ScaledHead


class SecondStage(Documented, ABC):
    """What becomes of the classifier of a trained model."""

    is_trained: ClassVar[bool] = True  # False: there is nothing to train
    perturbs: ClassVar[bool] = False  # whether it has a perturbation of its own
    shifts_batch_norm: ClassVar[bool] = False  # whether the batch norm of the frozen trunk goes on counting

    @abstractmethod
    def head(self, classifier: nn.Module, seed: int) -> Head:
        """What is trained, from a copy of the first stage's classifier.

        Raises:
            ValueError: it does not go with this kind of classifier.
        """

    def loss(self, base: Loss | FeatureLoss, head: Head, epoch: Callable[[], int]) -> Loss | FeatureLoss:
        """What it is trained on, where `base` is asked for; `epoch` tells that of the training, from 0."""
        return base

    def callbacks(self, head: Head) -> list[TrainerCallback]:
        """What acts between the steps, given the head before the first one."""
        return []

    def rates(self, head: Head) -> dict[str, float]:
        """Parameters of the head that are trained at a share of the learning rate, by name."""
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of a run says of it."""
        paper = {"title": self.title, "source": self.source, "citations": list(self.citations)}
        return {**describe(SECOND_STAGES, self), **paper}


@dataclass(frozen=True)
class CRT(SecondStage):
    """Classifier re-training: the classifier is trained again, on classes in equal shares.

    Args:
        reinitialise: whether it starts anew (the paper) or from where the first stage left it.

    Source: Kang et al. 2020 Sec. 4.1. Sampling: `LTSamConfig(sampling="class_aware")` or "class_balanced".
    """

    title: ClassVar = "cRT"
    citations: ClassVar = ("kang2020",)

    reinitialise: bool = True

    def head(self, classifier: nn.Module, seed: int) -> Head:
        if self.reinitialise:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                _restart(classifier)
        return Head(classifier)


@dataclass(frozen=True)
class LWS(SecondStage):
    """Learnable weight scaling: one factor for the logit of each class is trained; class vectors keep their directions.

    The factors start at 1 and end inside the weights and biases of the saved classifier. Linear classifiers only.

    Source: Kang et al. 2020 Sec. 4.1.
    """

    title: ClassVar = "LWS"
    citations: ClassVar = ("kang2020",)

    def head(self, classifier: nn.Module, seed: int) -> Head:
        return ScaledHead(linear(self, classifier))


@dataclass(frozen=True)
class TauNorm(SecondStage):
    """tau-normalisation: w_c / ||w_c||^tau, without biases. Nothing is trained.

    Args:
        tau: >= 0; 0 leaves the weights as they are, 1 makes all norms one. None: the one of `taus` with the best mean of
            accuracies per class on a part of the training images.
        taus: from which it is chosen; of equally good ones the smallest.
        share: of every class's training images that it is chosen by (at least one of each), in (0, 1).

    That part should be images the first stage was not trained on; `ltsam train --reserve` leaves some out.

    Source: Kang et al. 2020 Sec. 4.1 and Eq. 3.
    """

    title: ClassVar = "tau-norm"
    citations: ClassVar = ("kang2020",)

    is_trained: ClassVar[bool] = False

    tau: float | None = None
    taus: tuple[float, ...] = tuple(k / 20 for k in range(41))
    share: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.taus, list | tuple) or not self.taus:
            raise ValueError(f"TauNorm(taus=...) must be a list of numbers, got {self.taus!r}.")
        object.__setattr__(self, "taus", tuple(self.taus))
        for tau in self.taus if self.tau is None else (self.tau,):
            require(NON_NEGATIVE, self, tau=tau)
        require(POSITIVE, self, share=self.share)
        require(BELOW_ONE, self, share=self.share)

    def head(self, classifier: nn.Module, seed: int) -> Head:
        return Head(linear(self, classifier))


@dataclass(frozen=True)
class MaxNorm(SecondStage):
    """MaxNorm: w_c <- min(1, delta / ||w_c||) w_c after every step, so that no class vector is longer than delta.

    The classifier is trained on from where the first stage left it; biases are not bounded. Linear classifiers only.

    Args:
        radius: delta, positive. None: that of `share`.
        share: delta lies this share of the way from the first stage's shortest class vector to its longest, in [0, 1].

    Source: Alshammari et al. 2022 Eq. 4 and 5; `share` and its value are those of the published code. Both stages go with a
    weight decay that is tuned, the second one with a class-balanced loss.
    Differs from the published code: the projection follows every step, as the text says, and not every epoch.
    """

    title: ClassVar = "MaxNorm"
    citations: ClassVar = ("alshammari2022",)

    radius: float | None = None
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.radius is not None:
            require(POSITIVE, self, radius=self.radius)
        require(UNIT_INTERVAL, self, share=self.share)

    def head(self, classifier: nn.Module, seed: int) -> Head:
        return Head(linear(self, classifier))

    def callbacks(self, head: Head) -> list[TrainerCallback]:
        classifier = linear(self, head.classifier)
        norms = classifier.weight.detach().norm(dim=1)  # (C,)
        of_share = norms.min() + self.share * (norms.max() - norms.min())
        return [NormBall(classifier, float(of_share) if self.radius is None else self.radius)]


class NormBall(TrainerCallback):
    """After every step, class vectors outside a ball around 0 are brought back to its surface.

    Args:
        classifier: weight (C, D).
        radius: of the ball.
    """

    def __init__(self, classifier: nn.Linear, radius: float) -> None:
        self.classifier, self.radius = classifier, radius

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        w = self.classifier.weight
        w.mul_((self.radius / w.norm(dim=1, keepdim=True)).clamp(max=1))  # a vector of length 0 stays


@dataclass(frozen=True)
class MiSLAS(SecondStage):
    """MiSLAS: classifier and one factor for each logit are trained, s_c (w_c . x + b_c), while batch norm is shifted.

    The classifier goes on from where the first stage left it, slower than the factors, which start at 1 and end inside
    the weights and biases of the saved classifier. Shifted batch norm: a layer of the frozen trunk normalises a batch by the
    mean and variance of that batch and goes on counting its running ones, which the long tail has left behind, under the
    balanced sampling; its weights and biases stay. It needs images, not cached features. Linear classifiers only.

    Args:
        classifier_rate: rate of the classifier as a share of the learning rate, which is that of the factors, >= 0; the
            published code at ratio 100: 0.5 on CIFAR-10-LT, 0.2 on CIFAR-100-LT; 0.05 on larger sets.
        shift_batch_norm: whether batch norm is shifted; the published code does so on all sets but CIFAR-10-LT.

    Cost: that of a forward of the whole model and a step of the classifier.
    Source: Zhong et al. 2021 Sec. 3.2 and 3.3, with class-balanced sampling and `label_aware_smoothing` after a first stage
    with mixup; the sections are second hand, everything else is as in the published code.
    Differs from the published code: on Places-LT it shifts the last block of its ResNet-152 alone.
    """

    title: ClassVar = "MiSLAS"
    citations: ClassVar = ("zhong2021",)

    classifier_rate: float = 0.05
    shift_batch_norm: bool = True

    def __post_init__(self) -> None:
        require(NON_NEGATIVE, self, classifier_rate=self.classifier_rate)
        if not isinstance(self.shift_batch_norm, bool):
            raise ValueError(f"MiSLAS(shift_batch_norm=...) must be true or false, got {self.shift_batch_norm!r}.")

    @property
    def shifts_batch_norm(self) -> bool:  # type: ignore[override]
        return self.shift_batch_norm

    def head(self, classifier: nn.Module, seed: int) -> Head:
        return ScaledHead(linear(self, classifier), trains_classifier=True)

    def rates(self, head: Head) -> dict[str, float]:
        return {f"classifier.{name}": self.classifier_rate for name, _ in head.classifier.named_parameters()}


@dataclass(frozen=True)
class CCSAMStage(SecondStage):
    """CC-SAM's second stage: the classifier is trained on features that are moved towards a higher loss of their class.

    For each class c in the batch, d_c is the gradient of its mean loss with respect to the features, over its Frobenius
    norm; its features move to x + w_c d_c, and the loss is alpha mean(w_c l(moved)) + (1 - alpha) mean(l), with
    w_c = factor ln(n_max / n_c + offset) and alpha = min((epoch + 1) / ramp_epochs, cap).

    Args:
        cap: largest share of the moved features, in [0, 1]; 1 on CIFAR-10-LT, 0.3 on CIFAR-100-LT.
        ramp_epochs: >= 1.
        offset: >= 0.
        factor: >= 0; 0 with cap 0 is cRT without a new start.
        reinitialise: whether the classifier starts anew.

    Cost: two more passes of the classifier alone, and one backward.
    Source: published code of Zhou et al. 2023b, whose appendix names the stage and its gain. Its sampling is class-aware.
    Differs from the published code: batch norm of the frozen trunk is in evaluation mode.
    """

    title: ClassVar = "CC-SAM"
    citations: ClassVar = ("zhou2023b",)
    perturbs: ClassVar[bool] = True

    cap: float = 1.0  # this and the next three: the published code
    ramp_epochs: int = 30
    offset: float = 0.01
    factor: float = 0.5
    reinitialise: bool = False

    def __post_init__(self) -> None:
        require(UNIT_INTERVAL, self, cap=self.cap)
        require(COUNT, self, ramp_epochs=self.ramp_epochs)
        require(NON_NEGATIVE, self, offset=self.offset, factor=self.factor)

    def head(self, classifier: nn.Module, seed: int) -> Head:
        return CRT(self.reinitialise).head(classifier, seed)

    def loss(self, base: Loss | FeatureLoss, head: Head, epoch: Callable[[], int]) -> Loss:
        if isinstance(base, FeatureLoss):
            raise ValueError(
                f"cc_sam's second stage moves the features that {type(base).__name__} reads: use loss='cross_entropy'."
            )
        return MovedFeatures(self, base, head, epoch)

    def weights(self, statistics: ClassStatistics, like: Tensor) -> Tensor:
        """w (C,)."""
        n = statistics.tensor("counts", like)
        return self.factor * (n.max() / n + self.offset).log()

    def alpha(self, epoch: int) -> float:
        """The share of the moved features in an epoch, counted from 0."""
        return min((epoch + 1) / self.ramp_epochs, self.cap)


class MovedFeatures:
    """l_i = alpha w_c l(moved x_i) + (1 - alpha) l(x_i) for a sample i of class c.

    Args:
        settings: w_c and alpha.
        base: l.
        head: what is trained; it has just been given the features x.
        epoch: of the training, from 0.
    """

    def __init__(self, settings: CCSAMStage, base: Loss, head: Head, epoch: Callable[[], int]) -> None:
        self.settings, self.base, self.head, self.epoch = settings, base, head, epoch

    def __call__(self, logits: Tensor, labels: Tensor, statistics: ClassStatistics) -> Tensor:
        if are_soft(labels):
            raise ValueError(
                "The second stage cc_sam moves the features of a sample along its class, and soft labels (mixup, CutMix, "
                "shares of classes) name several: set mixup_alpha and cutmix_alpha to 0, or take the second stage crt."
            )
        w = self.settings.weights(statistics, wide(logits))[labels]  # (n,)
        features = self.head.given.detach()
        with torch.enable_grad():
            x = features.requires_grad_()
            d = class_directions(x, self.base(self.head.logits(x), labels, statistics), labels, statistics.num_classes)
        moved = (features.detach() + w[:, None] * d).to(features.dtype)
        alpha = self.settings.alpha(self.epoch())
        moved_losses = w * self.base(self.head.logits(moved), labels, statistics)
        return alpha * moved_losses + (1 - alpha) * self.base(logits, labels, statistics)


def class_directions(features: Tensor, losses: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Of each sample the row of d_c (n, D), its class's: the gradient of the class's mean loss, over its Frobenius norm.

    Args:
        features: (n, D), what `losses` were computed from.
        losses: (n,).
        labels: (n,).
    """
    n_c = torch.bincount(labels, minlength=num_classes)[labels]
    (g,) = torch.autograd.grad((losses / n_c).sum(), features)
    g = wide(g)
    squares = g.new_zeros(num_classes).index_add_(0, labels, g.square().sum(dim=1))  # (C,)
    return g / (squares.sqrt() + TINY)[labels, None]


SECOND_STAGES: dict[str, type[SecondStage]] = {
    "crt": CRT,
    "lws": LWS,
    "tau_norm": TauNorm,
    "maxnorm": MaxNorm,
    "mislas": MiSLAS,
    "cc_sam": CCSAMStage,
}


def make_second_stage(name: str, **arguments: Any) -> SecondStage:
    """A second stage by its name.

    Raises:
        ValueError: an unknown name or argument, with the nearest valid ones, or a value out of its range.
    """
    stage: SecondStage = build("second stage", SECOND_STAGES, name, arguments)
    return stage


def linear(stage: SecondStage, classifier: nn.Module) -> nn.Linear:
    """The classifier, if it is linear.

    Raises:
        ValueError: it is not, which this stage needs.
    """
    if not isinstance(classifier, nn.Linear):
        raise ValueError(
            f"{type(stage).__name__} changes the norms of a linear layer's class vectors, and this model ends in a "
            f"{type(classifier).__name__}, in which only directions count. crt and cc_sam train cosine classifiers too."
        )
    return classifier


def _restart(classifier: nn.Module) -> None:
    reset: Any = classifier.reset_parameters  # torch's convention, which linear and cosine layers follow
    reset()
