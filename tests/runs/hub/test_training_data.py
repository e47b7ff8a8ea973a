"""A data set repository on the Hub: trained on by its name, at a revision, evaluated and predicted; private, gated, missing."""

import json

import datasets
import huggingface_hub.constants as constants
import numpy as np
import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from datasets import Dataset, load_dataset
from hub_server import TOKEN, Repo
from huggingface_hub import HfFileSystem

from dataset_builders.configurations import load_configuration
from dataset_builders.hub import RevisionError
from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer, predict
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.corrupt import corrupt_dataset
from hf_ltsam.cli.evaluate.sets import Places, find_sets
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.runs.card import Stated, model_card, read_facts
from hf_ltsam.runs.card.metadata import METRICS, eval_results, leaderboard_entries
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.record import hub_commit

REPO = "me/animals"
QUICK = "--model cifar_resnet --depth 8 --learning_rate 0.05 --max_steps 2 --use_cpu true --save_strategy no --disable_tqdm true"


@pytest.fixture
def repository(hub, tmp_path, monkeypatch):
    """Parquet files as `push_to_hub` names them: encoded images, and labels that are words."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    HfFileSystem.clear_instance_cache()
    repo = hub.repos["dataset", REPO] = Repo("dataset", REPO)
    repo.tags["v1"] = repo.commit("first", parquet_files(tmp_path, (12, 6, 3)))
    yield repo
    HfFileSystem.clear_instance_cache()


def parquet_files(folder, training_counts, seed=0):
    files = {}
    for split, counts, of_split in (("train", training_counts, seed), ("test", (4, 4, 4), seed + 1)):
        draw_images(folder / split, counts, 12, of_split)
        rows = [
            {"image": {"bytes": file.read_bytes(), "path": None}, "species": file.parent.name}
            for file in sorted((folder / split).rglob("*.png"))
        ]
        Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
        files[f"data/{split}-00000-of-00001.parquet"] = (folder / f"{split}.parquet").read_bytes()
    return files


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
    assert "--dataset me/nothing is neither a file or folder here nor a data set on the Hub that can be reached" in said
    repository.gated = True
    assert "gated" in (said := refused(capsys, "--dataset", REPO, *out)) and "ask for access" in said
    repository.gated, repository.private = False, True
    monkeypatch.setenv("HF_TOKEN", TOKEN[:-1])
    assert "hf auth login" in refused(capsys, "--dataset", REPO, *out)


# A second commit of the same data set has other training and test images, and more of the rarest class.


CONFIGURATIONS = b"""---
configs:
- config_name: whole
  default: true
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
- config_name: training
  data_files:
  - {split: train, path: data/train-*}
