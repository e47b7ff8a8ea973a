"""Two runs are the same experiment, apart from the seed, if they agree in the settings below.

A setting is the experiment's if it changes the trained weights, the data, or what the test measures. All others belong to
one run: its seed, its places and names, what it logs and saves, and how fast it is. Training sets are told apart by their
labels (`training_labels_sha256`), not by the folder they lie in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from typing import Any

from hf_ltsam.runs.folder import Recipe, without_seed
from hf_ltsam.runs.record import RunRecord

# Every setting of LTSamConfig and of the model, data and second-stage options stands in exactly one of these three.

_EXPERIMENT = {
    "batches and length": "per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps "
    "dataloader_drop_last dataloader_in_order auto_find_batch_size average_tokens_across_devices train_sampling_strategy "
    "length_column_name sampling ignore_data_skip accelerator_config remove_unused_columns label_names on_bad_image",
    "optimizer": "learning_rate optim optim_args optim_target_modules weight_decay decay_all_parameters adam_beta1 "
    "adam_beta2 adam_epsilon",
    "clipping and schedule": "max_grad_norm lr_scheduler_type lr_scheduler_kwargs warmup_steps lr_milestones lr_gamma "
    "deepspeed swa_start swa_interval swa_learning_rate load_best_model_at_end",
    "method and loss": "method method_args ascent_scope ascent_size tail_threshold loss loss_args loss_start reweighting "
    "reweighting_start label_smoothing_factor neftune_noise_alpha",
    "precision": "bf16 fp16 tf32 bf16_full_eval fp16_full_eval",
    "model": "model pretrained depth head cosine_scale learnable_scale init templates prompt_names max_per_class adapter "
    "adapter_args train_only load_in_4bit spectral_norm spectral_norm_iterations",
    "data and test": "dataset_revision task text_column max_length only_known_classes builder image_column label_column "
    "train_split test_split held_out_per_class imbalance_ratio profile largest_class split_seed many_above few_below "
    "group_sizes image_size test_short_side test_time reserve num_channels rgb_channels pixel_range normalisation "
    "crop_padding flip color_jitter cutout randaugment randaugment_magnitude random_erasing mixup_alpha cutmix_alpha",
    "second stage": "second_stage second_stage_args first_stage cache_features",
}
_CHOOSING_THE_BEST = {  # the experiment's where evaluations choose weights or the learning rate, of one run otherwise
    "when": "eval_strategy eval_steps eval_delay eval_on_start save_strategy save_steps save_total_limit",
    "which": "metric_for_best_model greater_is_better",
}
_ONE_RUN = {
    "seed": "seed data_seed full_determinism",
    "places and names": "output_dir dataset dataset_config_name lists own_lists check_images run_name project "
    "resume_from_checkpoint restore_callback_states_from_checkpoint",
    "logs": "logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level "
    "log_level_replica include_num_input_tokens_seen disable_tqdm report_to trackio_space_id trackio_bucket_id "
    "trackio_static_space_id telemetry debug skip_memory_metrics max_skipped_steps",
    "evaluation during the training": "do_train do_eval do_predict per_device_eval_batch_size prediction_loss_only "
    "eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics",
    "checkpoints and the Hub": "save_run save_only_model save_on_each_node enable_jit_checkpoint push_to_hub hub_token "
    "hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision",
    "speed and memory, the same numbers but for rounding": "use_cpu exact_rows channels_last cuda_graphs "
    "activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs "
    "torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache "
    "torch_empty_cache_steps parallelism_config dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
    "dataloader_prefetch_factor dataloader_multiprocessing_context ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config local_rank",
}
OF_THE_EXPERIMENT, OF_CHOOSING_THE_BEST, OF_ONE_RUN = (
    frozenset(" ".join(table.values()).split()) for table in (_EXPERIMENT, _CHOOSING_THE_BEST, _ONE_RUN)
)
SEEDS = frozenset({"seed", "data_seed"})
OF_THE_OPTIMIZER = frozenset(_EXPERIMENT["optimizer"].split())  # an optimizer that is passed has its own
OF_THE_DATA = frozenset((*_EXPERIMENT["data and test"].split(), "dataset", "dataset_config_name", "lists", "own_lists"))
_LABELS = "training_labels_sha256"
OTHER_DEFAULTS = {
    "lr_scheduler_type",
    "optim",
    "max_grad_norm",
    "remove_unused_columns",
}  # LTSamConfig's are not stock


def experiment_of(record: RunRecord | None, recipe: Recipe | None) -> dict[str, Any]:
    """The settings of a run's experiment: two runs that differ in the seed alone have equal ones.

    A setting that stands in no table, of a newer release for example, counts as the experiment's. One of the stock Trainer's
    that a recipe leaves out has its default, so that stating the default makes no other experiment.

    Args:
        record: of the run; None while it has not finished.
        recipe: of the run; None where there is none.

    Returns:
        Name of a setting -> value; of a finished run those of method, loss, model and data are complete. Empty where
        nothing is known.
    """
    settings = {**stock_defaults(), **recipe.settings} if recipe is not None else {}
    recorded = {} if record is None else _recorded(record)
    if record is not None and record.optimizer:
        settings = {name: value for name, value in settings.items() if name not in OF_THE_OPTIMIZER}
    one_run = OF_ONE_RUN if _evaluations_matter(settings) else OF_ONE_RUN | OF_CHOOSING_THE_BEST
    if not recorded.get(_LABELS):  # nothing but their place tells the data apart
        one_run -= {"dataset", "dataset_config_name"}
    experiment = {name: value for name, value in (settings | recorded).items() if name not in one_run}
    revision = experiment.pop("dataset_revision", None)
    if revision is not None:  # a branch moves, and a tag is another name of a commit
        experiment["dataset_revision"] = ((record and record.hub) or {}).get("dataset_commit", revision)
    if isinstance(experiment.get("first_stage"), str):
        experiment["first_stage"] = without_seed(experiment["first_stage"])
    return experiment


@cache
def stock_defaults() -> dict[str, Any]:
    """Of the settings that LTSamConfig takes over from transformers as they are."""
    from transformers import TrainingArguments  # slow to import

    names = OF_THE_EXPERIMENT | OF_CHOOSING_THE_BEST
    defaults = {field.name: field.default for field in fields(TrainingArguments) if field.default is not MISSING}
    return {
        name: value.value if isinstance(value, Enum) else value
        for name, value in defaults.items()
        if name in names - OTHER_DEFAULTS
    }


def _evaluations_matter(settings: Mapping[str, Any]) -> bool:
    """Whether evaluations during the training change its result: the weights that are kept, or the learning rate."""
    return bool(settings.get("load_best_model_at_end")) or settings.get("lr_scheduler_type") == "reduce_lr_on_plateau"


def _recorded(record: RunRecord) -> dict[str, Any]:
    """What the record says, by the names of the settings; everything else in it is the outcome of one run."""
    method, loss = dict(record.method), dict(record.loss)
    return {
        "method": method.pop("name"),
        "method_args": method.pop("args", None),
        **{f"method_{name}": value for name, value in method.items()},
        "loss": loss.pop("name"),
        "loss_args": loss.pop("args", None),
        **{f"loss_{name}": value for name, value in loss.items()},
        **({"optim": record.optimizer["name"], "optim_args": record.optimizer["args"]} if record.optimizer else {}),
        **({"processes": record.processes} if record.processes > 1 else {}),  # batches are as many times as large
        "reweighting": record.reweighting.get("scheme", "none"),
        "reweighting_start": record.reweighting.get("start"),
        "sampling": record.sampling,
        **{"mixup_alpha": 0.0, "cutmix_alpha": 0.0, **record.mixing},
        "weight_averaging": record.weight_averaging,
        **_of_second_stage(record.second_stage),
        **record.model,
        **record.data,
        **record.class_statistics,
    }


def _of_second_stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What it was and on what; the run it started from has the same seed, so its weights differ from seed to seed."""
    if not stage:
        return {}
    first = dict(stage.get("first_stage") or {})
    first.pop("weights_sha256", None)
    first["folder"] = without_seed(str(first.get("folder")))
    return {"second_stage": stage.get("name"), "second_stage_args": stage.get("args"), "first_stage": first}
