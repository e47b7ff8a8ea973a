"""A data set repository on the Hub: trained on by its name, evaluated and predicted; private, gated, missing."""

import datasets
import pytest
from cli.picture_folders import CLASSES, draw_images
from datasets import Dataset
from hub_server import TOKEN, Repo
from huggingface_hub import HfFileSystem

from hf_ltsam import predict
from hf_ltsam.cli import main as cli
from hf_ltsam.runs.folder import RunFolder

REPO = "me/animals"
QUICK = "--model cifar_resnet --depth 8 --learning_rate 0.05 --max_steps 2 --use_cpu true --save_strategy no --disable_tqdm true"


@pytest.fixture
def repository(hub, tmp_path, monkeypatch):
    """Parquet files as `push_to_hub` names them: encoded images, and labels that are words."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    HfFileSystem.clear_instance_cache()
    files = {}
    for split, counts, seed in (("train", (12, 6, 3), 0), ("test", (4, 4, 4), 1)):
        draw_images(tmp_path / split, counts, 12, seed)
        rows = [
            {"image": {"bytes": file.read_bytes(), "path": None}, "species": file.parent.name}
            for file in sorted((tmp_path / split).rglob("*.png"))
        ]
        Dataset.from_list(rows).to_parquet(tmp_path / f"{split}.parquet")
        files[f"data/{split}-00000-of-00001.parquet"] = (tmp_path / f"{split}.parquet").read_bytes()
    repo = hub.repos["dataset", REPO] = Repo("dataset", REPO)
    repo.commit("first", files)
    yield repo
    HfFileSystem.clear_instance_cache()


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *words, *QUICK.split()])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
def test_trained_by_its_name_evaluated_and_predicted(repository, tmp_path, private):
    repository.private = private
    run = tmp_path / "run"
    cli.main(["train", "--dataset", REPO, "--output_dir", str(run), *QUICK.split()])
    saved = RunFolder(run)
    record = saved.finished_record()
    assert record.class_statistics["counts"] == [12, 6, 3] and record.hub["dataset"] == REPO
    assert saved.config["id2label"] == {str(c): name for c, name in enumerate(CLASSES)}
    cli.main(["evaluate", "--model", str(run), "--sets", REPO, "--use_cpu"])
    assert saved.evaluation["sets"][REPO]["result"]["overall"] == record.results["test"]["overall"]
    rows = predict(run, [tmp_path / "test.parquet"], use_cpu=True)
    assert [row.classes[0] for row in rows] == [CLASSES[c] for c in saved.predictions.predicted]


def test_what_cannot_be_reached_is_told_with_its_reason(repository, tmp_path, capsys, monkeypatch):
    out = ["--output_dir", str(tmp_path / "run")]
    said = refused(capsys, "--dataset", "me/nothing", *out)
    assert "--dataset me/nothing is neither a folder here nor a data set on the Hub that can be reached" in said
    repository.gated = True
    assert "gated" in (said := refused(capsys, "--dataset", REPO, *out)) and "ask for access" in said
    repository.gated, repository.private = False, True
    monkeypatch.setenv("HF_TOKEN", TOKEN[:-1])
    assert "hf auth login" in refused(capsys, "--dataset", REPO, *out)
