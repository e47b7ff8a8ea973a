"""A run that is killed and resumed ends as if nothing had happened."""

import json
import signal
from pathlib import Path

import pytest
import torch
from forked import Script
from training.noisy_run import noisy_trainer
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

SCRIPT = Path(__file__).with_name("noisy_run.py")


class StartedAt(TrainerCallback):
    """The step from which a training goes on."""

    def on_train_begin(self, args, state, control, **_):
        self.step = state.global_step


def assert_same(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


# 22 samples in batches of 4 are 6 steps an epoch; checkpoints at 4, 8, 12, ...: killed in mid-epoch and right after one
@pytest.mark.slow
@pytest.mark.parametrize(("workers", "method", "step"), [(0, "sse_sam", 10), (2, "focal_sam", 15)])
def test_killed_and_resumed_is_uninterrupted(workers, method, step, tmp_path):
    code, output = Script(str(SCRIPT), str(tmp_path / "killed"), str(workers), method, str(step)).wait()
    assert code == -signal.SIGKILL, output
    last = get_last_checkpoint(str(tmp_path / "killed"))
    assert Path(last).name == f"checkpoint-{step // 4 * 4}"

    resumed = noisy_trainer(tmp_path / "killed", workers, method)
    resumed.train(resume_from_checkpoint=True)
    whole = noisy_trainer(tmp_path / "whole", workers, method)
    whole.train()
    assert_same(resumed.model, whole.model)
    for a, b in zip(
        resumed.optimizer.state_dict()["state"].values(), whole.optimizer.state_dict()["state"].values(), strict=True
    ):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


@pytest.mark.parametrize("step", [4, 12])  # in mid-epoch, and at the end of the second epoch
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, True)])
def test_resumed_from_any_checkpoint(step, workers, persistent, tmp_path):
    whole = noisy_trainer(tmp_path, workers, dataloader_persistent_workers=persistent)
    whole.train()
    resumed = noisy_trainer(tmp_path, workers, dataloader_persistent_workers=persistent)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert_same(resumed.model, whole.model)


def test_resumed_at_its_end_it_is_at_its_end(tmp_path):
    """In mid-epoch: the stock loop would take a step more than there are."""
    whole, resumed = noisy_trainer(tmp_path, max_steps=8), noisy_trainer(tmp_path, max_steps=8)
    whole.train()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8
    assert_same(resumed.model, whole.model)


def test_the_test_above_can_fail(tmp_path):
    """Another seed gives another run: the noise, the dropout and the order do matter."""
    first, other = noisy_trainer(tmp_path, 0), noisy_trainer(tmp_path, 0, data_seed=4)
    first.train()
    other.train()
    assert not torch.equal(first.model.body[0].weight, other.model.body[0].weight)


def test_every_epoch_draws_new_numbers(tmp_path):
    trainer = noisy_trainer(tmp_path, save_strategy="no")
    trainer.train()
    data = trainer.batch_loaders.keyed
    assert data.epoch == 3
    last = data[0]["x"]
    data.set_epoch(0)
    assert not torch.equal(last, data[0]["x"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "focal_sam"}, "method"),
        ({"method_args": {"rho": 0.2}}, "method"),
        ({"loss": "logit_adjustment"}, "loss"),
        ({"reweighting_start": 0.75}, "reweighting"),
        ({"num_classes": 2}, "class_counts"),
        # brought by the checkpoint, so that they would not act
        ({"learning_rate": 0.01}, "learning_rate"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"optim": "adamw_torch"}, "optim"),
        ({"optim_args": "momentum=0.5"}, "optim_args"),
        ({"seed": 9}, "seed"),
        ({"data_seed": 9}, "data_seed"),
    ],
)
def test_resuming_with_something_else_is_refused(change, named, tmp_path):
    noisy_trainer(tmp_path, max_steps=4).train()
    with pytest.raises(ValueError, match="cannot be resumed") as error:
        noisy_trainer(tmp_path, **change).train(resume_from_checkpoint=True)
    assert f"{named}:" in str(error.value) and "in the checkpoint" in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_steps": 6}, "max_steps: 4 in the checkpoint, 6 now"),
        ({"max_grad_norm": 1.0}, "max_grad_norm: 0.0 in the checkpoint, 1.0 now"),
        ({"per_device_train_batch_size": 2}, "per_device_train_batch_size: 4 in the checkpoint, 2 now"),
        ({"ascent_scope": "step"}, "ascent_scope: "),
        ({"logging_steps": 3, "save_steps": 2, "output_dir": "elsewhere"}, None),  # of no result
        ({"data_seed": 3, "lr_scheduler_kwargs": {}}, None),  # the seed that it follows
        ({}, None),
    ],
)
def test_resuming_with_settings_that_act_from_there_on_is_warned_of(change, said, tmp_path, caplog):
    noisy_trainer(tmp_path / "run", max_steps=4).train()
    resumed = noisy_trainer(tmp_path / "run", **{"max_steps": 4, **change})
    with caplog.at_level("WARNING"):
        resumed.check_checkpoint(tmp_path / "run" / "checkpoint-4")
    warned = [record.getMessage() for record in caplog.records if "goes on with other settings" in record.getMessage()]
    assert [said in message for message in warned] == ([] if said is None else [True]), warned


