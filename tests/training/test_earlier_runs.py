"""A second training in the folder of a run replaces it, as stock does; it says so first."""

import logging
import re
import shutil

import pytest
from training.test_runs_saved_by_training import rows, trainer
from transformers import Trainer, TrainerCallback

from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.training.results.saved_runs import NO_FOLDER

SAYS = "holds an earlier run"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    trainer(folder, method="sam", save_steps=1).train()
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")


class AtTheStart(TrainerCallback):
    """What the log says, and what is in the folder, when the first step begins."""

    def __init__(self, caplog, folder):
        self.caplog, self.folder = caplog, folder

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 0:
            self.said = self.caplog.text
            self.method = RunFolder(self.folder).finished_record().method["name"]


def test_what_is_there_and_the_way_out(folder, caplog):
    made = trainer(folder, method="sgd")
    seen = AtTheStart(caplog, folder)
    made.add_callback(seen)
    with caplog.at_level(logging.WARNING):
        assert made.train().global_step == 2
    assert caplog.text.count(SAYS) == 1 and SAYS in seen.said and seen.method == "sam"  # before anything is replaced
    assert re.search(rf"{re.escape(repr(str(folder)))} {SAYS} \(sam with cross_entropy, ended {TIME}\)", caplog.text)
    assert "another output_dir" in caplog.text and "resume_from_checkpoint=True" in caplog.text
    assert RunFolder(folder).finished_record().method["name"] == "sgd"  # as stock


def warned(made, caplog, **arguments):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        made.train(**arguments)
    return [r.getMessage() for r in caplog.records if SAYS in r.getMessage()]


def removed(*names):
    def remove(folder):
        for name in names:
            for file in folder.rglob(name):
                file.unlink()

    return remove


def without_checkpoints(folder):
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (removed("metrics.json"), rf"sam with cross_entropy, not ended, checkpoint-2 of {TIME}\)"),
        (removed("ltsam.json"), rf"\(ended {TIME}\)"),
        (lambda folder: (folder / "ltsam.json").write_text("{"), rf"\(ended {TIME}\)"),
        (without_checkpoints, rf"ended {TIME}\).*another output_dir\.$"),  # nothing to go on from
        (removed("metrics.json", "ltsam.json"), None),  # the stock Trainer's
    ],
    ids=["killed", "unnamed", "damaged", "weights alone", "stock"],
)
def test_what_an_earlier_run_has_left(folder, caplog, change, words):
    change(folder)
    said = warned(trainer(folder), caplog)
    assert (said == []) if words is None else (len(said) == 1 and re.search(words, said[0]))


def test_weights_without_results(folder, caplog):
    without_checkpoints(folder)
    (folder / "metrics.json").unlink()
    assert re.search(rf"sam with cross_entropy, saved {TIME}\)", *warned(trainer(folder), caplog))


@pytest.mark.parametrize(
    "others",
    [{"save_run": False}, {"save_strategy": "no"}, {"output_dir": NO_FOLDER}],
    ids=["not asked for", "nothing is written", "no folder"],
)
def test_no_word_where_no_run_is_meant(folder, caplog, monkeypatch, others):
    monkeypatch.chdir(folder.parent)
    folder.rename(folder.parent / others.get("output_dir", "run"))
    assert warned(trainer(**{"folder": folder, **others}), caplog) == []


def test_no_word_of_a_new_folder_a_resumed_run_or_another_process(folder, caplog, monkeypatch):
    assert warned(trainer(folder.parent / "new"), caplog) == []
    assert warned(trainer(folder, method="sam", save_steps=1), caplog, resume_from_checkpoint=True) == []
    with monkeypatch.context() as other:
        other.setattr(Trainer, "is_world_process_zero", lambda self: False)
        assert warned(trainer(folder), caplog) == []


def test_no_word_in_a_search(folder, caplog):
    pytest.importorskip("optuna")
    made = trainer(folder)
    made.model_init = lambda: trainer(folder).model
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        made.hyperparameter_search(
            lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 2e-3)}, n_trials=2
        )
    assert SAYS not in caplog.text


def test_a_cell_that_is_run_again(tmp_path, caplog):
    made = trainer(tmp_path / "run")
    assert warned(made, caplog) == []
    assert len(warned(made, caplog)) == 1 and made.evaluate(rows((1, 1, 1)))
