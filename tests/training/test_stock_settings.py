"""Every field of transformers' TrainingArguments, one by one: taken as the stock Trainer takes it, or refused by name."""

import dataclasses
import warnings

import pytest
import torch
from torch import nn
from training.test_hooks import NO_EFFECT, REFUSED_FIELDS
from transformers import PreTrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from hf_ltsam import LTSamConfig, LTSamTrainer

BASE = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.01,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 1}
SAVED = {"save_strategy": "steps", "save_steps": 1}

# field -> other settings than BASE's under which its effect, if it has one, shows in weights, logs, metrics or files
TAKEN = {
    "per_device_train_batch_size": [{"per_device_train_batch_size": 3}],
    "num_train_epochs": [{"max_steps": -1, "num_train_epochs": 1.5}],
    "max_steps": [{"max_steps": 2}],
    "learning_rate": [{"learning_rate": 0.1}],
    "lr_scheduler_type": [{"lr_scheduler_type": "constant"}, {"lr_scheduler_type": "polynomial"}],
    "lr_scheduler_kwargs": [{"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}}],
    "warmup_steps": [{"warmup_steps": 2}, {"warmup_steps": 0.4}],
    "optim": [{"optim": name} for name in ("sgd", "adafactor", "rmsprop", "adagrad")],
    "optim_args": [{"optim": "sgd", "optim_args": "momentum=0.5,nesterov=true"}],
    "optim_target_modules": [{"optim": "galore_adamw", "optim_target_modules": ["body"]}],  # galore is not installed
    "weight_decay": [{"weight_decay": 0.5}],
    "adam_beta1": [{"adam_beta1": 0.5}],
    "adam_beta2": [{"adam_beta2": 0.5}],
    "adam_epsilon": [{"adam_epsilon": 0.1}],
    "gradient_accumulation_steps": [{"gradient_accumulation_steps": 2}],
    "max_grad_norm": [{"max_grad_norm": 0.01, "optim": "sgd"}, {"max_grad_norm": 0.0, "optim": "sgd"}],
    "bf16": [{"bf16": True}],
    "fp16": [{"fp16": True}],  # which a CPU does not take
    "bf16_full_eval": [{"bf16_full_eval": True, **EVALUATED}],
    "fp16_full_eval": [{"fp16_full_eval": True}],
    "tf32": [{"tf32": True}],
    "activation_checkpointing": [{"activation_checkpointing": True}],  # which this model does not take
    "activation_checkpointing_kwargs": [{"activation_checkpointing_kwargs": {"use_reentrant": False}}],
    "gradient_checkpointing": [{"gradient_checkpointing": True}],
    "gradient_checkpointing_kwargs": [{"gradient_checkpointing_kwargs": {"use_reentrant": False}}],
    "torch_empty_cache_steps": [{"torch_empty_cache_steps": 1}],
    "logging_strategy": [
        {"logging_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1},
        {"logging_strategy": "no"},
    ],
    "logging_steps": [{"logging_steps": 2}, {"logging_steps": 0.5}],
    "logging_first_step": [{"logging_steps": 3, "logging_first_step": True}],
    "logging_nan_inf_filter": [{"logging_nan_inf_filter": False}],
    "include_num_input_tokens_seen": [{"include_num_input_tokens_seen": "all"}],
    "disable_tqdm": [{"disable_tqdm": False}],
    "eval_strategy": [EVALUATED, {"eval_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1}],
    "eval_steps": [{**EVALUATED, "eval_steps": 2}],
    "eval_delay": [{**EVALUATED, "eval_delay": 2}],
    "per_device_eval_batch_size": [{**EVALUATED, "per_device_eval_batch_size": 2}],
    "prediction_loss_only": [{**EVALUATED, "prediction_loss_only": True}],
    "eval_on_start": [{**EVALUATED, "eval_on_start": True}],
    "eval_do_concat_batches": [{**EVALUATED, "eval_do_concat_batches": False}],
    "eval_use_gather_object": [{**EVALUATED, "eval_use_gather_object": True}],
    "eval_accumulation_steps": [{**EVALUATED, "eval_accumulation_steps": 1}],
    "include_for_metrics": [{**EVALUATED, "include_for_metrics": ["inputs", "loss"]}],
    "batch_eval_metrics": [{**EVALUATED, "batch_eval_metrics": True}],
    "save_only_model": [{**SAVED, "save_only_model": True}],
    "save_strategy": [{"save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1}],
    "save_steps": [{**SAVED, "save_steps": 2}],
    "save_on_each_node": [{**SAVED, "save_on_each_node": True}],
    "save_total_limit": [{**SAVED, "save_total_limit": 1}],
    "enable_jit_checkpoint": [{"enable_jit_checkpoint": True}],
    "load_best_model_at_end": [{**EVALUATED, **SAVED, "load_best_model_at_end": True}],
    "metric_for_best_model": [
        {
            **EVALUATED,
            **SAVED,
            "load_best_model_at_end": True,
            "metric_for_best_model": "accuracy",
            "save_total_limit": 1,
        },
        {**EVALUATED, "save_strategy": "best", "metric_for_best_model": "accuracy"},
    ],
    "greater_is_better": [
        {
            **EVALUATED,
            **SAVED,
            "load_best_model_at_end": True,
            "metric_for_best_model": "accuracy",
            "greater_is_better": False,
        }
    ],
    "seed": [{"seed": 3}],
    "data_seed": [{"data_seed": 3}],
    "accelerator_config": [
        {"accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}},
        {"accelerator_config": {"use_seedable_sampler": False}},
    ],
    "dataloader_drop_last": [{"dataloader_drop_last": True, "max_steps": -1, "num_train_epochs": 1}],
    "dataloader_persistent_workers": [{"dataloader_persistent_workers": True}],  # which needs workers
    "dataloader_prefetch_factor": [{"dataloader_prefetch_factor": 2}],
    "dataloader_multiprocessing_context": [{"dataloader_multiprocessing_context": "fork"}],
    "remove_unused_columns": [{"remove_unused_columns": True}, {"remove_unused_columns": False}],
    "train_sampling_strategy": [
        {"train_sampling_strategy": "sequential"},
        {"train_sampling_strategy": "group_by_length"},  # which samples of this kind do not have
    ],
    "debug": [{"debug": "underflow_overflow"}],
    "skip_memory_metrics": [{"skip_memory_metrics": False}],
}
# what changes no number: all of it at once
TOGETHER = {
    "log_on_each_node": False,
    "log_level": "error",
    "log_level_replica": "error",
    "report_to": "none",
    "run_name": "mine",
    "project": "mine",
    "trackio_space_id": "mine",
    "trackio_bucket_id": "mine",
    "trackio_static_space_id": "mine",
    "ignore_data_skip": True,
    "restore_callback_states_from_checkpoint": True,
    "ddp_timeout": 60,
    "dataloader_pin_memory": False,
    "dataloader_in_order": False,
    "use_cache": True,
    "label_names": ["labels"],
    "length_column_name": "size",
    "use_cpu": True,
}
ELSEWHERE = {
    "label_smoothing_factor": "test_settings_of_passes",
    "neftune_noise_alpha": "test_settings_of_passes",
    "output_dir": "every test", "dataloader_num_workers": "test_durable_trainer", "full_determinism": "read by the stock constructor alone",
    "torch_compile": "test_precision: a compiler takes longer than all other fields together",
    "torch_compile_backend": "the same",
    "torch_compile_mode": "the same",
    "push_to_hub": "runs/hub", "hub_token": "runs/hub", "hub_private_repo": "runs/hub", "hub_model_id": "runs/hub",
    "hub_strategy": "runs/hub", "hub_always_push": "runs/hub", "hub_revision": "runs/hub",
    "ddp_backend": "test_two_processes", "fsdp": "test_refusals", "fsdp_config": "test_refusals",
}  # fmt: skip


class TinyConfig(PreTrainedConfig):
    model_type = "tiny"


class Tiny(PreTrainedModel):
    """x (n, 4) -> logits (n, 3), with dropout."""

    config_class = TinyConfig
    main_input_name = "x"

    def __init__(self, config):
        super().__init__(config)
        self.body, self.classifier = nn.Linear(4, 6), nn.Linear(6, 3)
        self.post_init()

    def forward(self, x, labels=None):
        logits = self.classifier(nn.functional.dropout(torch.tanh(self.body(x)), 0.1, self.training))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


def tiny():
    torch.manual_seed(0)
    return Tiny(TinyConfig(num_labels=3))


def samples(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [{"x": torch.randn(4, generator=generator), "labels": i % 3} for i in range(count)]


class Metrics:
    """Accuracy, over a batch at a time or all of them."""

    def __init__(self):
        self.right = []

    def __call__(self, prediction, compute_result=True):
        logits, labels = prediction.predictions, prediction.label_ids
        pairs = zip(logits, labels) if isinstance(logits, list) else [(logits, labels)]
        for some, own in pairs:
            self.right += (torch.as_tensor(some).argmax(1) == torch.as_tensor(own)).tolist()
        if not compute_result:
            return {}
        value = sum(self.right) / len(self.right)
        self.right = []
        return {"accuracy": value, "given": float(sum(v is not None for v in (prediction.inputs, prediction.losses)))}


class Steps(TrainerCallback):
    def __init__(self):
        self.rates = []

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        self.rates.append((state.global_step, lr_scheduler.get_last_lr()))


def outcome(names, folder, settings):
    """Weights, rates, logs and files of a training; or the error that it ends with."""
    trainer_class, arguments_class = names
    watch = Steps()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args = arguments_class(**{"output_dir": str(folder), **BASE, **settings})
            trainer = trainer_class(
                tiny(),
                args,
                train_dataset=samples(14, 0),
                eval_dataset=samples(7, 1),
                compute_metrics=Metrics(),
                callbacks=[watch],
            )
            trainer.train()
    except Exception as error:
        return error
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return trainer, watch.rates, files


def timeless(entry):
    times = ("runtime", "per_second", "preparation_time", "_mem_", "before_init", "init_mem")
    return {name: value for name, value in entry.items() if not any(time in name for time in times)}


class Ours(LTSamTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, method="sgd", loss="cross_entropy")


CASES = [(name, settings) for name, several in {**TAKEN, "together": [TOGETHER]}.items() for settings in several]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_a_setting_is_taken_as_by_the_stock_trainer(name, settings, tmp_path):
    stock = outcome((Trainer, TrainingArguments), tmp_path / "stock", settings)
    ours = outcome((Ours, LTSamConfig), tmp_path / "ours", settings)
    if isinstance(stock, Exception):
        assert isinstance(ours, Exception), "the stock Trainer refuses it"
        return
    assert not isinstance(ours, Exception), ours
    (mine, my_rates, my_files), (theirs, their_rates, their_files) = ours, stock
    for (weight, a), b in zip(mine.model.state_dict().items(), theirs.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), weight
    assert my_rates == their_rates and their_files <= my_files
    logs = [[timeless(entry) for entry in trainer.state.log_history] for trainer in (mine, theirs)]
    for mine_logged, logged in zip(*logs, strict=True):
        assert logged.keys() <= mine_logged.keys()
        for key, value in logged.items():
            assert mine_logged[key] == pytest.approx(value, rel=1e-2 if key == "eval_loss" else 1e-5), key
    assert mine.state.best_metric == pytest.approx(theirs.state.best_metric)


def test_every_setting_of_transformers_is_in_a_table():
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert names == set(TAKEN) | set(TOGETHER) | REFUSED_FIELDS | set(NO_EFFECT) | set(ELSEWHERE)
