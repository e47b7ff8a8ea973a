"""Model, data, method and loss that do not go together, refused by name before any time is spent, with the way out."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence, Sized
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.class_names import some
from hf_ltsam.data.soft_labels import are_soft, check_several, check_shares
from hf_ltsam.losses import LDAM, LOSSES, FeatureLoss, GaussianClouded, Loss
from hf_ltsam.losses.features import check_features
from hf_ltsam.losses.protocol import takes_several_labels
from hf_ltsam.methods import METHODS, Method
from hf_ltsam.models.classifier import classifier_of, frozen_head, output_layer
from hf_ltsam.models.cosine_classifier import CosineClassifier
from hf_ltsam.models.spectral_norm import check_checkpointing
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.refusals.settings import hides_modules

SINGLE_LABEL, _SEVERAL = "single_label_classification", "multi_label_classification"

# problem_type of a configuration of transformers -> the loss of it by name; empty: there is none here
_LOSS_OF = {SINGLE_LABEL: "cross_entropy", _SEVERAL: "binary_cross_entropy", "regression": ""}


def check_problem(
    model: nn.Module,
    args: LTSamConfig,
    method: Method,
    loss: Loss | FeatureLoss,
    statistics: ClassStatistics | None,
    label_name: str,
    labels: Tensor | None,
) -> list[str]:
    """Whether method and loss go with the model, the classes and the labels of the training set, where those are known.

    Returns:
        Warnings.

    Raises:
        ValueError: naming what does not go with what, and the way out.
    """
    check_forward(model, label_name)
    check_problem_type(loss, model)
    check_head(loss, model)
    check_embeddings(model, args)
    check_several_labels(loss, args)
    check_checkpointing(model, bool(args.gradient_checkpointing))
    if statistics is None:
        return []
    check_labels(loss, labels, statistics)
    warnings = [check_split(method, statistics), check_frozen_head(model, statistics.num_classes)]
    check_classifier(method, model, statistics)
    check_features(loss, model, statistics.num_classes, hides_modules(args))
    return [warning for warning in warnings if warning is not None]


def check_outputs(loss: Any, model: nn.Module, num_logits: int | None) -> None:
    """Refuse a model of another problem than classes, before its labels are read as classes.

    Args:
        num_logits: of the model; None: it does not say.

    Raises:
        ValueError: naming what the model states, and the ways out.
    """
    check_problem_type(loss, model)
    if num_logits == 1:
        raise ValueError(
            "The model has one output (num_labels=1). For regression take loss='model', with a method that asks for no "
            "classes; for classes build it with num_labels=C, one output for each: two for yes and no."
        )


def check_own_loss(method: Method, model: nn.Module, statistics: ClassStatistics | None = None) -> None:
    """Refuse a method that asks for more than a model's own loss says, and statistics that it has no use for.

    Raises:
        ValueError: it weights or perturbs classes, or the output layer where that cannot be told; or there are statistics.
    """
    if statistics is not None:
        raise ValueError(
            "class_statistics do not go with loss='model', which knows no classes: leave them out, or take a loss of each "
            "sample such as loss='cross_entropy'."
        )
    if method.needs_classes:
        free = sorted(name for name, kind in METHODS.items() if not kind.needs_classes)
        raise ValueError(
            f"{type(method).__name__} weights samples by their classes, and the model's own loss is one number for all of a "
            f"micro-batch. Take a method that asks for no classes ({', '.join(free)}), or, with LTSamTrainer and one class "
            "per sample, a loss of each sample such as loss='cross_entropy'."
        )
    if method.needs_classifier:
        output_layer(model)


def check_problem_type(loss: Loss | FeatureLoss, model: nn.Module) -> None:
    """Refuse a loss of this library for a model whose configuration states the problem of another one.

    transformers' models choose the loss inside their forward by it, and pipelines how logits become scores.

    Raises:
        ValueError: naming both, and the ways out.
    """
    stated = getattr(getattr(model, "config", None), "problem_type", None)
    fitting = _SEVERAL if takes_several_labels(loss) else SINGLE_LABEL
    name = next((name for name, kind in LOSSES.items() if kind is type(loss)), None)
    if name is None or stated not in _LOSS_OF or stated == fitting:
        return
    ours = _LOSS_OF[stated] and f"loss={_LOSS_OF[stated]!r} is the loss of that problem; "
    raise ValueError(
        f"The model's configuration states problem_type={stated!r}, and loss={name!r} is one of {fitting!r}, which would "
        f"train in its place. {ours}loss='model' is the model's own, for methods that ask for no classes; "
        f"model.config.problem_type = {fitting!r} trains with loss={name!r}."
    )


def check_several_labels(loss: Loss | FeatureLoss, args: LTSamConfig) -> None:
    """Refuse settings of one class for each sample beside a loss of several labels.

    Raises:
        ValueError: naming the setting and the way out.
    """
    if not takes_several_labels(loss):
        return
    if args.loss_start:
        raise ValueError(
            f"loss_start={args.loss_start} trains with cross-entropy first, which takes one class of each sample, and "
            f"{type(loss).__name__} takes several: leave it out."
        )
    if args.label_smoothing_factor:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} spreads one class of each sample over all, and "
            f"{type(loss).__name__} takes several: leave it out, or smooth the labels (n, C) of the data set and pass "
            "class_statistics of those that are not smoothed."
        )
    if args.reweighting != "none":
        raise ValueError(
            f"reweighting={args.reweighting!r} weights samples by their one class, and {type(loss).__name__} takes several: "
            f"set loss_args={{'class_weighting': {args.reweighting!r}}} in its place."
        )


def check_labels(loss: Loss | FeatureLoss, labels: Tensor | None, statistics: ClassStatistics) -> None:
    """Refuse training labels of another kind than the loss takes. On an accelerator no step looks at them.

    Args:
        labels: of the training set, (N,) or (N, C); None: unknown.

    Raises:
        ValueError: class indices where a loss takes several labels of a sample, or several where it takes shares.
    """
    if takes_several_labels(loss):
        if labels is not None:
            check_several(labels, statistics.num_classes)
    elif labels is not None and are_soft(labels):
        check_shares(labels, statistics.num_classes)
    elif labels is None and statistics.samples is not None:
        raise ValueError(
            "By class_statistics a sample may have several labels, or none, and the loss takes one class of each, or shares "
            "that add up to 1: take loss='binary_cross_entropy'."
        )


def check_split(method: Method, statistics: ClassStatistics) -> str | None:
    """Refuse a method that needs head and tail where there is no split, and look whether both have classes.

    Returns:
        A warning where the split leaves head or tail without a class, else None.

    Raises:
        ValueError: the method needs a split and the statistics have no `tail_threshold`.
    """
    if not method.needs_split:
        return None
    if statistics.tail_threshold is None:
        raise ValueError(
            f"{type(method).__name__} splits head from tail: set tail_threshold in LTSamConfig (classes with at most this "
            f"number of training samples are the tail). {statistics.describe_counts()} {statistics.propose_tail_threshold()}"
        )
    empty = "tail" if not statistics.tail_classes else "head" if not statistics.head_classes else None
    if empty is None:
        return None
    return (
        f"{type(method).__name__} splits head from tail at tail_threshold={statistics.tail_threshold}, which leaves no "
        f"class in the {empty}. {statistics.describe_counts()} {statistics.propose_tail_threshold()}"
    )


def check_classifier(method: Method, model: nn.Module, statistics: ClassStatistics) -> None:
    """Refuse a method that perturbs the classifier alone where the classifier cannot be told from the rest.

    Raises:
        ValueError: no layer could be the classifier, or several could.
    """
    if method.needs_classifier:
        classifier_of(model, statistics.num_classes)


def check_frozen_head(model: nn.Module, num_classes: int) -> str | None:
    """A warning of a classifier that an adapter of peft leaves frozen, or None."""
    name = frozen_head(model, num_classes)
    return name and (
        f"The classifier {name!r} stays as it is: the adapter freezes all that it does not name. If it is new, its "
        f"{num_classes} classes are at random: modules_to_save=[{name!r}] in the adapter's configuration trains it."
    )


def check_forward(model: nn.Module, label_name: str) -> None:
    """Refuse a model whose forward cannot do without the labels.

    Raises:
        ValueError: naming the way out.
    """
    labels = inspect.signature(model.forward).parameters.get(label_name)
    if labels is not None and labels.default is labels.empty and labels.kind is not labels.VAR_KEYWORD:
        raise ValueError(
            f"{type(model).__name__}.forward asks for {label_name!r}, and is called without: the loss is made of logits and "
            f"labels outside of the model. Give it a default ({label_name}=None) and return plain logits; margins belong to "
            "the loss (loss='logit_adjustment', 'ldam' or your own function)."
        )


def check_embeddings(model: nn.Module, args: LTSamConfig) -> None:
    """Refuse NEFTune, noise on the embeddings of tokens or patches, for a model without any.

    Raises:
        ValueError: naming the setting and the model.
    """
    if args.neftune_noise_alpha is None:
        return
    try:
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        embeddings = None
    if embeddings is None:
        raise ValueError(
            f"neftune_noise_alpha={args.neftune_noise_alpha} puts noise on the input embeddings, and {type(model).__name__} "
            "has none (get_input_embeddings): leave it out."
        )


def check_columns(model: nn.Module, names: Collection[str]) -> None:
    """Refuse a batch that does not have what the model's forward asks for, or has columns that it does not take.

    Raises:
        ValueError: naming the columns, what forward takes, and the way out.
    """
    parameters = inspect.signature(model.forward).parameters
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in several and n not in names]
    if missing:
        raise ValueError(
            f"{type(model).__name__}.forward asks for {', '.join(map(repr, missing))}, which the batch does not have: "
            f"beside the labels it has {', '.join(map(repr, sorted(names))) or 'nothing'}. Rename the columns of the data "
            "set, or name them in a data_collator."
        )
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    foreign = sorted(set(names) - set(parameters))
    if foreign:
        raise ValueError(
            f"The batch has {', '.join(map(repr, foreign))}, which {type(model).__name__}.forward does not take (it takes "
            f"{', '.join(parameters)}). Rename the columns, or set remove_unused_columns=True to drop what it does not take."
        )


def check_head(loss: Loss | FeatureLoss, model: nn.Module) -> None:
    """Refuse a loss of cosine logits (LDAM, GCL) on a model without a cosine head of the same scale.

    Raises:
        ValueError: there is no `CosineClassifier`, or its scale is not the loss's `s`.
    """
    if not isinstance(loss, LDAM | GaussianClouded):
        return
    name = type(loss).__name__
    heads = [m for m in model.modules() if isinstance(m, CosineClassifier)]
    if not heads:
        raise ValueError(
            f"{name}'s margins are measured between cosines, and {type(model).__name__} has no cosine head: on unbounded "
            'logits they mean nothing. Give it a cosine head (CifarResNetConfig(head="cosine"); a CosineClassifier as '
            "the last layer of a model of your own), or take a loss for ordinary logits such as logit_adjustment."
        )
    scale = float(heads[-1].scale)
    if abs(scale - loss.s) > 1e-6 * loss.s:
        raise ValueError(
            f"{name}(s={loss.s:g}) expects logits of {loss.s:g} times the cosine, but the model's cosine head has scale "
            f"{scale:g}. Make them equal: loss_args={{'s': {scale:g}}}, or a head with "
            f"CifarResNetConfig(cosine_scale={loss.s:g})."
        )


def check_num_labels(labels: Tensor, num_logits: int | None, names: Sequence[str] | None = None) -> None:
    """Refuse a model with more outputs than the training set has classes, as of a pretrained head that was kept.

    Args:
        labels: of the training set (N,), N > 0.
        num_logits: of the model; None: it does not say.
        names: of the classes; None: they are called by number.

    Raises:
        ValueError: naming both numbers and the way out.
    """
    needed = labels.shape[1] if are_soft(labels) else int(labels.max()) + 1
    if num_logits is not None and needed < num_logits:
        missing = f"class {needed} has" if needed == num_logits - 1 else f"classes {needed} to {num_logits - 1} have"
        if names is not None and len(names) == num_logits:
            missing = f"{some(names[needed:])} {'has' if needed == num_logits - 1 else 'have'}"
        raise ValueError(
            f"The model has {num_logits} outputs, but the labels of the training set end at {needed - 1}: {missing} no "
            f"training sample. Build the model with num_labels={needed} (and ignore_mismatched_sizes=True, if it is "
            "pretrained), or look for the missing classes."
        )
    if names is None or are_soft(labels) or len(names) != needed:
        return
    present = set(labels.unique().tolist())
    empty = [name for c, name in enumerate(names) if c not in present]
    if empty:
        raise ValueError(
            f"{some(empty)} ({len(empty)} of {needed} classes) have no training sample. Remove such classes and renumber "
            "the labels, or pass class_statistics with counts of at least 1 if they come from another source."
        )


def check_eval_labels(labels: Tensor | None, num_classes: int, argument: str = "eval_dataset") -> None:
    """Refuse evaluation labels outside the class range before training, not after it.

    Args:
        argument: the data set's name in the message.

    Raises:
        ValueError: naming the label.
    """
    if labels is None or not len(labels) or are_soft(labels) or 0 <= labels.min() <= labels.max() < num_classes:
        return
    if int(labels.max()) < 0:
        raise ValueError(
            f"{argument} is not labelled (label {int(labels[0])}): nothing can be measured on it. predict() takes it."
        )
    wrong = labels[(labels < 0) | (labels >= num_classes)][0]
    raise ValueError(
        f"{argument}: label {wrong} is outside the class range 0 to {num_classes - 1} of the training set. Map its "
        "labels to the training classes, or leave those samples out."
    )


def check_not_empty(dataset: Any) -> None:
    """Refuse a training set without samples.

    Raises:
        ValueError: it has the length 0.
    """
    if isinstance(dataset, Sized) and len(dataset) == 0:
        raise ValueError("The training set is empty: it has no sample. Look at what selected or filtered it.")


def check_tied_weights(model: nn.Module | None) -> None:
    """Refuse a model whose weights transformers would refuse to save, before it is trained.

    Raises:
        ValueError: naming the weights.
    """
    if isinstance(model, PreTrainedModel):
        try:
            remove_tied_weights_from_state_dict(dict(model.state_dict()), model)
        except RuntimeError as error:
            name = type(model).__name__
            raise ValueError(
                f"{name} could not be saved: {str(error).splitlines()[0]} Name them in {name}._tied_weights_keys, as "
                "transformers has it, or untie them."
            ) from error
