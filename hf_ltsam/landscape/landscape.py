"""G(a, eps), the one quantity from which every method is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from hf_ltsam.landscape.batches import JointBatch, MicroBatch, dealt_out, in_order
from hf_ltsam.landscape.class_gradients import (
    ClassMembers,
    ClassVectors,
    HeadVectors,
    ListedVectors,
    MovedHeads,
)
from hf_ltsam.landscape.gradients import Gradient, GradientTaker
from hf_ltsam.landscape.open_pass import AroundClassifier, OpenPass, may_be_opened, of_mini_batch, opened
from hf_ltsam.landscape.passes import ALL_ROWS, Part, Passes
from hf_ltsam.landscape.reduction import sum_gradients, sum_over_processes
from hf_ltsam.landscape.sharded import are_sharded, ready_for_passes
from hf_ltsam.landscape.shortcuts import Shortcuts, tell_of_full_passes
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.landscape.weights import StoredOffset, TrainableWeights
from hf_ltsam.models.classifier import classifier_of, output_layer

T = TypeVar("T")

__all__ = ["LossLandscape", "MicroBatch", "PassObserver"]


class PassObserver(Protocol):
    """Told of every perturbed pass; see `telemetry.py`."""

    def measures(self, half_precision: bool) -> bool:
        """Whether the next perturbed pass is to say what the weights made of its offset."""

    def stored_offset(self, offset: StoredOffset) -> None: ...

    def perturbed_pass(self, norm: Tensor, cosine: Tensor | None, gap: Tensor | None) -> None: ...

    def sample_gaps(self, gaps: Tensor, labels: Tensor) -> None: ...


class LossLandscape:
    """The loss of one mini-batch as a function of the weights: G(a, eps) = grad_w (1/n) sum_i a_i l_i(w + eps).

    The mini-batch is a list of micro-batches, together n samples. The first pass over a micro-batch draws random
    numbers and moves batch norm's running statistics, as one ordinary training step does; every later pass draws the
    same random numbers again (the same dropout mask) and moves nothing.

    Args:
        weights: the trainable weights w.
        batches: the micro-batches; the weightings below run over their samples in this order.
        logits: micro-batch -> what the losses are made from, differentiable in the weights: logits (b, C).
        losses: (logits, micro-batch) -> losses l_i (b,), each of its own row of the logits alone.
        loss_divisor: the loss is divided by this before every backward pass (gradient accumulation), and the result
            is G all the same: the divisor stays in the vector's lazy scalar.
        observer: told of perturbed passes.
        size: what G divides by where these samples are only a part of the mini-batch; None is their number n.
        shortcuts: which of the ways around the full computation this model allows; None computes every row of every
            pass, and every weighting by a backward pass of its own.
        joint: the samples of all processes as one mini-batch, to which n and the weightings then belong; every process
            asks for the same gradients in the same order. None: the mini-batch is this process's own.
        whole_passes: whether a backward pass must be a whole one, for losses that run others in it.
    """

    def __init__(
        self,
        weights: TrainableWeights,
        batches: Sequence[MicroBatch],
        logits: Callable[[MicroBatch], Tensor],
        losses: Callable[[Tensor, MicroBatch], Tensor],
        loss_divisor: float = 1,
        observer: PassObserver | None = None,
        size: int | None = None,
        shortcuts: Shortcuts | None = None,
        joint: JointBatch | None = None,
        whole_passes: bool = False,
    ) -> None:
        self._weights = weights
        self._batches = list(batches)
        self._joint = joint
        self._places = in_order(self._batches) if joint is None else joint.places
        count = sum(len(batch) for batch in self._batches)
        self.size = size or (count if joint is None else joint.size)  # n
        self._logits, self._losses = logits, losses
        self._divisor = loss_divisor
        self._observer = observer
        self._shortcuts, self._whole_passes = shortcuts, whole_passes
        self._taker = GradientTaker(weights, self.size, loss_divisor, shortcuts, whole_passes)
        self._passes = [Passes(weights, b, self._sample_losses, self._taker, shortcuts) for b in self._batches]
        self._open: OpenPass | None = None
        self._shards: list[LossLandscape] = []
        self.reached = [False] * len(weights.parameters)  # whether any pass gave the parameter a gradient

    @property
    def weights(self) -> WeightVector:
        """w itself, for methods whose perturbation depends on the weights."""
        return self._weights.vector

    @property
    def labels(self) -> Tensor:
        """Of this process's samples, where the batches are."""
        return torch.cat([batch.labels for batch in self._batches])

    @property
    def first_losses(self) -> Tensor:
        """l_i of the first pass over each of this process's samples.

        Raises:
            RuntimeError: no pass over all of them has been made.
        """
        return torch.cat(self._first_losses())

    @property
    def was_dealt_out(self) -> bool:
        """Whether passes were made over shards in place of the whole."""
        return bool(self._shards)

    @property
    def mean_loss(self) -> Tensor:
        """(1/n) sum_i l_i of the first pass over each micro-batch: a 0-dimensional tensor.

        Raises:
            RuntimeError: no pass has been made.
        """
        return self.first_losses.mean()

    def classifier(self, num_classes: int | None) -> list[bool]:
        """For each trainable parameter, whether it belongs to the classifier (see `classifier.py`).

        Args:
            num_classes: C; None: of a model with a loss of its own, whose output layer is meant.

        Raises:
            ValueError: the optimizer does not hold it.
        """
        model = self._weights.model
        members = self._weights.of_module(
            output_layer(model) if num_classes is None else classifier_of(model, num_classes)
        )
        if not any(members):
            raise ValueError(
                f"The classifier of {type(self._weights.model).__name__} is to be perturbed, and the optimizer does not "
                "hold it: give it to the optimizer, or perturb all weights (cc_sam with parameters='all')."
            )
        return members

    def shards(self, count: int) -> list[LossLandscape]:
        """The mini-batch dealt out in order to at most `count` landscapes, whose G(1, 0) add up to G(1, 0) of the whole.

        Each shard passes through the model on its own: batch norm normalises by the shard, and its running statistics
        move once per shard. Of a mini-batch of several processes each deals out its own samples, and the m-th shard is the
        union of theirs.
        """
        self._shards = [self._shard(pieces) for pieces in dealt_out(self._batches, count)]
        return self._shards

    def _shard(self, pieces: Sequence[MicroBatch]) -> LossLandscape:
        joint = None if self._joint is None else replace(self._joint, places=in_order(pieces))
        shard = LossLandscape(
            self._weights,
            pieces,
            self._logits,
            self._losses,
            self._divisor,
            self._observer,
            self.size,
            self._shortcuts,
            joint,
            self._whole_passes,
        )
        shard.reached = self.reached
        return shard

    def _first_losses(self) -> list[Tensor]:
        """l_i of every micro-batch's first pass, or of every shard's where the mini-batch was dealt out."""
        losses = [p.first_losses for p in self._passes if p.first_losses is not None]
        if self._shards and not losses:
            return [of_shard for shard in self._shards for of_shard in shard._first_losses()]
        if len(losses) < len(self._passes):
            raise RuntimeError("There is no loss yet: no pass over the whole mini-batch has been made.")
        return losses

    def _samples(self, batches: Sequence[T]) -> Iterator[tuple[T, slice]]:
        """Each micro-batch and its place among the n samples."""
        yield from zip(batches, self._places, strict=True)

    def _sample_losses(self, batch: MicroBatch) -> Tensor:
        return self._losses(self._logits(batch), batch)

    def _report(self, norm: Tensor, cosine: Tensor | None, gaps: Tensor | None) -> None:
        """Tell the observer of one perturbed pass; gaps: a_i (l_i(w + eps) - l_i(w)) of this process's samples."""
        if self._observer is None:
            return
        processes = 1 if self._joint is None else self._joint.processes  # the samples of the others are like these
        self._observer.perturbed_pass(norm, cosine, None if gaps is None else gaps.sum() / self.size * processes)
        if gaps is not None:
            self._observer.sample_gaps(gaps, self.labels)

    def gradient(self, weighting: Tensor | None = None, at: WeightVector | None = None) -> WeightVector:
        """G(weighting, at).

        Args:
            weighting: a (n,), best on the host, where it can be read without waiting; None is all ones.
            at: eps; None is zero. A vector that nobody else holds lends its memory to the pass.
        """
        return self.gradients([weighting], at)[0]

    def gradients(self, weightings: Sequence[Tensor | None], at: WeightVector | None = None) -> list[WeightVector]:
        """G(a, at) for several weightings a (n,) of the same losses."""
        sums: list[Gradient] = [[None] * len(self._weights.parameters) for _ in weightings]
        gaps: list[Tensor] = []  # of the micro-batches where they are known
        at = self._weights.unless_infinite(at)
        observer = None if at is None else self._observer
        measured = observer is not None and observer.measures(self._weights.are_half)
        with self._weights.moved(at, measured) as stored:
            for passes, samples in self._samples(self._passes):
                of_batch = [None if a is None else a[samples] for a in weightings]
                gradients, gaps_here = passes.gradients(of_batch, perturbed=at is not None)
                gaps += [] if gaps_here is None else [gaps_here]
                sums = [reduce(_plus, new, total) for total, new in zip(sums, gradients)]
        vectors = [self._vector(gradient) for gradient in sums]
        if at is not None and observer is not None:
            all_gaps = torch.cat(gaps) if gaps and len(gaps) == len(self._passes) else None
            if stored is not None:
                observer.stored_offset(stored)
            norm = at.norm() if stored is None else stored.wanted
            self._report(norm, at.cosine(vectors[0]), all_gaps)
        return vectors

    def mean_loss_at(self, at: WeightVector) -> Tensor:
        """(1/n) sum_i l_i(w + at) by forward passes alone: a 0-dimensional tensor.

        Of the samples of all processes where they are one mini-batch, or where the weights are in shards, which no
        process can move on its own.

        Raises:
            RuntimeError: no pass over the whole mini-batch has been made: running statistics belong to that one.
        """
        if not all(passes.first_losses is not None for passes in self._passes):
            raise RuntimeError("There is no loss yet: no pass over the whole mini-batch has been made.")
        with self._weights.moved(at):
            mean = torch.cat([passes.losses() for passes in self._passes]).sum() / self.size
        if are_sharded(self._weights.parameters):
            ready_for_passes(self._weights.model)
        elif self._joint is None:
            return mean
        return sum_over_processes(mean)

    def _vector(self, gradient: Gradient) -> WeightVector:
        """The gradient, of all processes where the mini-batch is theirs, with zeros where none reaches a weight."""
        parameters = self._weights.parameters
        if self._joint is not None and not are_sharded(parameters):
            gradient = sum_gradients(gradient, parameters)
        self.reached[:] = [r or g is not None for r, g in zip(self.reached, gradient)]  # shards share the list
        tensors = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient)]
        # a hook of the user may have kept what it saw
        return WeightVector(tensors, self._divisor, fresh=not any(p._backward_hooks for p in parameters))

    def class_gradients(self, labels: Tensor, num_classes: int | None = None) -> ClassVectors:
        """g_c, the gradient of the mean loss of each class in the mini-batch.

        Args:
            labels: of the samples, (n,) or soft ones (n, C), on the host.
            num_classes: C: of the classifier's weights alone; None: of all weights.
        """
        members = ClassMembers(labels)
        if num_classes is not None:
            head = classifier_of(self._weights.model, num_classes)
            around = self._around(head)
            if around is not None:
                return around.class_gradients(head, members)
            tell_of_full_passes(head, self._shortcuts is None)
        ones = members.ones(self._weights.wide_dtype)
        means = list(ones * (self.size / ones.sum(1, keepdim=True)))
        if num_classes is None:
            return ListedVectors(members, self.gradients(means))
        classifier = self.classifier(num_classes)
        zeros = [torch.zeros_like(p) for p in self._weights.parameters]  # shared by all classes
        return ListedVectors(members, [_only(self.gradient(a), classifier, zeros) for a in means], classifier)

    def class_gradient(self, v: Sequence[float], at: ClassVectors, plain: float = 0.0) -> WeightVector:
        """plain G(1) + sum over the classes c of the mini-batch of G(v_c 1_c, eps_c).

        Args:
            v: of each class (m,).
            at: eps_c, made from `class_gradients` of this landscape, and used once.
        """
        if isinstance(at, HeadVectors | MovedHeads):
            return self._with_moved_classifier(at, torch.tensor(v, dtype=torch.float64), plain)
        ones = at.members.ones(self._weights.wide_dtype)
        perturbed: WeightVector = reduce(add, (self.gradient(v_c * o, at=e) for v_c, o, e in zip(v, ones, at.vectors)))
        return perturbed if plain == 0 else plain * self.gradient() + perturbed

    def _around(self, head: nn.Module) -> AroundClassifier | None:
        """What the gradients of all classes are made of, by one pass over the trunk for each micro-batch.

        The last micro-batch's pass stays open. None where no linear or cosine classifier comes last, for any process.
        """
        trained = sum(self._weights.of_module(head)) == sum(p.requires_grad for p in head.parameters())
        shortcuts = self._shortcuts
        if shortcuts is None or not trained or not may_be_opened(head) or shortcuts.may_open(head) is False:
            return None
        parts: list[AroundClassifier] = []
        for passes in self._passes:
            self._open = None  # one graph at a time
            with passes.repeating(Part(ALL_ROWS, [])):
                self._open = self._opened(passes, head)
            if self._open is None:
                break
            parts.append(self._open.around_classifier())
        possible = self._open is not None
        if self._joint is not None:
            possible = bool(sum_over_processes(self.weights.tensors[0].new_tensor(possible)) == self._joint.processes)
        shortcuts.opening_was_tried(head, possible)
        if not possible:
            self._open = None
            return None
        return parts[0] if self._joint is None and len(parts) == 1 else of_mini_batch(parts, self._places, self._joint)

    def _opened(self, passes: Passes, head: nn.Module) -> OpenPass | None:
        first = self._shortcuts is not None and self._shortcuts.may_open(head) is None
        batch = passes.batch
        opened_pass = opened(head, lambda: self._logits(batch), lambda z: self._losses(z, batch), first)
        if opened_pass is not None and passes.first_losses is None:
            passes.first_pass_gave(opened_pass.losses.detach(), perturbed=False)
        return opened_pass

    def _with_moved_classifier(self, at: HeadVectors | MovedHeads, v: Tensor, plain: float) -> WeightVector:
        """Each sample's loss with the classifier moved by its class's vector; the plain losses join the backward pass.

        The last micro-batch comes first, whose pass is still open; those of the others are made again.
        """
        total: Gradient = [None] * len(self._weights.parameters)
        gaps: list[Tensor] = []
        at_classes = self._with_own_heads if isinstance(at, HeadVectors) else self._with_moved_heads
        for passes, samples in reversed([*self._samples(self._passes)]):
            # the backward pass too: activation checkpointing repeats forwards in it
            with passes.repeating(Part(ALL_ROWS, [])) if gaps else nullcontext():
                opened_pass = self._opened(passes, at.head) if gaps else self._open
                self._open = None
                if opened_pass is None:
                    raise RuntimeError("The pass over the trunk that these vectors were made from is used up.")
                of_batch = at_classes(at, v, plain, opened_pass, passes.batch, samples)  # type: ignore[arg-type]
            total, gaps = _plus(total, of_batch[0]), [of_batch[1], *gaps]
        self._report(at.norms().norm(dim=1).mean(), None, torch.cat(gaps))
        return self._vector(total)

    def _with_own_heads(
        self, at: HeadVectors, v: Tensor, plain: float, opened_pass: OpenPass, batch: MicroBatch, samples: slice
    ) -> tuple[Gradient, Tensor]:
        """The gradient of a micro-batch, and its gaps (b,), for a linear classifier: all classes at once."""
        weights = at.members.of_samples(v)[samples]
        with opened_pass.drawing_again():
            perturbed = self._losses(opened_pass.logits_at(at, samples), batch)
        total = weights.to(perturbed) * perturbed + plain * opened_pass.losses
        gaps = (weights.to(perturbed) * (perturbed - opened_pass.losses)).detach()
        return self._taker.backward(total, [None])[0], gaps

    def _with_moved_heads(
        self, at: MovedHeads, v: Tensor, plain: float, opened_pass: OpenPass, batch: MicroBatch, samples: slice
    ) -> tuple[Gradient, Tensor]:
        """The same for a cosine classifier: one class after another through it, all together through the trunk."""

        def losses(logits: Tensor, rows: Tensor) -> Tensor:
            of_all = opened_pass.logits.detach().to(logits.dtype).index_copy(0, rows, logits)
            with opened_pass.drawing_again():
                return self._losses(of_all, batch)[rows]  # which knows whole batches only

        weights = (v[:, None] * at.members.ones(v.dtype)).to(opened_pass.losses)[:, samples]  # (m, b)
        scale = self.size * self._divisor
        of_classes = weights / self.size / self._divisor
        perturbed, signal, of_head = at.at_each_class(losses, of_classes, opened_pass.features, samples)
        gradient = self._taker.through(opened_pass.features, signal, plain * opened_pass.losses)
        place = {id(p): i for i, p in enumerate(self._weights.parameters)}
        for name, g in of_head.items():
            i = place[id(at.head.get_parameter(name))]
            through_trunk, g = gradient[i], g.to(self._weights.parameters[i].dtype)
            gradient[i] = g if through_trunk is None else through_trunk + g
        return gradient, scale * perturbed - weights.sum(0) * opened_pass.losses.detach()


def _only(vector: WeightVector, chosen: Sequence[bool], zeros: Sequence[Tensor]) -> WeightVector:
    return WeightVector([t if keep else z for t, keep, z in zip(vector.tensors, chosen, zeros)], vector.scale)


def _plus(total: Gradient, new: Gradient) -> Gradient:
    return [b if a is None else a if b is None else a + b for a, b in zip(total, new, strict=True)]
