"""The trainer and the Hub: what `hub_strategy` sends, and that a Hub that fails costs neither training nor files."""

import json
import pickle
import threading
import time
import zipfile

import pytest
import torch
from hub_server import READ_ONLY, TOKEN
from safetensors.torch import load
from time_limits import PATIENCE
from transformers import TrainerCallback

import hf_ltsam.training.results.publishing as publishing
from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.runs.hub import HubError

LABELS = torch.tensor([0] * 8 + [1] * 3 + [2])
NAMES = {0: "cat", 1: "dog", 2: "owl"}


def data():
    pixels = torch.randint(0, 255, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return InMemoryImages(pixels, LABELS, [0.5] * 3, [0.2] * 3, augment=False)


def trainer(folder, kind=LTSamTrainer, **settings):
    torch.manual_seed(0)
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, width=2, num_labels=3, id2label=NAMES))
    args = {"output_dir": str(folder), "max_steps": 3, "save_strategy": "steps", "save_steps": 1, "use_cpu": True, "report_to": "none",
            "optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.0, "learning_rate": 0.1, "disable_tqdm": True, "per_device_train_batch_size": 12, "method": "sam", "logging_strategy": "no"}  # fmt: skip
    return kind(model, LTSamConfig(**{**args, **settings}), train_dataset=data())


def published(folder, **settings):
    return trainer(folder, push_to_hub=True, hub_model_id="me/run", **settings)


def weights(hub, name="me/run", path="model.safetensors"):
    return load(hub.files(name)[path])


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_push_to_hub_after_a_training(hub, tmp_path):
    run = trainer(tmp_path / "run", save_strategy="no")
    run.train()
    commit = run.push_to_hub(license="mit", tags=["owls"])
    files = hub.files("me/run")
    assert set(files) == {
        "README.md",
        "class_counts.png",
        "class_statistics.json",
        "config.json",
        "ltsam.json",
        "model.safetensors",
    }
    assert same(weights(hub), run.model.state_dict()) and commit.commit_url.startswith(hub.endpoint)
    assert json.loads(files["class_statistics.json"])["counts"] == [8, 3, 1]
    card = files["README.md"].decode()
    assert "license: mit" in card and "- owls" in card and "G(1, rho unit(G(1)))" in card
    assert "## Results" not in card and "model-index" not in card  # nothing was measured, nothing is claimed
    assert hub.messages == ["End of training"]
    assert (tmp_path / "run" / "training_args.bin").is_file() and "training_args.bin" not in files


def test_what_transformers_scripts_say_of_a_model(hub, tmp_path):
    """All that the stock `push_to_hub` and `create_model_card` take; its example scripts pass most of it."""
    run = trainer(tmp_path / "run", save_strategy="no")
    run.model.model_tags = ["of-the-model"]
    words = {"language": "en", "license": "mit", "tags": "owls", "model_name": "Owls", "finetuned_from": "me/start",
             "tasks": ["image-classification", "other-task"], "dataset_tags": "me/owls", "dataset": ["Owls at night", "More"],
             "dataset_args": ["large"]}  # fmt: skip
    run.push_to_hub(**words)
    card = hub.files("me/run")["README.md"].decode()
    for part in ("language: en", "- owls", "- of-the-model", "# Owls", "base_model: me/start", "- me/owls", "- other-task",
                 "pipeline_tag: image-classification", "Trained on Owls at night (large), More."):  # fmt: skip
        assert part in card
    run.create_model_card(*words.values())  # in transformers' order
    assert (tmp_path / "run" / "README.md").read_text() == card.replace("- of-the-model\n", "").replace(
        "- owls\n", "- owls\n"
    )


def test_overrides_are_called_where_the_stock_trainer_calls_them(hub, tmp_path):
    called = []

    class Mine(LTSamTrainer):
        def init_hf_repo(self, token=None, private=None):
            called.append("init_hf_repo")
            super().init_hf_repo(token, private)

        def push_to_hub(self, *args, **kwargs):
            called.append("push_to_hub")
            return super().push_to_hub(*args, **kwargs)

        def create_model_card(self, model_name=None, license=None):
            called.append((model_name, license))
            (tmp_path / "run" / "README.md").write_text(f"---\nlicense: {license}\n---\n# {model_name}, by me")

    run = trainer(tmp_path / "run", Mine, push_to_hub=True, save_strategy="no")
    run.save_model()
    run.push_to_hub(license="mit")
    assert called == ["init_hf_repo", "push_to_hub", ("run", None), "push_to_hub", ("run", "mit")]
    assert hub.files("me/run")["README.md"] == b"---\nlicense: mit\n---\n# run, by me"


def test_every_save_is_uploaded_while_the_training_goes_on(hub, tmp_path):
    run = published(tmp_path, hub_strategy="every_save", hub_always_push=True)
    run.train()
    assert hub.messages == [f"Training in progress, step {k}" for k in (1, 2, 3)]
    assert same(weights(hub), run.model.state_dict())
    assert {p.partition("/")[0] for p in hub.files("me/run")} == {
        "README.md", "class_counts.png", "class_statistics.json", "config.json", "ltsam.json", "model.safetensors"
    }  # fmt: skip
    first = hub.repo("me/run").commits[0][2]["model.safetensors"]
    assert not same(load(first.read_bytes()), run.model.state_dict())
    assert not (tmp_path / ".hub_uploads").exists()


def test_the_default_strategy_and_the_end(hub, tmp_path):
    published(tmp_path / "a").train()
    assert hub.messages and hub.messages[-1] == "Training in progress, step 3"
    hub.messages.clear()
    run = trainer(tmp_path / "b", push_to_hub=True, hub_model_id="me/b", hub_strategy="end")
    run.train()
    assert not hub.messages
    run.save_model()
    assert hub.messages == ["Model save"] and same(weights(hub, "me/b"), run.model.state_dict())


def test_the_last_checkpoint_can_be_resumed_from_the_hub(hub, tmp_path):
    run = published(tmp_path / "a", hub_strategy="checkpoint", max_steps=4, save_steps=2)
    run.train()
    files = {path: content for path, content in hub.files("me/run").items() if path.startswith("last-checkpoint/")}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {
        path.partition("/")[2] for path in files
    }
    assert json.loads(files["last-checkpoint/trainer_state.json"])["global_step"] == 4
    assert "last-checkpoint/training_args.bin" not in files  # a pickle of settings: not needed, and nobody's business
    folder = tmp_path / "pulled"
    folder.mkdir()
    for path, content in files.items():
        (folder / path.partition("/")[2]).write_bytes(content)
    longer = [trainer(tmp_path / name, max_steps=6, save_strategy="no") for name in "bc"]
    longer[0].train(resume_from_checkpoint=str(folder))
    longer[1].train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    assert same(longer[0].model.state_dict(), longer[1].model.state_dict())


def test_all_checkpoints_with_a_limit_on_what_is_kept(hub, tmp_path, monkeypatch):
    """The upload of a checkpoint that is taken away meanwhile still finds its files."""
    trained = threading.Event()

    class AtTheEnd(TrainerCallback):
        def on_train_end(self, *_, **__):
            trained.set()

    send = publishing.send
    monkeypatch.setattr(publishing, "send", lambda upload, token: trained.wait(PATIENCE) and send(upload, token))
    run = published(tmp_path, hub_strategy="all_checkpoints", save_total_limit=1)
    run.add_callback(AtTheEnd())
    run.train()
    assert {path.partition("/")[0] for path in hub.files("me/run") if "/" in path} == {
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-3",
    }
    assert [f.name for f in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


def test_other_processes_leave_the_files_of_an_upload_alone(hub, tmp_path):
    """All processes of a training share its folder; one of them sends what is in it."""

    class Second(LTSamTrainer):
        def is_world_process_zero(self):
            return False

    staged = tmp_path / ".hub_uploads" / "step-1" / "config.json"
    staged.parent.mkdir(parents=True)
    staged.write_text("{}")
    run = trainer(tmp_path, Second, push_to_hub=True, hub_model_id="me/run", hub_strategy="all_checkpoints")
    run.train()
    run.push_to_hub()
    assert staged.is_file() and not hub.requests


# ---- a Hub that fails ----


def test_a_failing_hub_neither_stops_nor_changes_the_training(hub, tmp_path, caplog):
    quiet = trainer(tmp_path / "quiet")
    quiet.train()
    run = published(tmp_path / "run")
    hub.fail("/api/", 500, times=10**6)
    started = time.monotonic()
    run.train()
    assert time.monotonic() - started < PATIENCE and same(run.model.state_dict(), quiet.model.state_dict())
    here, there = ({f.name for f in (tmp_path / name).glob("checkpoint-*/*")} for name in ("run", "quiet"))
    assert here == there and not hub.messages
    with pytest.raises(HubError, match=r"500, it has a failure of its own.*`ltsam push .*run me/run` tries again"):
        run.push_to_hub()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    run.save_model()  # asked for the model, not for the Hub: a warning
    hub.faults.clear()
    run.push_to_hub()
    assert same(weights(hub), run.model.state_dict())


def test_uploads_are_finished_after_every_callback(hub, tmp_path, monkeypatch):
    """One that was added later may take its time, or push something of its own; the uploads go on meanwhile."""
    events = []

    class Late(TrainerCallback):
        def on_train_end(self, *_, **__):
            events.append("callback")

    finish = publishing.HubTrainer.finish_uploads
    monkeypatch.setattr(publishing.HubTrainer, "finish_uploads", lambda self: events.append("uploads") or finish(self))
    run = published(tmp_path)
    run.add_callback(Late())
    run.train()
    assert events == ["callback", "uploads"]
    assert hub.messages[-1] == "Training in progress, step 3"


def test_what_has_failed_is_sent_at_the_end(hub, tmp_path):
    run = published(tmp_path, max_steps=1)
    hub.fail("/commit/", 500, times=3)  # all tries of the first upload
    run.train()
    assert hub.messages == ["Training in progress, step 1"] and same(weights(hub), run.model.state_dict())


def test_a_file_that_is_gone_is_named_with_the_repository(hub, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(
        publishing, "checkpoint_files", lambda staged, path: {f"{path}/gone.json": staged / "gone.json"}
    )
    published(tmp_path, hub_strategy="checkpoint", max_steps=1).train()
    assert "me/run was not uploaded: " in caplog.text and "gone.json" in caplog.text


def test_a_hub_that_never_answers_is_not_waited_for(hub, tmp_path, monkeypatch):
    run = published(tmp_path)
    monkeypatch.setattr(publishing, "END_PATIENCE", 0.5)
    hub.fail("preupload", delay=2 * PATIENCE, times=99)
    started = time.monotonic()
    run.train()
    assert time.monotonic() - started < PATIENCE and run.state.global_step == 3 and not hub.messages
    hub.faults.clear()
    hub.released.set()
    assert run._uploads.wait(PATIENCE) and hub.messages  # what hung is sent after all: the process still lives


def test_the_hub_is_not_there_yet_when_the_training_starts(hub, tmp_path):
    hub.fail("repos/create", 503, times=1)
    run = published(tmp_path, max_steps=1, hub_private_repo=True, hub_revision="trial")
    run.train()
    assert same(weights(hub), run.model.state_dict())
    assert hub.repo("me/run").private and hub.asked("/commit/trial")  # also when it is made later


def test_a_hub_that_hangs_at_the_start(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "START_PATIENCE", 0.2)
    hub.fail("repos/create", delay=2 * PATIENCE)
    started = time.monotonic()
    run = published(tmp_path, max_steps=1)
    assert time.monotonic() - started < PATIENCE
    hub.released.set()
    run.train()
    assert hub.messages


def test_a_token_that_may_not_write_is_refused_before_the_training(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READ_ONLY)
    with pytest.raises(HubError, match="403, the token may not write there"):
        published(tmp_path)


def test_nothing_about_an_upload_ends_the_training(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "card_files", lambda *_: 1 / 0)
    run = published(tmp_path)
    run.train()
    assert run.state.global_step == 3 and not hub.messages


def test_without_matplotlib_there_is_no_figure(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_ltsam.runs.card.card.find_spec", lambda _: None)
    run = trainer(tmp_path / "run", save_strategy="no")
    run.push_to_hub()
    assert "class_counts.png" not in hub.files("me/run") and b"class_counts.png" not in hub.files("me/run")["README.md"]


def test_what_a_killed_run_has_left_is_cleared_away(hub, tmp_path):
    (tmp_path / ".hub_uploads" / "step-1").mkdir(parents=True)
    published(tmp_path)
    assert not (tmp_path / ".hub_uploads").exists()


def test_a_run_of_one_seed_is_named_after_its_experiment(hub, tmp_path):
    trainer(tmp_path / "mine" / "seed3", push_to_hub=True)
    trainer(tmp_path / "other", push_to_hub=True)
    assert {name for _, name in hub.repos} == {"me/mine-seed3", "me/other"}


def test_offline(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"push_to_hub=True needs the Hub, but HF_HUB_OFFLINE=1"):
        published(tmp_path / "a")
    run = trainer(tmp_path / "b")
    run.train()
    run.create_model_card()
    assert "# b" in (tmp_path / "b" / "README.md").read_text()
    with pytest.raises(HubError, match=r"push_to_hub\(\) needs the Hub"):
        run.push_to_hub()
    assert not hub.requests


# ---- secrets and strangers ----


def test_the_token_is_nowhere(hub, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("HF_TOKEN")
    run = published(
        tmp_path, hub_token=TOKEN, hub_strategy="checkpoint", max_steps=1, logging_strategy="steps", logging_steps=1
    )
    run.train()
    run.push_to_hub()
    run.create_model_card()
    secret = TOKEN.encode()
    for content in hub.files("me/run").values():
        assert secret not in content
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or secret not in _unpacked(file)
    assert TOKEN not in "".join(capfd.readouterr()) and TOKEN not in repr(run.args)
    assert run.args.hub_token == TOKEN  # it still works, for the next push
    assert pickle.loads(pickle.dumps(run.args)).hub_token is None


def _unpacked(file):
    if zipfile.is_zipfile(file):  # torch.save's
        with zipfile.ZipFile(file) as archive:
            return b"".join(archive.read(name) for name in archive.namelist())
    return file.read_bytes()


def test_results_of_other_weights_are_not_claimed(hub, tmp_path):
    """A training in the folder of an earlier one leaves its metrics.json there."""
    from hf_ltsam.runs.folder import RunFolder
    from hf_ltsam.runs.record import RunRecord, split_results

    run = trainer(tmp_path, save_strategy="no")
    run.train()
    run.save_model()
    statistics = run.class_statistics
    results = {"test": split_results(torch.eye(3), [0, 1, 2], statistics)}
    identity = run.identity()
    record = RunRecord(
        0,
        identity["method"],
        identity["loss"],
        statistics.to_dict(),
        results,
        weights_sha256=RunFolder(tmp_path).weights_sha256,
    )
    RunFolder(tmp_path).write_record(record)
    run.push_to_hub()
    assert "## Results" in hub.files("me/" + tmp_path.name)["README.md"].decode()
    run.train()
    run.push_to_hub()
    assert "## Results" not in hub.files("me/" + tmp_path.name)["README.md"].decode()
