"""Every file of a checkpoint, removed, cut short or with one bit flipped: noticed and named, or without any effect."""

import json
import shutil

import pytest
import torch
from training.noisy_run import noisy_trainer
from training.test_killed import assert_same

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.training.checkpoint_folders import last_checkpoint, last_complete_checkpoint

FILES = (
    "class_statistics.json", "ltsam.json", "manifest.json", "method_memory.pt", "model.safetensors", "optimizer.pt",
    "rng_state.pth", "scheduler.pt", "trainer_state.json", "training_args.bin", "training_time.json",
    "weight_average.pt",
)  # fmt: skip
SETTINGS = {"method": "msam", "max_steps": 12, "swa_start": 0.3, "swa_interval": 1}


def removed(file):
    file.unlink()


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training with checkpoints after 4, 8 and 12 steps, that nobody disturbed."""
    trainer = noisy_trainer(tmp_path_factory.mktemp("whole"), **SETTINGS)
    trainer.train()
    return trainer


@pytest.fixture
def interrupted(whole, tmp_path):
    """The same after its eighth step."""
    for step in (4, 8):
        shutil.copytree(f"{whole.args.output_dir}/checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    return tmp_path


def test_these_are_all_files(whole):
    assert sorted(p.name for p in last_checkpoint(whole.args.output_dir).iterdir()) == sorted(FILES)


@pytest.mark.parametrize("damage", [removed, cut_short, flipped])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_or_without_effect(name, damage, interrupted, whole):
    checkpoint = interrupted / "checkpoint-8"
    damage(checkpoint / name)
    resumed = noisy_trainer(interrupted, **SETTINGS)
    try:
        resumed.train(resume_from_checkpoint=str(checkpoint))
    except ValueError as error:
        message = str(error)
        assert f"{checkpoint} cannot be resumed" in message and f"{name} " in message
        assert f"{interrupted / 'checkpoint-4'} is complete: resume from that one" in message
        assert last_complete_checkpoint(interrupted) == interrupted / "checkpoint-4"
        assert name not in HARMLESS.get(damage, ())
    else:
        assert name in HARMLESS[damage]
        assert_same(resumed.model.state_dict(), whole.model.state_dict())
        assert_same(resumed.optimizer.state_dict(), whole.optimizer.state_dict())


HARMLESS = {
    removed: {"training_args.bin", "manifest.json"},  # nothing reads the first; without the second nothing is compared
    cut_short: {"training_args.bin"},
    flipped: {"training_args.bin"},
}


def test_an_error_does_not_call_a_damaged_checkpoint_complete(interrupted):
    flipped(interrupted / "checkpoint-8" / "optimizer.pt")
    trainer = noisy_trainer(interrupted, **SETTINGS)
    trainer.training_step = None  # raises when it is called
    with pytest.raises(TypeError) as raised:
        trainer.train(resume_from_checkpoint=str(interrupted / "checkpoint-4"))
    note = (
        f"{interrupted / 'checkpoint-4'} is complete: resume_from_checkpoint='{interrupted / 'checkpoint-4'}' goes on"
    )
    assert raised.value.__notes__[0].startswith(note)


@pytest.mark.parametrize("parts", [("optimizer.pt",), ("scheduler.pt",), ("rng_state.pth",), ("model.safetensors",)])
def test_without_a_manifest_whole_parts_are_missed(parts, interrupted):
    """As the stock Trainer writes checkpoints."""
    for name in ("manifest.json", *parts):
        (interrupted / "checkpoint-8" / name).unlink()
    with pytest.raises(ValueError, match=r"cannot be resumed, the training would not go on as it was: .* is missing"):
        noisy_trainer(interrupted, **SETTINGS).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_without_a_manifest_a_file_cut_short_ends_in_one_message(name, interrupted):
    cut_short(interrupted / "checkpoint-8" / name)
    (interrupted / "checkpoint-8" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-8 (is damaged|cannot be resumed)") as raised:
        noisy_trainer(interrupted, **SETTINGS).train(resume_from_checkpoint=True)
    notes = getattr(raised.value, "__notes__", [])
    assert not [note for note in notes if "checkpoint-8 is complete" in note]


def test_weights_alone_are_refused_and_start_a_new_training(tmp_path):
    noisy_trainer(tmp_path / "run", max_steps=4, save_only_model=True).train()
    checkpoint = tmp_path / "run" / "checkpoint-4"
    with pytest.raises(ValueError, match=r"save_only_model=True leaves such parts out.*ltsam train --model "):
        noisy_trainer(tmp_path / "run").train(resume_from_checkpoint=True)
    assert last_complete_checkpoint(tmp_path / "run") is None and last_checkpoint(tmp_path / "run") == checkpoint


def test_a_file_that_was_edited_on_purpose(interrupted):
    state = interrupted / "checkpoint-8" / "trainer_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "logging_steps": 1}))
    with pytest.raises(ValueError, match=r"on purpose: delete manifest\.json there"):
        noisy_trainer(interrupted, **SETTINGS).train(resume_from_checkpoint=True)
    (interrupted / "checkpoint-8" / "manifest.json").unlink()
    noisy_trainer(interrupted, **SETTINGS).train(resume_from_checkpoint=True)


def test_what_is_added_to_a_checkpoint_does_no_harm(interrupted, whole):
    (interrupted / "checkpoint-8" / "evaluation").mkdir()
    (interrupted / "checkpoint-8" / "evaluation" / "ood_results.json").write_text("{}")
    resumed = noisy_trainer(interrupted, **SETTINGS)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize(
    ("fault", "name", "loads"),
    [
        (flipped, "model.safetensors", False),
        (removed, "optimizer.pt", True),  # as people delete it to save room
        (flipped, "rng_state.pth", True),
        (removed, "scheduler.pt", True),
    ],
)
def test_a_damaged_best_model_is_not_loaded(fault, name, loads, tmp_path, monkeypatch):
    from training.noisy_run import Noisy

    trainer = noisy_trainer(
        tmp_path, max_steps=8, eval_dataset=Noisy(), eval_strategy="steps", eval_steps=4, load_best_model_at_end=True,
    )  # fmt: skip
    load = type(trainer)._load_best_model

    def after_a_fault(self):
        fault(tmp_path / self.state.best_model_checkpoint / name)
        load(self)

    monkeypatch.setattr(type(trainer), "_load_best_model", after_a_fault)
    if loads:
        trainer.train()
        return
    with pytest.raises(ValueError, match=r"model.safetensors has other content .*load_best_model_at_end=False"):
        trainer.train()


OTHER_MODELS = [  # built on 3 classes: the one that was saved, the one that is resumed, what is said
    ({"depth": 8}, {"depth": 14}, "it has none of 30 tensors of this one, such as stages.0.1.conv1.weight"),
    ({"depth": 14}, {"depth": 8}, "Unexpected key"),
    ({"depth": 8}, {"depth": 8, "head": "cosine"}, 'Unexpected key.*"classifier.bias"'),
    ({"depth": 8, "head": "cosine"}, {"depth": 8}, "it has none of 1 tensors of this one, such as classifier.bias"),
    ({"depth": 8}, {"depth": 8, "num_channels": 1}, "size mismatch for conv.*weight"),
]


@pytest.mark.parametrize(("saved", "resumed", "said"), OTHER_MODELS)
def test_a_checkpoint_of_another_model_is_not_trained_on(saved, resumed, said, tmp_path):
    def trainer(**model):
        channels = model.get("num_channels", 3)
        data = [{"pixel_values": torch.zeros(channels, 8, 8), "labels": c} for c in (0, 0, 1, 2)]
        args = LTSamConfig(
            str(tmp_path),
            optim="sgd",
            optim_args="momentum=0.9",
            max_grad_norm=0.0,
            learning_rate=0.1,
            max_steps=1,
            save_steps=1,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        config = CifarResNetConfig(**{"num_labels": 3, **model})
        return LTSamTrainer(CifarResNetForImageClassification(config), args, train_dataset=data)

    trainer(**saved).train()
    with pytest.raises(ValueError, match=rf"checkpoint-1 is a checkpoint of another model: .*{said}") as refused:
        trainer(**resumed).train(resume_from_checkpoint=True)
    assert not getattr(refused.value, "__notes__", [])  # that it could be resumed, say


def test_another_number_of_processes_is_said(interrupted, caplog):
    folder = interrupted / "checkpoint-8"
    for rank in (0, 1):
        shutil.copy(folder / "rng_state.pth", folder / f"rng_state_{rank}.pth")
    for name in ("rng_state.pth", "manifest.json"):
        (folder / name).unlink()
    with caplog.at_level("WARNING"):
        noisy_trainer(interrupted, **SETTINGS).train(resume_from_checkpoint=True)
    assert "was saved by 2 process(es) and is resumed by 1" in caplog.text


def test_the_checksum_is_of_the_content(tmp_path):
    from hf_ltsam.runs.manifest import damage, write_manifest

    (tmp_path / "below").mkdir()
    torch.save(torch.arange(300_000), tmp_path / "below" / "large.pt")  # more than a block
    write_manifest(tmp_path)
    assert damage(tmp_path) == []
    content = bytearray((tmp_path / "below" / "large.pt").read_bytes())
    for place in (0, 2**20, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 128
        (tmp_path / "below" / "large.pt").write_bytes(changed)
        assert damage(tmp_path) == ["below/large.pt has other content than was written"]
