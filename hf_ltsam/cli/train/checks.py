"""Settings that cannot work, refused before data or model are loaded."""

from __future__ import annotations

import math
import os
import re
import warnings
from pathlib import Path
from typing import Any

from accelerate.utils import DynamoBackend

from hf_ltsam import LTSamConfig
from hf_ltsam.cli.model_names import OURS, check_model
from hf_ltsam.cli.train.data_checks import check_data
from hf_ltsam.cli.train.resuming import resume_point
from hf_ltsam.cli.train.settings import AUGMENTATION, Run
from hf_ltsam.cli.user_errors import check_choice
from hf_ltsam.data.in_memory.augmentation import within
from hf_ltsam.data.preprocessing import check_test_time
from hf_ltsam.hyperparameters import BELOW_ONE, COUNT, NON_NEGATIVE, UNIT_INTERVAL, Domain, did_you_mean, require
from hf_ltsam.losses.protocol import takes_several_labels
from hf_ltsam.models.class_vectors import AUTO, STARTS
from hf_ltsam.models.clip_templates import templates_named
from hf_ltsam.models.resnet_cifar import HEADS
from hf_ltsam.models.text_classifier import require_bitsandbytes
from hf_ltsam.runs.files import check_output_folder
from hf_ltsam.runs.folder import RECORD, RunFolder
from hf_ltsam.runs.hub import check_token, require_network
from hf_ltsam.training.checkpoint_folders import check_complete, checkpoint_folder, last_checkpoint
from hf_ltsam.training.folder_lock import folder_lock
from hf_ltsam.training.refusals.settings import check_arguments

ANY_COUNT = Domain("a whole number of at least 0", lambda x: x >= 0 and float(x).is_integer())
SEED = Domain("a whole number from 0 to 2^32 - 1", lambda x: 0 <= x < 2**32 and float(x).is_integer())
DOMAINS = {  # of numbers that transformers takes as they come
    "learning_rate": NON_NEGATIVE, "weight_decay": NON_NEGATIVE, "max_grad_norm": NON_NEGATIVE, "adam_epsilon": NON_NEGATIVE,
    "adam_beta1": BELOW_ONE, "adam_beta2": BELOW_ONE, "seed": SEED, "data_seed": SEED, "dataloader_num_workers": ANY_COUNT,
    "gradient_accumulation_steps": COUNT, "per_device_eval_batch_size": COUNT, "eval_accumulation_steps": COUNT,
}  # fmt: skip


def check(run: Run) -> None:
    """Refuse settings that cannot work, without loading data or model.

    Raises:
        ValueError, FileNotFoundError: the setting, its value and the way out.
    """
    config = run.config
    if run.stage.second_stage is not None and run.program == "train":
        raise ValueError(
            f"--second_stage {run.stage.second_stage}: a second stage starts from a finished run: ltsam decouple RUN "
            "--second_stage ..., or --config with the same recipe."
        )
    config.make_choices()
    if takes_several_labels(config.sample_loss):
        raise ValueError(
            f"--loss {config.loss} is for samples with several labels, and a column of classes has one for each: take "
            "cross_entropy or logit_adjustment. In Python LTSamTrainer takes labels (n, C)."
        )
    check_arguments(config)
    if config.push_to_hub:
        require_network("--push_to_hub")
        check_token("--push_to_hub", config.hub_token)
    if config.dataloader_drop_last:
        raise ValueError(
            "--dataloader_drop_last true leaves out test images too, in transformers' Trainer. Choose a "
            "--per_device_train_batch_size that leaves no tiny last batch instead."
        )
    if config.prediction_loss_only:
        raise ValueError("--prediction_loss_only true leaves nothing to measure accuracies by: leave it out.")
    if config.torch_compile_backend is not None:
        check_choice(
            "torch_compile_backend", config.torch_compile_backend.lower(), [b.value.lower() for b in DynamoBackend]
        )
    _check_reweighting(run)
    _check_optimizer(config.optim_args)
    check_test_time(run.data.test_time)
    run.data.pixel_values  # noqa: B018  refuses what it cannot be
    _check_numbers(run)
    _check_memory(config, run.data.image_size)
    _check_augmentation(run)
    _check_model(run)
    check_data(run.data)
    point = resume_point(config.resume_from_checkpoint)
    if isinstance(point, str) and not Path(point).is_dir():
        close = did_you_mean(point, ("true", "auto", "false"))
        raise ValueError(f"--resume_from_checkpoint {point} is not a folder, nor true, auto or false.{close}")
    if point and config.should_save:
        check_complete(checkpoint_folder(point, config.output_dir))
    if config.should_save:
        check_output_folder(config.output_dir)
        if Path(config.output_dir).is_dir():
            with folder_lock(config.output_dir):
                pass  # the training takes it again; a folder in use is refused before data are loaded
        _refuse_to_overwrite(config)


