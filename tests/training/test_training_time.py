"""Seconds of a training that was interrupted are those of its parts, and a run that has ended keeps its number."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from training.test_runs_saved_by_training import rows, trainer
from transformers import TrainerCallback

from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.training import training_time

STEP = 100.0  # seconds


class Stops(TrainerCallback):
    """Every step takes `STEP` seconds of a made clock; an error ends the training after one of them."""

    def __init__(self, clock, at):
        self.clock, self.at = clock, at

    def on_step_end(self, args, state, control, **_):
        self.clock.seconds += STEP
        if state.global_step == self.at:
            raise KeyboardInterrupt


@pytest.fixture
def clock(monkeypatch):
    made = SimpleNamespace(seconds=5e6)
    monkeypatch.setattr(training_time, "time", SimpleNamespace(perf_counter=lambda: made.seconds))
    return made


def part(folder, clock, stop=None, resume=True, **settings):
    """One process of a training of five steps with a checkpoint after each of them, and its runtime."""
    made = trainer(folder, max_steps=5, save_steps=1, **settings)
    made.add_callback(Stops(clock, stop))
    try:
        return made.train(resume_from_checkpoint=resume or None).metrics["train_runtime"]
    except KeyboardInterrupt:
        return None


def test_parts_are_added_up_to_their_checkpoints(tmp_path, clock):
    folder = RunFolder(tmp_path)
    part(tmp_path, clock, stop=2, resume=False)  # the checkpoint of step 1 has its 100 s; step 2's was not written
    clock.seconds += 7000.0  # until somebody resumed it
    part(tmp_path, clock, stop=4)  # steps 2 and 3 are in checkpoint-3
    last = part(tmp_path, clock)
    record = folder.finished_record()
    assert record.resumed and record.timing["seconds_before"] == 3 * STEP
    assert record.train_seconds == record.timing["train_seconds"] == 3 * STEP + last
    assert json.loads((tmp_path / "checkpoint-5" / "training_time.json").read_text()) == {"train_seconds": 5 * STEP}


def test_a_new_training_counts_anew(tmp_path, clock):
    made = trainer(tmp_path, max_steps=2, save_steps=1)
    made.add_callback(Stops(clock, None))
    for _ in range(2):
        runtime = made.train().metrics["train_runtime"]
        record = RunFolder(tmp_path).finished_record()
        assert record.timing["train_seconds"] == record.train_seconds == runtime and not record.resumed
        assert json.loads((tmp_path / "checkpoint-2" / "training_time.json").read_text())["train_seconds"] == 2 * STEP


@pytest.mark.parametrize("timed", [True, False], ids=["a checkpoint with its time", "one of an older release"])
def test_a_finished_run_keeps_its_time(tmp_path, clock, timed):
    part(tmp_path, clock, resume=False)
    folder = RunFolder(tmp_path)
    before = replace(folder.finished_record(), hardware="1 x another card")
    assert before.timing.keys() == {"train_seconds", "seconds_per_step"}
    folder.write_record(before)
    for checkpoint in folder.checkpoints.values():
        if not timed:
            (checkpoint.path / "training_time.json").unlink()
            (checkpoint.path / "manifest.json").unlink()
    part(tmp_path, clock)  # no step is left
    after = folder.finished_record()
    assert (after.timing, after.resumed, after.hardware) == (before.timing, False, "1 x another card")


@pytest.mark.parametrize("timed", [True, False])
def test_killed_between_its_last_step_and_its_record(tmp_path, clock, timed):
    part(tmp_path, clock, resume=False)
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.json").unlink()
    if not timed:
        (tmp_path / "checkpoint-5" / "training_time.json").unlink()
        (tmp_path / "checkpoint-5" / "manifest.json").unlink()
    last, record = part(tmp_path, clock), folder.finished_record()
    assert record.resumed and record.train_seconds == (5 * STEP + last if timed else None)
    assert timed or record.timing == {}  # not the moment that no step took


def test_a_checkpoint_without_a_time_leaves_that_of_the_whole_unknown(tmp_path, clock):
    part(tmp_path, clock, stop=3, resume=False)
    for file in ("training_time.json", "manifest.json"):
        (tmp_path / "checkpoint-2" / file).unlink()
    last, record = part(tmp_path, clock), RunFolder(tmp_path).finished_record()
    assert record.train_seconds is None and record.timing["train_seconds"] == last
    assert not (tmp_path / "checkpoint-5" / "training_time.json").exists()


def test_other_weights_take_no_time_over(tmp_path, clock):
    """A test by hand of a model that was not trained here."""
    part(tmp_path, clock, resume=False)
    made = trainer(tmp_path, max_steps=5)
    made.save_run(rows((2, 2, 2)))  # the model at its start
    assert RunFolder(tmp_path).finished_record().timing == {}


def test_a_test_by_hand_keeps_the_time_of_the_training(tmp_path, clock):
    part(tmp_path, clock, resume=False)
    before = RunFolder(tmp_path).finished_record()
    again = trainer(tmp_path, max_steps=5)
    again.model.load_state_dict(type(again.model).from_pretrained(tmp_path).state_dict())
    again.save_run(rows((1, 1, 1)))  # another test
    after = RunFolder(tmp_path).finished_record()
    assert after.results != before.results and after.timing == before.timing