def test_another_number_of_processes_is_told(tmp_path, caplog):
    """Of the same settings twice as many processes make batches twice as large."""
    noisy_trainer(tmp_path, max_steps=4).train()
    file = tmp_path / "checkpoint-4" / "ltsam.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "settings": {**saved["settings"], "processes": 2}}))
    with caplog.at_level("WARNING"):
        noisy_trainer(tmp_path, max_steps=4).check_checkpoint(file.parent)
    assert "processes: 2 in the checkpoint, 1 now" in caplog.text


def test_the_same_counts_in_another_order_are_another_data_set(tmp_path):
    noisy_trainer(tmp_path, max_steps=4).train()
    other = noisy_trainer(tmp_path)
    other.train_dataset.labels.reverse()
    sums = r"SHA-256 (\w{8})\.\.\. in the checkpoint, SHA-256 (?!\1)\w{8}\.\.\. now"
    with pytest.raises(ValueError, match=f"labels of the training set: {sums}"):
        other.train(resume_from_checkpoint=True)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        noisy_trainer(tmp_path).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="nowhere' is not a folder"):
        noisy_trainer(tmp_path).train(resume_from_checkpoint="nowhere")


def test_a_checkpoint_says_what_it_is(tmp_path):
    noisy_trainer(tmp_path, method="sse_sam", max_steps=4).train()
    saved = json.loads((tmp_path / "checkpoint-4" / "ltsam.json").read_text())
    assert saved["method"] == {
        "name": "sse_sam",
        "args": {
            "rho_head": 0.05,
            "rho_tail": 0.1,
            "gamma": 0.5,
            "normalizer": "total",
            "interval": 1,
            "start": 0.0,
            "stop": 1.0,
        },
    }
    assert saved["class_counts"] == [12, 7, 3] and saved["tail_threshold"] == 6


def test_the_memory_of_a_method_is_saved_and_comes_back(tmp_path):
    from dataclasses import dataclass

    from hf_ltsam.methods import Method

    @dataclass(frozen=True)
    class Counting(Method):
        def gradient(self, loss, step):
            g = loss.gradient()
            step.memory["steps"] = step.memory.get("steps", torch.zeros(())) + 1
            step.memory["momentum"] = g.materialize()
            return g

    def run(**settings):
        trainer = noisy_trainer(tmp_path, method="sgd", **settings)
        trainer.method = Counting()
        return trainer

    run(max_steps=4).train()
    resumed = run(max_steps=6)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.method_memory.values["steps"] == 6
    assert [m.shape for m in resumed.method_memory.values["momentum"]] == [p.shape for p in resumed.model.parameters()]


def test_a_schedule_is_told_from_another_one(tmp_path):
    from hf_ltsam.methods import METHODS, make_method
    from hf_ltsam.runs.identity import describe

    linear, cosine = ({"rho": {kind: {"start": 0.1, "end": 0.2}}} for kind in ("linear", "cosine"))
    every_step = {"interval": 1, "start": 0.0, "stop": 1.0}
    assert describe(METHODS, make_method("sam", **linear)) == {"name": "sam", "args": {**linear, **every_step}}
    assert describe(METHODS, make_method("sam", **cosine)) == {"name": "sam", "args": {**cosine, **every_step}}


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    whole = noisy_trainer(tmp_path)
    whole.train()
    (tmp_path / "checkpoint-24" / "trainer_state.json").unlink()
    start = StartedAt()
    resumed = noisy_trainer(tmp_path, callbacks=[start])
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed.model, whole.model)
    assert start.step == 20


def test_a_path_object_is_the_folder_it_names(tmp_path):
    start = StartedAt()
    whole, resumed = noisy_trainer(tmp_path), noisy_trainer(tmp_path, callbacks=[start])
    whole.train()
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-8")
    assert start.step == 8
    assert_same(resumed.model, whole.model)


def test_a_damaged_identity_is_named(tmp_path):
    noisy_trainer(tmp_path, max_steps=4).train()
    (tmp_path / "checkpoint-4" / "ltsam.json").write_text("{")
    (tmp_path / "checkpoint-4" / "manifest.json").unlink()  # which would name it
    with pytest.raises(ValueError, match=r"ltsam.json is damaged"):
        noisy_trainer(tmp_path).train(resume_from_checkpoint=True)


def half(progress):
    return 0.05 if progress < 0.5 else 0.1


def test_a_function_as_schedule_is_known_by_its_name(tmp_path):
    from hf_ltsam.methods import METHODS, SAM
    from hf_ltsam.runs.identity import describe

    assert describe(METHODS, SAM(rho=half))["args"]["rho"].endswith("test_resume.half")


def test_a_data_set_with_its_own_set_epoch_is_told(tmp_path):
    trainer = noisy_trainer(tmp_path, save_strategy="no")
    told = []
    trainer.train_dataset.set_epoch = told.append
    trainer.train()
    assert sorted(set(told)) == [0, 1, 2, 3]


def test_the_seed_of_the_data_alone_changes_the_noise(tmp_path):
    first, other = noisy_trainer(tmp_path, save_strategy="no"), noisy_trainer(tmp_path, save_strategy="no", data_seed=4)
    for trainer in (first, other):
        trainer.get_train_dataloader()
    assert not torch.equal(first.batch_loaders.keyed[0]["x"], other.batch_loaders.keyed[0]["x"])