def _check_numbers(run: Run) -> None:
    config = run.config
    for name, domain in DOMAINS.items():
        if getattr(config, name) is not None:
            require(domain, "LTSamConfig", **{name: getattr(config, name)})
    least_one = {"per_device_train_batch_size": config.per_device_train_batch_size, "image_size": run.data.image_size}
    least_one["max_per_class"] = run.model.max_per_class
    if config.max_steps <= 0:
        least_one["num_train_epochs"] = config.num_train_epochs
    for name, value in least_one.items():
        if value is not None and value <= 0:
            raise ValueError(f"--{name} must be positive, got {value:g}.")


def _check_memory(config: LTSamConfig, image_size: int | None) -> None:
    """Refuse images of which one batch is larger than the machine: the system would end the process without a word."""
    batch = config.per_device_train_batch_size * 3 * 4 * (image_size or 0) ** 2  # float32
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if batch > memory:
        raise ValueError(
            f"--image_size {image_size}: {config.per_device_train_batch_size} images take {batch / 1e9:,.0f} GB, and this "
            f"machine has {memory / 1e9:,.0f} GB. Smaller images, or a smaller --per_device_train_batch_size."
        )


def _check_optimizer(arguments: str | None) -> None:
    for argument in filter(None, (arguments or "").replace(" ", "").split(",")):
        if not re.fullmatch(r"\w+=[^=]+", argument):
            raise ValueError(
                f"--optim_args {arguments}: {argument!r} has not the form NAME=VALUE, such as momentum=0.9."
            )
        name, _, value = argument.partition("=")
        if name in ("momentum", "dampening") and not _is_number(value):
            raise ValueError(f"--optim_args {arguments}: {name} must be a number, got {value!r}.")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_reweighting(run: Run) -> None:
    if run.config.reweighting == "none" and "reweighting" not in run.settings and run.config.reweighting_start:
        raise ValueError(
            f"--reweighting_start {run.config.reweighting_start:g} without --reweighting: give it too, for example "
            "effective_number."
        )


def _check_augmentation(run: Run) -> None:
    pixels = ANY_COUNT if run.data.image_size is None else within(run.data.image_size)
    require(pixels, "image_transform", crop_padding=run.data.crop_padding or 0, cutout=run.data.cutout)
    require(
        UNIT_INTERVAL, "image_transform", color_jitter=run.data.color_jitter, random_erasing=run.data.random_erasing
    )
    try:
        operations = run.data.operations
    except ValueError as error:
        raise ValueError(f"--randaugment {run.data.randaugment}, --randaugment_magnitude: {error}") from error
    if operations is None and "randaugment_magnitude" in run.settings:
        raise ValueError(
            f"--randaugment_magnitude {run.data.randaugment_magnitude} without --randaugment: give it too, for example 2."
        )


