"""Settings that cannot work, refused before data or model are loaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from hf_ltsam import LTSamConfig
from hf_ltsam.cli.train.model import OURS
from hf_ltsam.cli.train.settings import Run
from hf_ltsam.cli.train.splits import check_data
from hf_ltsam.cli.user_errors import check_choice
from hf_ltsam.data.preprocessing import check_test_time
from hf_ltsam.models.class_vectors import STARTS
from hf_ltsam.models.clip_source import OPEN_CLIP
from hf_ltsam.models.clip_templates import templates_named
from hf_ltsam.models.resnet_cifar import HEADS
from hf_ltsam.runs.files import check_output_folder
from hf_ltsam.runs.folder import RECORD, RunFolder
from hf_ltsam.runs.hub import check_token, require_network
from hf_ltsam.training.checkpoint_folders import check_complete, checkpoint_folder, last_checkpoint
from hf_ltsam.training.folder_lock import folder_lock
from hf_ltsam.training.refusals import check_arguments


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
    check_arguments(config)
    if config.push_to_hub:
        require_network("--push_to_hub")
        check_token("--push_to_hub", config.hub_token)
    if config.dataloader_drop_last:
        raise ValueError(
            "--dataloader_drop_last true leaves out test images too, in transformers' Trainer. Choose a "
            "--per_device_train_batch_size that leaves no tiny last batch instead."
        )
    check_test_time(run.data.test_time)
    _check_numbers(run)
    _check_augmentation(run)
    _check_model(run)
    check_data(run.data)
    point = resume_point(config)
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
    least_one = {"per_device_train_batch_size": config.per_device_train_batch_size, "image_size": run.data.image_size}
    least_one["max_per_class"] = run.model.max_per_class
    if config.max_steps <= 0:
        least_one["num_train_epochs"] = config.num_train_epochs
    for name, value in least_one.items():
        if value is not None and value <= 0:
            raise ValueError(f"--{name} must be positive, got {value:g}.")


def _check_augmentation(run: Run) -> None:
    if run.data.cutout < 0:
        raise ValueError(f"--cutout must be a side in pixels, or 0 for none, got {run.data.cutout}.")
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
        check_choice("init", model.init, STARTS)
    templates_named(model.templates)
    if model.prompt_names is not None and not Path(model.prompt_names).is_file():
        raise FileNotFoundError(f"--prompt_names {model.prompt_names}: there is no such file.")
    if model.adapter is not None:
        from hf_ltsam.adapters.factory import adapter_names

        check_choice("adapter", model.adapter, adapter_names())
    elif model.adapter_args:
        raise ValueError(f"--adapter_args {model.adapter_args} without --adapter: name the adapter that they are for.")
    if name == OURS:
        foreign = [option for option in ("init", "adapter", "learnable_scale") if option in run.settings]
        if foreign:
            raise ValueError(
                f"--{foreign[0]} is for pretrained models: {OURS} starts at random and is trained as a whole."
            )
        return
    if "depth" in run.settings:
        warnings.warn(f"Not used: --depth. {name} has its own shape; it is for {OURS}.", stacklevel=2)
    if name.startswith(OPEN_CLIP):
        return
    if not Path(name).is_dir() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"--model {name}: there is no such folder, and names on the Hub have the form OWNER/NAME."
        )


def resume_point(config: LTSamConfig) -> str | bool:
    """`--resume_from_checkpoint`: a checkpoint's folder, True for the last one, or False."""
    value = config.resume_from_checkpoint or "false"
    return {"true": True, "false": False}.get(value.lower(), value)


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
    if resume_point(config):
        return
    checkpoint = last_checkpoint(config.output_dir)
    if checkpoint is None and not RunFolder(folder).has(RECORD):
        return
    content = RECORD if checkpoint is None else checkpoint.name
    go_on = "" if checkpoint is None else "--resume_from_checkpoint true goes on with it, "
    raise ValueError(f"{folder} holds an earlier run ({content}): {go_on}--output_dir OTHER starts a new one.")
