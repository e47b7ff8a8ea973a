"""Trackers, where they are installed: telemetry and accuracies by group arrive beside the stock numbers."""

import json
import sqlite3

import pytest
from cli.picture_folders import draw_images

from hf_ltsam.cli import main as cli

EXPECTED = {"train/loss", "train/sam_eps_norm", "train/sam_sharpness_gap", "eval/balanced", "eval/few", "eval/accuracy"}
RUN = ["--model=cifar_resnet", "--depth=8", "--num_train_epochs=1", "--logging_steps=1", "--eval_strategy=epoch",
       "--save_strategy=no", "--run_name=mine", "--disable_tqdm=true", "--use_cpu=true"]  # fmt: skip


def tensorboard_names(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((folder / "run").rglob("events.*")).parent))
    events.Reload()
    return set(events.Tags()["scalars"])


def trackio_names(folder):
    (database,) = folder.glob("trackio/*.db")
    rows = sqlite3.connect(database).execute("select metrics from metrics").fetchall()
    return {name for (row,) in rows for name in json.loads(row)}


def wandb_names(folder):
    import wandb

    wandb.finish()
    text = next(folder.glob("wandb/offline-run-*/*.wandb")).read_bytes()
    return {name for name in EXPECTED if name.encode() in text}


NAMES = {"tensorboard": tensorboard_names, "trackio": trackio_names, "wandb": wandb_names}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", NAMES)
def test_a_tracker_is_given_telemetry_and_groups(tracker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip(tracker)  # Trackio reads its folder when it is imported
    draw_images(tmp_path / "data/train", (6, 4, 2), 12)
    draw_images(tmp_path / "data/test", (2, 2, 2), 12, seed=1)
    cli.main(["train", "--dataset=data", "--output_dir=run", f"--report_to={tracker}", *RUN])
    assert NAMES[tracker](tmp_path) >= EXPECTED