def _check_model(run: Run) -> None:
    """Refuse options of one kind of model on another, and files that are not there."""
    model, name = run.model, run.model.model
    check_choice("head", model.head, HEADS)
    if model.init is not None:
        check_choice("init", model.init, (*STARTS, AUTO))
    templates_named(model.templates)
    if model.prompt_names is not None and not Path(model.prompt_names).is_file():
        raise FileNotFoundError(f"--prompt_names {model.prompt_names}: there is no such file.")
    if model.adapter is not None:
        from hf_ltsam.adapters.factory import adapter_names

        check_choice("adapter", model.adapter, adapter_names())
        if model.train_only is not None:
            raise ValueError(
                f"--train_only {' '.join(model.train_only)} and --adapter {model.adapter}: both say what is trained. Leave "
                "one out."
            )
    elif model.adapter_args:
        raise ValueError(f"--adapter_args {model.adapter_args} without --adapter: name the adapter that they are for.")
    if model.load_in_4bit:
        if model.adapter in (None, "none"):
            raise ValueError(
                "--load_in_4bit true: 4-bit weights stay as they are, so an adapter is trained: --adapter lora."
            )
        if model.head == "cosine":
            raise ValueError(
                "--head cosine --load_in_4bit true: a cosine head goes on weights of full precision alone. Leave one out."
            )
        require_bitsandbytes()
    if name == OURS:
        # the adapter first: it brings an init where none is stated
        foreign = [option for option in ("adapter", "init", "learnable_scale") if option in run.settings]
        if foreign:
            raise ValueError(
                f"--{foreign[0]} is for pretrained models: {OURS} starts at random and is trained as a whole."
            )
        return
    if "depth" in run.settings:
        warnings.warn(f"Not used: --depth. {name} has its own shape; it is for {OURS}.", stacklevel=2)
    check_model(name, model.pretrained)


OF_IMAGES = (
    *("depth", "templates", "prompt_names"),
    *("image_column", "image_size", "test_short_side", "test_time", "num_channels", "rgb_channels", "pixel_range"),
    *("normalisation", *AUGMENTATION, "mixup_alpha", "cutmix_alpha", "check_images", "on_bad_image"),
)
OF_TEXTS = ("text_column", "max_length", "load_in_4bit")


def check_task(run: Run, is_text: bool) -> None:
    """Refuse options of images for texts, those of texts for images, and a text without a model for it.

    Args:
        is_text: whether the data are texts.

    Raises:
        ValueError: naming the option.
    """
    if is_text and run.model.model == OURS:
        raise ValueError(
            f"The data of --dataset {run.data.dataset} are texts: name a model for them, such as --model "
            "distilbert/distilbert-base-uncased, or a folder. (If they are images, --image_column names their column.)"
        )
    foreign = [name for name in (OF_IMAGES if is_text else OF_TEXTS) if name in run.settings]
    if foreign:
        kinds = ("images", "texts") if is_text else ("texts", "images")
        raise ValueError(f"--{foreign[0]} is for {kinds[0]}, and the data are {kinds[1]}: leave it out.")


def mapping(arguments: dict[str, Any] | str | None) -> dict[str, Any]:
    """Hyper-parameters as a mapping; LTSamConfig has read JSON text, or refused it."""
    return arguments if isinstance(arguments, dict) else {}


def warn_of_tiny_last_batch(num_images: int, config: LTSamConfig) -> None:
    """Warn of a last batch of very few images: batch norm's running statistics suffer from it, and with them the test."""
    batch = config.per_device_train_batch_size
    last = num_images % batch
    if not 0 < last <= batch / 16:
        return
    better = next(size for size in range(batch - 1, 0, -1) if num_images % size == 0 or num_images % size > size / 4)
    warnings.warn(
        f"The last batch of every epoch has {last} of {batch} images, too few for batch norm: "
        f"--per_device_train_batch_size {better}, for example, avoids it.",
        stacklevel=2,
    )


def _refuse_to_overwrite(config: LTSamConfig) -> None:
    folder = Path(config.output_dir)
    if resume_point(config.resume_from_checkpoint):
        return
    checkpoint = last_checkpoint(config.output_dir)
    if checkpoint is None and not RunFolder(folder).has(RECORD):
        return
    content = RECORD if checkpoint is None else checkpoint.name
    go_on = "" if checkpoint is None else "--resume_from_checkpoint true goes on with it, "
    raise ValueError(f"{folder} holds an earlier run ({content}): {go_on}--output_dir OTHER starts a new one.")
