"""What does not work with perturbed passes (yet), refused by name before any time is spent, with the way out."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sized
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.losses import LDAM, FeatureLoss, Loss
from hf_ltsam.methods import Method
from hf_ltsam.models.classifier import classifier_of, frozen_head
from hf_ltsam.models.cosine_classifier import CosineClassifier
from hf_ltsam.training.config import LTSamConfig

# TrainingArguments field -> why, and what to do instead. A field is refused where its value is true.
_FIELDS = {
    "deepspeed": "DeepSpeed's backward pass takes optimizer steps of its own. Use `accelerate launch` with plain "
    "multi-GPU (DDP), or a larger gradient_accumulation_steps.",
    "label_smoothing_factor": "label smoothing would replace the training loss. Set it to 0; to smooth, use "
    "loss='label_aware_smoothing' (loss_args with head = tail smooth all classes alike).",
    "auto_find_batch_size": "a batch size found by running out of memory changes what rho means. Set "
    "per_device_train_batch_size, and gradient_accumulation_steps to make up for it.",
    "neftune_noise_alpha": "NEFTune's noise differs between the passes of a step. Leave it out; SAM perturbs already.",
    "use_liger_kernel": "Liger's kernels fuse the loss into the model, but every method needs the loss per sample.",
}

# part of the name of an optimizer -> why it does not go with perturbed passes
OPTIMIZERS = {
    "layerwise": "it steps inside the backward pass, so a first pass would already be an update",
    "lomo": "it steps inside the backward pass, so a first pass would already be an update",
    "schedule_free": "it keeps its weights in two places, and the perturbation would reach only one",
}


def check_types(args: Any, method: Any) -> None:
    """Refuse what is not an `LTSamConfig` or not a method.

    Raises:
        TypeError: naming the argument and the way out.
    """
    if not isinstance(args, LTSamConfig):
        raise TypeError(
            f"LTSamTrainer(args=...) must be an LTSamConfig, got {type(args).__name__}. It takes the same arguments: "
            "replace the class name."
        )
    if method is not None and not isinstance(method, str | Method):
        raise TypeError(
            f"LTSamTrainer(method=...) must be a name of hf_ltsam.methods.METHODS or a Method, got {type(method).__name__}."
        )


def check_trial(trial: Any) -> None:
    """Refuse a training as a trial of `hyperparameter_search`, which changes settings behind objects made from them.

    Raises:
        ValueError: there is a trial.
    """
    if trial is not None:
        raise ValueError(
            "hyperparameter_search does not go with LTSamTrainer: method, loss and data are made from the settings before a "
            "trial changes them. Start one run per setting, for example `ltsam train --config RECIPE --method_args "
            "'{\"rho\": 0.1}' --output_dir RUN`, and compare their metrics.json."
        )


def check_arguments(args: TrainingArguments) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: naming the setting, the reason and the way out.
    """
    for name, reason in _FIELDS.items():
        if getattr(args, name):
            raise ValueError(f"{name}={getattr(args, name)!r} does not go with LTSamTrainer: {reason}")
    for fragment, reason in OPTIMIZERS.items():
        if fragment in args.optim.value:
            raise ValueError(
                f"optim={args.optim.value!r} does not go with LTSamTrainer: {reason}. Use sgd, adamw_torch, or any "
                "optimizer with an ordinary step()."
            )
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs in one process would run under DataParallel, which splits the batch behind the method's "
            "back. Start with `accelerate launch --num_processes N`, or show one GPU: CUDA_VISIBLE_DEVICES=0."
        )
    # transformers' older name for activation_checkpointing_kwargs, which newer versions keep in step
    if (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise ValueError(
            "activation_checkpointing_kwargs={'use_reentrant': True} works only with .backward(); set it to False."
        )
    if args.label_names is not None and len(args.label_names) != 1:
        raise ValueError(f"label_names={args.label_names}: there must be one label per sample, so exactly one name.")


def check_launcher(trainer: Trainer) -> None:
    """Refuse what only the launcher's environment says, and what its processes do not go together with.

    Raises:
        ValueError: naming the setting, the reason and the way out.
    """
    if trainer.is_deepspeed_enabled:
        raise ValueError(
            f"The accelerate config switches deepspeed on. It does not go with LTSamTrainer: {_FIELDS['deepspeed']}"
        )
    if trainer.is_fsdp_enabled and trainer.args.channels_last:
        raise ValueError("channels_last=True does not go with sharded weights (FSDP): leave it out, or train with DDP.")
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ValueError(
            "fsdp in its first version flattens the weights of several layers into one, which the methods cannot tell "
            "apart. Set fsdp_version: 2 in the accelerate config, or 'version': 2 in fsdp_config."
        )
    if trainer.args.fsdp and not trainer.is_fsdp_enabled:
        raise ValueError("fsdp is set, but accelerate shards weights on several accelerators only: leave it out here.")
    if trainer.is_fsdp_enabled and trainer.args.swa_start is not None:
        raise ValueError("swa_start does not go with fsdp: its mean is not kept in shards. Leave one of them out.")
    split = trainer.accelerator.parallelism_config
    if split is not None and (split.cp_enabled or split.sp_enabled or split.tp_enabled):
        raise ValueError(
            "parallelism_config splits samples or layers over processes (cp_size, sp_size or tp_size above 1), which the "
            "passes of a method do not know. Leave it out: use DDP, or fsdp with version 2."
        )
    if getattr(trainer.model, "is_distributed_loading_by_transformers", False):
        raise ValueError(
            "The model was split over processes when it was loaded (distributed_config=...), which the passes of a method "
            "do not know. Load it whole: use DDP, or fsdp with version 2."
        )
    size, processes = trainer.args.ascent_size, trainer.accelerator.num_processes
    together = trainer.args.ascent_scope == "step" or trainer.is_fsdp_enabled
    if size is not None and together and size % processes:
        raise ValueError(
            f"ascent_size={size} cannot be shared by {processes} processes whose samples are perturbed together: make it a "
            f"multiple of {processes}."
        )
    if trainer.args.torch_compile and trainer.accelerator.num_processes > 1:
        raise ValueError(
            "torch_compile=True does not go with several processes yet: their passes run on the bare module. Set it to "
            "False, or use one process."
        )


def check_schedule(schedule: Any, args: LTSamConfig) -> None:
    """Refuse a schedule object, passed or made by a subclass, beside a constant learning rate for the end.

    Raises:
        ValueError: `swa_learning_rate` would change that schedule.
    """
    if schedule is not None and args.swa_learning_rate is not None:
        raise ValueError(
            f"swa_learning_rate={args.swa_learning_rate} does not go with a schedule of your own (in `optimizers`, or made "
            "by create_scheduler): leave one out."
        )


def check_eval_labels(labels: Tensor | None, num_classes: int, argument: str = "eval_dataset") -> None:
    """Refuse evaluation labels outside the class range before training, not after it.

    Args:
        argument: the data set's name in the message.

    Raises:
        ValueError: naming the label.
    """
    if labels is None or not len(labels) or 0 <= labels.min() <= labels.max() < num_classes:
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
            f"number of training images are the tail). {statistics.describe_counts()} {statistics.propose_tail_threshold()}"
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
    """Refuse a loss of cosine logits (LDAM) on a model without a cosine head of the same scale.

    Raises:
        ValueError: there is no `CosineClassifier`, or its scale is not the loss's `s`.
    """
    if not isinstance(loss, LDAM):
        return
    name = type(loss).__name__
    heads = [m for m in model.modules() if isinstance(m, CosineClassifier)]
    if not heads:
        raise ValueError(
            f"{name}'s margins are measured between cosines, and {type(model).__name__} has no cosine head: on unbounded "
            "logits they mean nothing. Use hf_ltsam.models.CosineClassifier as the model's last layer "
            '(CifarResNetConfig(head="cosine")), or a loss for ordinary logits such as logit_adjustment.'
        )
    scale = float(heads[-1].scale)
    if abs(scale - loss.s) > 1e-6 * loss.s:
        raise ValueError(
            f"{name}(s={loss.s:g}) expects logits of {loss.s:g} times the cosine, but the model's cosine head has scale "
            f"{scale:g}. Make them equal: loss_args={{'s': {scale:g}}}, or build the head with scale {loss.s:g}."
        )


def check_num_labels(labels: Tensor, num_logits: int | None) -> None:
    """Refuse a model with more outputs than the training set has classes, as one that keeps its pretrained head.

    Args:
        labels: of the training set (N,), N > 0.
        num_logits: of the model; None: it does not say.

    Raises:
        ValueError: naming both numbers and the way out.
    """
    needed = int(labels.max()) + 1
    if num_logits is not None and needed < num_logits:
        missing = f"class {needed} has" if needed == num_logits - 1 else f"classes {needed} to {num_logits - 1} have"
        raise ValueError(
            f"The model has {num_logits} outputs, but the labels of the training set end at {needed - 1}: {missing} no "
            f"training image. Build the model with num_labels={needed} (and ignore_mismatched_sizes=True, if it is "
            "pretrained), or look for the missing classes."
        )


def check_not_empty(dataset: Any) -> None:
    """Refuse a training set without samples.

    Raises:
        ValueError: it has the length 0.
    """
    if isinstance(dataset, Sized) and len(dataset) == 0:
        raise ValueError("The training set is empty: it has no sample. Look at what selected or filtered it.")


def check_stream(dataset: Any, args: LTSamConfig) -> None:
    """Refuse `on_bad_image="skip"` for a stream.

    Raises:
        ValueError: the training set has no index by which its images could be counted.
    """
    if args.on_bad_image == "skip" and isinstance(dataset, IterableDataset):
        raise ValueError(
            "on_bad_image='skip' is for data sets with an index, and a stream has none: leave it out, and make the "
            "stream with on_the_fly_stream(..., on_bad_image='skip')."
        )


def check_batches(dataset: Any, args: TrainingArguments, model: nn.Module) -> str | None:
    """A warning of a last batch of a training set that batch norm cannot normalise, or None; also for a stream.

    Several processes fill their last batches up.

    Raises:
        ValueError: `dataloader_drop_last` drops the only batch.
    """
    if not isinstance(dataset, Sized) or isinstance(dataset, IterableDataset):
        return None
    num_samples, batch_size, processes = len(dataset), args.train_batch_size, args.world_size
    drop_last = args.dataloader_drop_last
    if drop_last and num_samples < batch_size * processes:
        raise ValueError(
            f"dataloader_drop_last=True leaves nothing of {num_samples} training samples in batches of "
            f"{batch_size * processes}: set it to False, or per_device_train_batch_size to at most "
            f"{num_samples // processes}."
        )
    last = num_samples % batch_size
    if processes > 1 or drop_last or last != 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return None
    return (
        f"{num_samples} samples in batches of {batch_size} leave a last batch of one. Batch norm has nothing to normalise "
        "there, or fails after all other steps of the epoch: choose another per_device_train_batch_size, or set "
        "dataloader_drop_last=True."
    )
