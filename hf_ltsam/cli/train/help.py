"""`--help` of a command with 200 options: ten that matter first, the others by group, `--help all` for everything."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from fnmatch import fnmatch
from typing import Any

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.train.settings import DataArguments, ModelArguments, SecondStageArguments
from hf_ltsam.hyperparameters import did_you_mean

FIRST = {
    "train": (
        "dataset",
        "held_out_per_class",
        "model",
        "method",
        "loss",
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "output_dir",
        "config",
    ),
    "decouple": (
        "second_stage",
        "second_stage_args",
        "cache_features",
        "dataset",
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "seed",
        "output_dir",
        "config",
    ),
}
ALL, OTHERS = "all", "other"


def _names(*arguments: type) -> str:
    return " ".join(field.name for settings in arguments for field in fields(settings))


# name of a group -> what it is about, and its options, * for any text; an option is in the first group that has it
GROUPS: Mapping[str, tuple[str, str]] = {
    "augmentation": (
        "changes of training images",
        "crop_padding flip no_flip color_jitter cutout randaugment* random_erasing mixup_alpha cutmix_alpha",
    ),
    "data": ("images or texts, labels, splits", f"{_names(DataArguments)} no_check_images on_bad_image"),
    "model": ("the model, its adapter, what of it is trained", f"{_names(ModelArguments)} no_pretrained"),
    "method": (
        "the perturbation of the weights",
        "method method_args ascent_* tail_threshold exact_rows no_exact_rows telemetry no_telemetry max_skipped_steps",
    ),
    "loss": (
        "the loss, class weights, how often a class is drawn",
        "loss loss_* reweighting* sampling label_smoothing_factor",
    ),
    "optimizer": (
        "learning rate and schedule, optimizer, averaged weights",
        "learning_rate lr_* warmup_* optim* weight_decay decay_* no_decay_* adam_* max_grad_norm swa_*",
    ),
    "length": (
        "epochs, batches, seeds",
        "num_train_epochs max_steps per_device_*_batch_size auto_find_batch_size gradient_accumulation_steps seed data_seed "
        "full_determinism",
    ),
    "evaluation": (
        "tests during the training, the best epoch",
        "eval_* include_for_metrics batch_eval_metrics prediction_loss_only load_best_model_at_end metric_for_best_model "
        "greater_is_better no_eval_*",
    ),
    "checkpoints": (
        "the folder of the run, checkpoints, resuming",
        "output_dir config save_* resume_from_checkpoint enable_jit_checkpoint ignore_data_skip "
        "restore_callback_states_from_checkpoint",
    ),
    "logging": (
        "logs, trackers such as TensorBoard and Trackio",
        "logging_* no_logging_* log_* no_log_* report_to run_name project trackio_* disable_tqdm "
        "include_num_input_tokens_seen",
    ),
    "hub": ("publishing on the Hub", "push_to_hub hub_*"),
    "speed": (
        "precision, memory, compilation",
        "bf16* fp16* tf32 activation_checkpointing* gradient_checkpointing* torch_* use_liger_kernel liger_* use_cache "
        "channels_last cuda_graphs",
    ),
    "loading": ("workers that read the data", "dataloader_* no_dataloader_*"),
    "devices": (
        "CPU, several GPUs, FSDP",
        "use_cpu ddp_* fsdp* deepspeed accelerator_config parallelism_config local_rank",
    ),
    "second_stage": ("`ltsam decouple`: the classifier trained again", _names(SecondStageArguments)),
    OTHERS: ("the rest of transformers' Trainer", "*"),
}


def group_of(option: str) -> str:
    """The group of an option, by its name."""
    return next(
        group for group, (_, options) in GROUPS.items() if any(fnmatch(option, each) for each in options.split())
    )


class ShortHelp(argparse.Action):
    """`--help`, `--help GROUP`, `--help OPTION`, `--help all`: print, and exit."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        print(help_of(parser, (values or "").lstrip("-").replace("-", "_")), end="")
        parser.exit()


def help_of(parser: OptionParser, topic: str = "") -> str:
    """The text of `--help TOPIC`.

    Raises:
        ValueError: there is no such group or option.
    """
    actions = {_name(action): action for action in parser._actions if action.option_strings and _name(action) != "help"}
    members: dict[str, list[argparse.Action]] = {group: [] for group in GROUPS}
    for name, action in actions.items():
        members[group_of(name)].append(action)
    formatter = _Formatter(parser.prog)
    formatter.add_usage(parser.usage, [], [])
    program = parser.prog.split()[-1]
    if topic == ALL:
        _add(formatter, {f"{group} ({GROUPS[group][0]})": options for group, options in members.items() if options})
    elif topic in members:
        _add(formatter, {f"{topic} ({GROUPS[topic][0]})": members[topic]})
    elif topic in actions:
        _add(formatter, {f"{topic}, of the group {group_of(topic)}": [actions[topic]]})
    elif topic:
        close = parser._argument(topic, "") or did_you_mean(topic, [*GROUPS, *actions])
        raise ValueError(f"--help {topic}: no such group or option.{close} {parser._help}")
    else:
        _add(formatter, {"ten options to begin with": [actions[name] for name in FIRST[program]]})
        groups = "\n".join(f"  {g:13} {GROUPS[g][0]}" for g, options in members.items() if options)
        below = f"groups of the other options, each shown by `{parser.prog} --help GROUP`:\n{groups}"
        ways = f"`{parser.prog} --help all` shows every option, `{parser.prog} --help OPTION` one of them."
        return f"{formatter.format_help()}\n{below}\n\n{ways}\n{parser.epilog}\n"
    return f"{formatter.format_help()}\n{parser.epilog}\n"


def _add(formatter: argparse.HelpFormatter, sections: Mapping[str, Iterable[argparse.Action]]) -> None:
    for title, actions in sections.items():
        formatter.start_section(title)
        formatter.add_arguments(actions)
        formatter.end_section()


def _name(action: argparse.Action) -> str:
    """no_flip of --no_flip, whose destination is flip."""
    return next((o[2:] for o in action.option_strings if o.startswith("--")), action.dest)


class _Formatter(argparse.HelpFormatter):
    """One spelling of each option, the kind of its value, its default where that says something."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = copy.copy(action)
        shown.option_strings = [option for option in action.option_strings if "-" not in option[2:]]
        return super()._format_action_invocation(shown)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        kinds = {"int": "N", "float": "X", "string_to_bool": "BOOL"}
        return kinds.get(getattr(action.type, "__name__", ""), "VALUE")

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.const is False:
            return f"Turn --{action.dest} off."
        text = action.help or ""
        decided = "Not set: " in text or action.default is argparse.SUPPRESS
        unset = action.default is None and "None" not in text
        return text if decided or unset else f"{text} (default: %(default)s)"
