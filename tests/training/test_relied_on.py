"""What we rely on inside transformers: its private names, which it may change without a word.

Where one of these fails, transformers has changed something that `DurableTrainer` or `LTSamTrainer` overrides or uses. The
last column says what depends on it; look there before this table is brought up to date.
"""

import inspect
import re
from pathlib import Path

import pytest
from transformers import Trainer

import hf_ltsam.training
from hf_ltsam import LTSamTrainer
from hf_ltsam.training.second_stage import SecondStageTrainer

FOLDER = Path(hf_ltsam.training.__file__).parent

# private method that we override -> its parameters, what depends on it
OVERRIDDEN = {
    "_get_dataloader": (
        ["dataset", "description", "batch_size", "sampler_fn", "is_training", "dataloader_key"],
        "random numbers keyed by sample, batches made on the device, columns removed first: `batch_loaders`",
    ),
    "_get_output_dir": (["trial"], "checkpoints are written aside: they would appear half-written"),
    "_save_checkpoint": (["model", "trial"], "checkpoints are named when complete, and hold the states of callbacks"),
    "_push_from_checkpoint": (["checkpoint_folder"], "nothing is uploaded before it has its name; our own uploads"),
    "_finalize_training": (["trial", "num_train_samples", "start_time"], "the last deletions are out of sight"),
    "_save": (["output_dir", "state_dict"], "ltsam.json, class statistics, spectral norm folded, usual memory order"),
    "_load_from_checkpoint": (["resume_from_checkpoint", "model"], "weights saved under other names are resumed"),
    "_load_best_model": ([], "the best checkpoint of a model whose weights are saved under other names"),
    "_get_grad_norm": (["model", "grad_norm"], "the gradient's norm is not computed twice"),
    "_prepare_inputs": (["inputs"], "images in channels-last order; features in their place: `SecondStageTrainer`"),
    "_get_train_sampler": (["train_dataset"], "sampling by class"),
    "_hp_search_setup": (["trial"], "a trial's method, loss and memory are made of its settings"),
    "_load_rng_state": (["checkpoint"], "a checkpoint of fewer processes is resumed, with a word"),
    "_load_optimizer_and_scheduler": (["checkpoint"], "a checkpoint without them is refused, not passed over"),
    "_issue_warnings_after_load": (["load_result"], "a checkpoint of another model is refused, not warned of"),
    "_set_signature_columns_if_needed": ([], "a second stage keeps the inputs of the whole model"),
}

# where the stock Trainer calls them -> otherwise the overrides are there in vain
CALLED_BY = {
    "_get_dataloader": ["get_train_dataloader", "get_eval_dataloader", "get_test_dataloader"],
    "_get_output_dir": ["_save_checkpoint"],
    "_save_checkpoint": ["_maybe_log_save_evaluate"],
    "_push_from_checkpoint": ["_save_checkpoint"],
    "_finalize_training": ["_inner_training_loop"],
    "_save": ["save_model"],
    "_load_from_checkpoint": ["train", "_prepare_for_training"],
    "_load_best_model": ["_finalize_training"],
    "_get_grad_norm": ["_run_epoch"],
    "_prepare_inputs": ["prediction_step"],
    "_get_train_sampler": ["get_train_dataloader"],
    "_hp_search_setup": ["train"],
    "_load_rng_state": ["_run_epoch"],
    "_load_optimizer_and_scheduler": ["_prepare_for_training"],
    "_issue_warnings_after_load": ["_load_best_model", "_load_from_checkpoint"],
    "_set_signature_columns_if_needed": ["_remove_unused_columns", "_get_collator_with_removed_columns"],
}

# private attribute or method that we set, read or call -> what depends on it, a line of the stock Trainer that must be there
ATTRIBUTES = {
    "_created_lr_scheduler": (
        "a second training has a schedule of its own with lr_milestones",
        "if self._created_lr_scheduler:",
    ),
    "_remove_unused_columns": (
        "columns that the model does not take are not read",
        "dataset = self._remove_unused_columns(dataset, description=description)",
    ),
    "_get_collator_with_removed_columns": (
        "columns that a transform of the data set makes are left out of the batch",
        "self._get_collator_with_removed_columns(self.data_collator",
    ),
    "_signature_columns": ("the inputs of the whole model are added to it", "if self._signature_columns is None:"),
    "_train_batch_size": ("a batch size that auto_find_batch_size has found", "self._train_batch_size = batch_size"),
}


def overridden(kind):
    """The private names of the stock Trainer that a class of ours, or one between, defines."""
    ours = [cls for cls in kind.__mro__ if cls.__module__.startswith("hf_ltsam")]
    return {name for cls in ours for name in vars(cls) if re.match("_[a-z]", name) and hasattr(Trainer, name)}


def test_the_tables_are_complete():
    assert overridden(SecondStageTrainer) == set(OVERRIDDEN) == set(CALLED_BY)
    assert overridden(LTSamTrainer) == set(OVERRIDDEN) - {"_set_signature_columns_if_needed"}  # of second stages alone
    source = "\n".join(file.read_text() for file in FOLDER.rglob("*.py"))
    stock = set(re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(Trainer)))
    used = stock & set(re.findall(r"(?:self|super\(\)|trainer)\.(_[a-z]\w*)", source))
    assert used == {*OVERRIDDEN, *ATTRIBUTES}, "a private name is used that has no line here, or a line is not needed"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_we_override_is_there_with_the_parameters_we_give(name):
    parameters, dependent = OVERRIDDEN[name]
    method = getattr(Trainer, name, None)
    assert method is not None, f"transformers.Trainer.{name} is gone. On it depends: {dependent}."
    found = list(inspect.signature(method).parameters)[1:]
    assert found == parameters, (
        f"transformers.Trainer.{name} takes {found}, not {parameters}. On it depends: {dependent}."
    )


@pytest.mark.parametrize("name", CALLED_BY)
def test_what_we_override_is_called(name):
    for caller in CALLED_BY[name]:
        calls = f"self.{name}" in inspect.getsource(getattr(Trainer, caller))
        assert calls, f"transformers.Trainer.{caller} does not call {name}. On it depends: {OVERRIDDEN[name][1]}."


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_we_set_is_read(name):
    dependent, line = ATTRIBUTES[name]
    assert line in inspect.getsource(Trainer), f"transformers.Trainer.{name} has changed. On it depends: {dependent}."


@pytest.mark.parametrize("kind", [LTSamTrainer, SecondStageTrainer])
def test_no_override_only_refuses(kind):
    """A method that is there to raise is a hole in the interface."""
    for cls in kind.__mro__:
        if cls.__module__.startswith("hf_ltsam"):
            assert "raise NotImplementedError" not in inspect.getsource(cls), cls
