"""Settings that do not work with perturbed passes (yet), refused by name before any time is spent, with the way out."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import fields
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream
from hf_ltsam.data.sampling.class_sampling import UNIFORM, exponent
from hf_ltsam.hyperparameters import UNIT_INTERVAL, require
from hf_ltsam.landscape.graphs import refusal
from hf_ltsam.losses import LOSSES, MODEL, BalancedSoftmax, LogitAdjustment, ModelLoss, VectorScaling
from hf_ltsam.methods import METHODS, Method
from hf_ltsam.training.config import LTSamConfig

P = ParamSpec("P")

# TrainingArguments field -> why, and what to do instead. A field is refused where its value is true.
_FIELDS = {
    "deepspeed": "DeepSpeed's backward pass takes optimizer steps of its own. Use `accelerate launch` with plain "
    "multi-GPU (DDP), or a larger gradient_accumulation_steps.",
    "use_liger_kernel": "Liger's kernels fuse the loss into the model, but every method needs the loss per sample.",
}

# of these, what only losses of samples do not go with: a model's own loss takes it in, in every pass alike
_OF_SAMPLE_LOSSES = ("use_liger_kernel",)

_PER_SAMPLE = "leave it out, or take a loss of each sample such as loss='cross_entropy'."

# setting that has no meaning for a model's own loss -> its value where nobody has set it, why and what to do instead
_OF_CLASSES = {
    "loss_start": (0.0, f"before it, cross-entropy would be minimised; {_PER_SAMPLE}"),
    "reweighting": (
        "none",
        f"it weights the losses of samples by class, and there is one number for all; {_PER_SAMPLE}",
    ),
    "tail_threshold": (None, f"no classes are known, which it would split; {_PER_SAMPLE}"),
    "sampling": (UNIFORM, f"no classes are known, whose shares it would change; {_PER_SAMPLE}"),
    **dict.fromkeys(
        ("mixup_alpha", "cutmix_alpha"), (0.0, f"no classes are known, whose labels it would mix; {_PER_SAMPLE}")
    ),
    "ascent_size": (
        None,
        "there is one number for a micro-batch, so no part of it can be perturbed alone. Set per_device_train_batch_size to "
        "that number, and gradient_accumulation_steps to make up for it.",
    ),
}

# part of the name of an optimizer -> why it does not go with perturbed passes
OPTIMIZERS = {
    "layerwise": "it steps inside the backward pass, to hold one gradient at a time, and a method's vector is whole before "
    "any step. The same name without _layerwise makes the same update",
    "lomo": "it steps inside the backward pass, so a first pass would already be an update",
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
    check_method(method, "LTSamTrainer")


def overruled_settings(args: LTSamConfig, method: Method, loss: Any) -> str | None:
    """A warning of a method or loss that was stated in the settings, where the trainer was given another one; or None.

    The defaults count as not stated.

    Args:
        method, loss: those that train.
    """
    defaults = {field.name: field.default for field in fields(LTSamConfig)}
    kinds = {"method": (METHODS, method), "loss": ({**LOSSES, MODEL: ModelLoss}, loss)}
    overruled = [
        f"{kind}={getattr(args, kind)!r} of LTSamConfig is not used: LTSamTrainer({kind}=...) was given another one, and "
        f"trains with {getattr(used, '__name__', type(used).__name__)}."
        for kind, (registry, used) in kinds.items()
        if getattr(args, kind) != defaults[kind] and type(used) is not registry.get(getattr(args, kind))
    ]
    return f"{' '.join(overruled)} Leave one of the two out." if overruled else None


def doubly_balanced(args: LTSamConfig, dataset: Any, loss: Any) -> str | None:
    """A warning of a sampling and a loss that both make up for the frequencies of the classes, or None.

    Draws of class c in proportion to n_c^q are balanced where q log pi_c is added to the logits; the loss adds tau log pi_c.

    Args:
        dataset: the training set; a stream may be sampled by class already.
    """
    sampling = dataset.sampling if isinstance(dataset, ClassSampledStream) else args.sampling
    fixed = isinstance(loss, BalancedSoftmax)
    tau = 1.0 if fixed else loss.tau if isinstance(loss, LogitAdjustment | VectorScaling) else 0.0
    q = exponent(sampling)
    if sampling == UNIFORM or tau <= q:
        return None
    less = "" if fixed else f", or set tau={q:g} beside this sampling"
    name = next((name for name, kind in LOSSES.items() if kind is type(loss)), type(loss).__name__)
    return (
        f"sampling={sampling!r} and loss={name!r} with tau {tau:g} both make up for the frequencies of the classes, and "
        f"together favour the rare ones twice. Leave one of them out{less}."
    )


def check_method(method: Any, trainer: str) -> None:
    """Refuse what is not a method; None is in order.

    Args:
        trainer: the name of the class that is given it.

    Raises:
        TypeError: naming the argument and the way out.
    """
    if isinstance(method, type) and issubclass(method, Method):
        raise TypeError(f"{trainer}(method=...): {method.__name__} is a class: pass an object, {method.__name__}(...).")
    if method is not None and not isinstance(method, str | Method):
        raise TypeError(
            f"{trainer}(method=...) must be a name of hf_ltsam.methods.METHODS or a Method, got {type(method).__name__}."
        )


def check_arguments(args: TrainingArguments, own_loss: bool = False) -> None:
    """Refuse settings that cannot work.

    Args:
        own_loss: whether the loss is the model's own.

    Raises:
        ValueError: naming the setting, the reason and the way out.
    """
    for name, reason in _FIELDS.items():
        if getattr(args, name) and not (own_loss and name in _OF_SAMPLE_LOSSES):
            raise ValueError(f"{name}={getattr(args, name)!r} does not go with LTSamTrainer: {reason}")
    for name, (unset, reason) in (_OF_CLASSES if own_loss else {}).items():
        if getattr(args, name, unset) != unset:
            raise ValueError(f"{name}={getattr(args, name)!r} does not go with loss='model': {reason}")
    _check_graphs(args, own_loss)
    require(UNIT_INTERVAL, "LTSamConfig", label_smoothing_factor=args.label_smoothing_factor)
    if args.auto_find_batch_size and getattr(args, "ascent_size", None) is None:
        raise ValueError(
            "auto_find_batch_size=True does not go with LTSamTrainer alone: a batch size found by running out of memory "
            "changes what rho means. Set ascent_size as well, the number of samples that are perturbed together (not with "
            "loss='model'); or per_device_train_batch_size, and gradient_accumulation_steps to make up for it."
        )
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
    if (args.gradient_checkpointing_kwargs or {}).get("use_reentrant") and not own_loss:
        raise ValueError(
            "activation_checkpointing_kwargs={'use_reentrant': True} works only with .backward(); set it to False."
        )
    if args.label_names is not None and not own_loss and len(args.label_names) != 1:
        raise ValueError(f"label_names={args.label_names}: there must be one label per sample, so exactly one name.")


def hides_modules(args: TrainingArguments) -> str | None:
    """The setting under which the modules of a model are not called one by one, for hooks to see; None: there is none."""
    return next((name for name in ("torch_compile", "cuda_graphs") if getattr(args, name, False)), None)


def _check_graphs(args: TrainingArguments, own_loss: bool) -> None:
    if not getattr(args, "cuda_graphs", False):
        return
    if args.device.type != "cuda":
        raise refusal(f"it needs a CUDA GPU, and the training is on {args.device.type}")
    if own_loss:
        raise refusal("with loss='model' the whole loss is one pass, which is not captured")
    if args.torch_compile:
        raise refusal("torch_compile=True makes graphs of its own", "Leave one of them out.")
    if args.gradient_checkpointing or getattr(args, "activation_checkpointing", False):
        raise refusal(
            "activation_checkpointing=True reads random states, which cannot be captured", "Leave one of them out."
        )
    if args.world_size > 1:
        raise refusal(f"{args.world_size} processes were launched, with which it has not been tried")


def without_settings(init: Callable[P, None]) -> Callable[P, None]:
    """The `__init__` of a trainer, which says of a setting where it belongs; any other unknown name is Python's to refuse.

    Raises:
        TypeError: naming the setting.
    """
    settings = {field.name for field in fields(LTSamConfig) if field.init} - set(signature(init).parameters)

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        for name in kwargs:
            if name in settings:
                raise TypeError(
                    f"{type(args[0]).__name__}({name}=...): {name} is a setting. Pass args=LTSamConfig({name}=...)."
                )
        init(*args, **kwargs)

    return checked


def check_launcher(trainer: Any) -> None:
    """Refuse what only the launcher's environment says, and what its processes do not go together with.

    Raises:
        ValueError: naming the setting, the reason and the way out.
    """
    if trainer.is_deepspeed_enabled:
        raise ValueError(
            f"The accelerate config switches deepspeed on. It does not go with LTSamTrainer: {_FIELDS['deepspeed']}"
        )
    if trainer.is_fsdp_enabled and getattr(trainer.args, "channels_last", False):
        raise ValueError("channels_last=True does not go with sharded weights (FSDP): leave it out, or train with DDP.")
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ValueError(
            "fsdp in its first version flattens the weights of several layers into one, which the methods cannot tell "
            "apart. Set fsdp_version: 2 in the accelerate config, or 'version': 2 in fsdp_config."
        )
    if trainer.args.fsdp and not trainer.is_fsdp_enabled:
        raise ValueError("fsdp is set, but accelerate shards weights on several accelerators only: leave it out here.")
    if trainer.is_fsdp_enabled and getattr(trainer.args, "swa_start", None) is not None:
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
    size, processes = trainer.step_settings.ascent_size, trainer.accelerator.num_processes
    together = trainer.step_settings.ascent_scope == "step" or trainer.is_fsdp_enabled
    if size is not None and together and size % processes:
        raise ValueError(
            f"ascent_size={size} cannot be shared by {processes} processes whose samples are perturbed together: make it a "
            f"multiple of {processes}."
        )
    steps = trainer.args.gradient_accumulation_steps if trainer.step_settings.ascent_scope == "step" else 1
    samples = trainer.args.per_device_train_batch_size * steps * (processes if together else 1)
    if size is not None and size > samples:
        raise ValueError(
            f"ascent_size={size} parts the samples that are perturbed together, and those are {samples}: leave it out or "
            "make it smaller, or per_device_train_batch_size larger; ascent_scope='step' takes all of an optimizer step."
        )
    if trainer.args.torch_compile and trainer.is_fsdp_enabled:
        raise ValueError(
            "torch_compile=True does not go with sharded weights (FSDP) yet: leave it out, or train with DDP."
        )


def check_found_batch_size(found: int, args: LTSamConfig) -> None:
    """Refuse a batch size of `auto_find_batch_size` that holds no group of `ascent_size` samples.

    Raises:
        ValueError: rho would mean something else from here on.
    """
    samples = found * (args.gradient_accumulation_steps if args.ascent_scope == "step" else 1)
    if args.auto_find_batch_size and args.ascent_size is not None and samples < args.ascent_size:
        raise ValueError(
            f"auto_find_batch_size=True went down to {found} samples, which are fewer than ascent_size={args.ascent_size} "
            "perturbs together: set a smaller ascent_size, with a rho that is right for it; or ascent_scope='step', which "
            "takes them from gradient_accumulation_steps batches."
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


def check_batches(dataset: Any, args: LTSamConfig, model: nn.Module, batch_size: int) -> str | None:
    """A warning of a last batch of a training set that batch norm cannot normalise, or None; also for a stream.

    Several processes fill their last batches up.

    Args:
        batch_size: of a process, as `auto_find_batch_size` may have found it.

    Raises:
        ValueError: `dataloader_drop_last` drops the only batch, or a batch that was found is smaller than `ascent_size`.
    """
    check_found_batch_size(batch_size, args)
    if not isinstance(dataset, Sized) or isinstance(dataset, IterableDataset):
        return None
    num_samples, processes = len(dataset), args.world_size
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