---
"""


@pytest.fixture
def moved(repository, tmp_path):
    """The data set after another commit: v1 is the first one, main the second."""
    repository.commit("second", parquet_files(tmp_path / "second", (12, 6, 5), seed=7) | {"README.md": CONFIGURATIONS})
    return repository


def train(out, *words):
    cli.main(["train", "--dataset", REPO, "--output_dir", str(out), *words, *QUICK.split()])
    return RunFolder(out)


def test_everything_that_opens_a_run_again_has_the_data_of_its_training(moved, tmp_path):
    first, second = (commit for commit, *_ in moved.commits)
    saved = train(tmp_path / "run", "--dataset_revision", "v1")
    record = saved.finished_record()
    assert record.class_statistics["counts"] == [12, 6, 3]
    assert record.hub == {"dataset": REPO, "dataset_commit": first} and record.data["dataset_revision"] == "v1"
    assert saved.recipe.settings["dataset_revision"] == "v1"

    moved.tags["v1"] = second  # a tag may move, the training's data do not
    assert open_run(saved.path).run.data.dataset_revision == first
    assert open_run(saved.path).statistics.counts == open_run(saved.path, REPO).statistics.counts == (12, 6, 3)
    with pytest.raises(ValueError, match=r"The data have changed since the training"):
        open_run(saved.path, f"{REPO}@main")
    cli.main(["decouple", str(saved.path), "--second_stage", "tau_norm", "--use_cpu", "true"])
    stage = RunFolder(tmp_path / "run_tau_norm").finished_record()
    assert stage.hub == record.hub and stage.class_statistics["counts"] == [12, 6, 3]


def test_a_run_without_a_revision_goes_on_with_the_commit_of_its_training(repository, tmp_path):
    saved = train(tmp_path / "run")
    first = repository.head
    assert saved.finished_record().hub["dataset_commit"] == first
    repository.commit("second", parquet_files(tmp_path / "second", (12, 6, 5), seed=7))
    assert open_run(saved.path).statistics.counts == (12, 6, 3)

    local = tmp_path / "local"  # a copy of the data, in the place of the Hub
    local.mkdir()
    for split in ("train", "test"):
        (local / f"{split}.parquet").write_bytes((tmp_path / f"{split}.parquet").read_bytes())
    assert open_run(saved.path, str(local)).run.data.dataset_revision is None


@pytest.mark.parametrize("words", ["--dataset me/animals@v1", "--dataset_revision v1", "--dataset me/animals@COMMIT"])
def test_a_second_stage_is_shown_the_version_of_a_run_that_recorded_no_commit(repository, tmp_path, capsys, words):
    saved, first = train(tmp_path / "run"), repository.head
    record = json.loads((saved.path / "metrics.json").read_text())
    del record["hub"]["dataset_commit"]
    (saved.path / "metrics.json").write_text(json.dumps(record))
    repository.commit("second", parquet_files(tmp_path / "second", (12, 6, 5), seed=7))
    stage = ["decouple", str(saved.path), "--second_stage", "tau_norm", "--use_cpu", "true"]
    for other in ([], ["--dataset", f"{REPO}@main"]):
        with pytest.raises(SystemExit):
            cli.main([*stage, *other])
        assert "The data have changed since the training" in capsys.readouterr().err
    cli.main([*stage, *words.replace("COMMIT", first).split()])
    record = RunFolder(tmp_path / "run_tau_norm").finished_record()
    assert record.hub == {"dataset": REPO, "dataset_commit": first} and record.class_statistics["counts"] == [12, 6, 3]
    assert open_run(tmp_path / "run_tau_norm").statistics.counts == (12, 6, 3)


@pytest.mark.parametrize(
    ("revision", "total"),
    [(None, 23), ("main", 23), ("v1", 21), (0, 21), (1, 23)],
    ids=["none", "main", "v1", "0", "1"],
)
def test_branches_tags_and_commits(moved, revision, total):
    """A number: the id of that commit."""
    revision = moved.commits[revision][0] if isinstance(revision, int) else revision
    assert len(load_configuration(REPO, dataset_revision=revision)["train"]) == total
    word = REPO if revision is None else f"{REPO}@{revision}"
    (test_set,) = find_sets([word], Places(), ("train",))
    assert test_set.source == word and len(test_set.load()) == total
    if total == 23:
        assert list(load_configuration(REPO, "training", revision)) == ["train"]
        return
    with pytest.raises(ValueError, match=r"dataset_config_name='training': me/animals has no such configuration"):
        load_configuration(REPO, "training", revision)


def test_sets_at_two_revisions_are_two_sets(moved, tmp_path):
    run = train(tmp_path / "run", "--dataset_revision", "v1")
    names = [f"{REPO}@v1", f"{REPO}@main"]
    cli.main(["evaluate", "--model", str(run.path), "--sets", *names, "--use_cpu"])
    old, new = (run.evaluation["sets"][name]["result"] for name in names)
    assert old["overall"] == run.finished_record().results["test"]["overall"] and old["ece"] != new["ece"]
    facts, commit = read_facts(run.path, run.evaluation), moved.commits[0][0]
    link = f"[commit {commit[:7]}](https://huggingface.co/datasets/{REPO}/tree/{commit})"
    card = str(model_card(facts, "me/model", Stated()))
    assert f"([on the Hub](https://huggingface.co/datasets/{REPO}), revision `v1`, {link})" in card
    entries = eval_results(facts, Stated())
    seen = {(e.dataset_type, e.dataset_revision) for e in entries}
    assert seen == {(REPO, commit), (REPO, "v1"), (REPO, "main")}
    assert leaderboard_entries(facts, "me/model", Stated()).count(f"revision: {commit}") == len(METRICS)
    assert "revision" not in leaderboard_entries(facts, "me/model", Stated(benchmark="you/birds"))
    moved.tags["v1"] = moved.commits[1][0]  # what was measured before is not what the tag names now
    cli.main(["evaluate", "--model", str(run.path), "--sets", names[0], "--use_cpu"])
    again = RunFolder(run.path).evaluation["sets"][names[0]]["result"]
    assert again["ece"] == new["ece"] and again["identity"]["commit"] == moved.commits[1][0]
    cli.main(["calibrate", str(run.path), f"{REPO}@main", "--split", "test", "--use_cpu"])
    assert run.calibration.source == f"{REPO}@main (test)"


def test_a_run_in_python_records_the_commit_of_its_rows(moved, tmp_path):
    rows = load_dataset(REPO, revision="v1", split="train").class_encode_column("species")
    for same in (
        rows,
        rows.select([2, 0]),
        rows.map(lambda row: {"more": 1}),
        rows.cast_column("image", datasets.Image()),
    ):
        assert hub_commit(same, REPO) == moved.commits[0][0]
    assert hub_commit(rows, "you/animals") is None and hub_commit([1, 2], REPO) is None
    assert hub_commit(Dataset.from_dict({"x": [1]}), REPO) is None

    def pixels(of):
        images = [torch.tensor(np.array(image)).permute(2, 0, 1) / 255 for image in of["image"]]
        return {"pixel_values": images, "labels": of["labels"]}

    train = rows.cast_column("image", datasets.Image()).rename_column("species", "labels").with_transform(pixels)
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3))
    args = LTSamConfig(str(tmp_path / "run"), use_cpu=True, max_steps=1, remove_unused_columns=False, disable_tqdm=True)
    trainer = LTSamTrainer(model, args, train_dataset=train, eval_dataset=train.select([0, 1]))
    trainer.train()
    said = rf"save_run\(dataset='{REPO}@v1'\): .* dataset='{REPO}', dataset_revision='v1'\."
    with pytest.raises(ValueError, match=said):  # no command could load it again
        trainer.save_run(dataset=f"{REPO}@v1", label_column="species")
    record = trainer.save_run(dataset=REPO, dataset_revision="v1", label_column="species")
    assert record.hub == {"dataset": REPO, "dataset_commit": moved.commits[0][0]}
    assert record.data["dataset_revision"] == "v1" and open_run(tmp_path / "run").statistics.counts == (12, 6, 3)


def test_a_revision_that_is_not_there_is_told_before_a_model_is_made(moved, tmp_path, capsys):
    out = ["--output_dir", str(tmp_path / "run")]
    said = refused(capsys, "--dataset", REPO, "--dataset_revision", "v2", *out)
    assert f"--dataset {REPO} --dataset_revision v2: the data set has no branch, tag or commit 'v2'." in said
    assert "Did you mean 'v1'? Valid: main, v1." in said and not (tmp_path / "run").exists()
    with pytest.raises(FileNotFoundError, match=rf"--sets {REPO}@v2: the data set has no branch, tag or commit 'v2'"):
        find_sets([f"{REPO}@v2"], Places())[0].load()
    with pytest.raises(
        FileNotFoundError, match=rf"--dataset {REPO}@v2: the data set has no branch, tag or commit 'v2'"
    ):
        corrupt_dataset(f"{REPO}@v2", tmp_path / "corrupted")
    said = refused(capsys, "--dataset", f"{REPO}@v1", *out)
    assert f"the revision has an option of its own: --dataset {REPO} --dataset_revision v1." in said
    said = refused(capsys, "--dataset", str(tmp_path / "train"), "--dataset_revision", "v1", *out)
    assert "--dataset_revision v1: --dataset" in said and "only data sets on the Hub have revisions" in said
    assert "--dataset_revision is empty" in refused(capsys, "--dataset", REPO, "--dataset_revision", " ", *out)


def test_without_the_hub_the_copy_of_a_revision_is_taken_and_no_other(moved, tmp_path, monkeypatch):
    """`datasets` takes its newest copy then, whichever revision is asked for."""
    first, second = (commit for commit, *_ in moved.commits)
    assert len(load_configuration(REPO, dataset_revision="v1")["train"]) == 21

    def offline(of):
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", of)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", of)

    offline(True)
    for revision in (None, "v1", first):
        assert len(load_configuration(REPO, dataset_revision=revision)["train"]) == 21
    for revision in ("main", second):
        with pytest.raises(RevisionError, match=rf"cannot be reached, .* known to be '{revision}'.* commits {first}"):
            load_configuration(REPO, dataset_revision=revision)
    offline(False)
    assert len(load_configuration(REPO, "whole")["train"]) == len(load_configuration(REPO, "training", "main")["train"])
    offline(True)
    assert (
        list(load_configuration(REPO, "training")) == ["train"]
        and len(load_configuration(REPO, "whole")["train"]) == 23
    )
    for revision in ("main", second):
        assert list(load_configuration(REPO, "training", revision)) == ["train"]
    offline(False)
    moved.commit("third", parquet_files(tmp_path / "third", (12, 6, 9), seed=3))  # of one configuration, as the first
    assert len(load_configuration(REPO, dataset_revision="main")["train"]) == 27
    offline(True)
    for revision, total in ((None, 27), ("main", 27), ("v1", 21), (first, 21)):
        rows = load_configuration(REPO, dataset_revision=revision)["train"]
        assert len(rows) == total and hub_commit(rows, REPO) == (first if total == 21 else moved.head)
    with pytest.raises(ValueError, match=r"(?s)Couldn't find cache for me/animals for config 'other'.*'whole'"):
        load_configuration(REPO, "other")
