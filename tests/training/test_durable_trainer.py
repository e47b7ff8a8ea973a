"""`DurableTrainer` without anything else of this library: a stock model, loss and `TrainingArguments`."""

import inspect
import signal

import pytest
import torch
from torch import nn
from training.killed_runs import log, run
from training.noisy_run import Noisy
from training.plain_run import FORWARD, train, trainer
from transformers import Trainer, TrainingArguments

import hf_ltsam
from hf_ltsam import DurableTrainer, LTSamConfig, LTSamTrainer, SamTrainerMixin
from hf_ltsam.training.checkpoint_folders import CheckpointError, load_tensors
from hf_ltsam.training.durable_trainer import CheckpointedCallback
from hf_ltsam.training.folder_lock import FILE_NAME
from hf_ltsam.training.weight_averaging import WeightAveraging


def assert_same(a, b):
    for (name, x), y in zip(a.items(), b.items(), strict=True):
        assert name == y[0] and torch.equal(x, y[1]), name


@pytest.fixture
def one_thread():
    """As the runs that are killed have: bit for bit needs the same number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_killed_and_resumed_it_is_the_stock_trainer_uninterrupted(tmp_path, one_thread):
    """AdamW, the stock loss, gradient clipping; no subclass, no setting of this library."""
    folder = tmp_path / "killed"
    for death in [(FORWARD, 7), (FORWARD, 6), ("torch.save", 2)]:  # in steps 7 and 4 + 6, and while writing
        assert run(folder, death, target=train) == [-signal.SIGKILL], log(folder)
    assert run(folder, None, target=train) == [0], log(folder)
    stock = trainer(tmp_path / "stock", Trainer)
    stock.train()
    assert_same(torch.load(folder / "weights.pt", weights_only=True), stock.model.state_dict())


@pytest.mark.parametrize("workers", [0, 2])
def test_random_augmentation_resumes(workers, tmp_path):
    settings = {"data": Noisy(), "dataloader_num_workers": workers}
    whole, resumed = trainer(tmp_path, **settings), trainer(tmp_path, **settings)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))  # in mid-epoch
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


def test_the_stock_trainer_does_not_resume_random_augmentation(tmp_path):
    """Guards the test above: else there would be no need of a `DurableTrainer`."""
    whole, resumed = (trainer(tmp_path, Trainer, Noisy()) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    weights = [made.model.body[0].weight for made in (whole, resumed)]
    assert not torch.equal(*weights)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    from hf_ltsam.training import checkpoint_folders

    put_in_place, calls = checkpoint_folders.put_in_place, []

    def full_the_second_time(written, name):
        calls.append(name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        put_in_place(written, name)

    monkeypatch.setattr("hf_ltsam.training.durable_trainer.put_in_place", full_the_second_time)
    with pytest.raises(CheckpointError, match=r"checkpoint-8 could not be written.*checkpoint-4 is complete") as error:
        trainer(tmp_path).train()
    assert "resume_from_checkpoint=True goes on" in error.value.__notes__[0]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_the_folder_is_locked_while_it_trains(tmp_path):
    class Look(CheckpointedCallback):
        def save_state(self, folder, args):
            self.seen = sorted(path.name for path in tmp_path.iterdir())

        def load_state(self, folder, args, model):
            pass

    look = Look()
    trainer(tmp_path, callbacks=[look], max_steps=4).train()
    assert look.seen == [FILE_NAME, "_writing"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


class Counter(CheckpointedCallback):
    """Counts steps, in a file of its own."""

    def __init__(self):
        self.steps, self.loaded = None, []

    def on_step_end(self, args, state, control, **_):
        self.steps += 1

    def save_state(self, folder, args):
        torch.save(self.steps, folder / "counter.pt")

    def load_state(self, folder, args, model):
        self.loaded.append((folder, model))
        self.steps = torch.zeros(()) if folder is None else load_tensors(folder / "counter.pt", args.device)


def test_callbacks_are_saved_and_resumed(tmp_path):
    first, second = Counter(), Counter()
    trainer(tmp_path, callbacks=[first], max_steps=8).train()
    made = trainer(tmp_path, callbacks=[second], max_steps=10)
    made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert (first.steps, second.steps) == (8, 10)
    assert second.loaded == [(tmp_path / "checkpoint-4", made.model)]
    made.train()
    assert second.steps == 10, "a training that begins anew counts from zero"


def test_without_states_where_only_the_model_is_saved(tmp_path):
    trainer(tmp_path, callbacks=[Counter()], max_steps=4, save_only_model=True).train()
    assert not (tmp_path / "checkpoint-4" / "counter.pt").exists()


def test_averaged_weights_resume(tmp_path):
    def made():
        return trainer(tmp_path, data=Noisy(), callbacks=[WeightAveraging(0.25, interval=2)])

    whole, resumed = made(), made()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-16"))
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


def test_the_stock_upload_of_a_checkpoint_waits_for_its_name(tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(folder))
    made = trainer(tmp_path, max_steps=4)
    made.args.push_to_hub = True
    made.train()
    assert pushed == [str(tmp_path / "checkpoint-4")]


def test_it_is_public_and_takes_what_the_stock_trainer_takes():
    assert "DurableTrainer" in hf_ltsam.__all__
    assert inspect.signature(DurableTrainer) == inspect.signature(Trainer)


class Packed(nn.Linear):
    """As bitsandbytes' Linear4bit: in evaluation mode on a CPU it repacks its weights, unless it is told not to."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.support_avx512bf16_for_cpu = True


class SamPlainTrainer(SamTrainerMixin, Trainer):
    pass


@pytest.mark.parametrize("made_by", ["model", "model_init"])
@pytest.mark.parametrize("kind", [DurableTrainer, LTSamTrainer, SamPlainTrainer])
def test_weights_of_four_bits_stay_as_they_are_in_an_evaluation(kind, made_by, tmp_path):
    def make():
        return nn.Sequential(Packed(4, 3))

    given = {"model": make()} if made_by == "model" else {"model_init": make}
    settings = (LTSamConfig if kind is LTSamTrainer else TrainingArguments)(
        str(tmp_path), use_cpu=True, report_to="none"
    )
    rows = [{"input": torch.eye(4)[c], "labels": c} for c in (0, 0, 1, 2)]
    made = kind(args=settings, train_dataset=rows, **given)
    assert made.model[0].support_avx512bf16_for_cpu is False
    if made_by == "model_init":
        assert made.call_model_init()[0].support_avx512bf16_for_cpu is False  # of each training anew
