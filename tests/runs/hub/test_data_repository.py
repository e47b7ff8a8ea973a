"""A long-tailed data set on the Hub: several draws in one repository, none of which replaces another."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from copies import tiny_cifar10
from datasets import Dataset
from hub_server import Repo
from huggingface_hub import DatasetCard
from time_limits import PATIENCE

from dataset_builders import publish as module
from dataset_builders.publish import Draw, publish
from dataset_builders.sets.cifar_lt import load_cifar_lt
from dataset_builders.sources.published_set import Tail
from hf_ltsam.cli.main import main
from hf_ltsam.runs.hub import HubError

REPO = "me/cifar10-lt"
COUNTS = {
    "r4": [12, 10, 8, 7, 6, 5, 4, 4, 3, 3],
    "r2": [12, 11, 10, 9, 8, 8, 7, 6, 6, 6],
    "step_r3": [12] * 5 + [4] * 5,
}
TAILS = [Tail.named(name) for name in COUNTS]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return tiny_cifar10(tmp_path_factory.mktemp("copy"))


def push(copy, *tails):
    return publish([Draw("cifar10_lt", tail) for tail in tails], REPO, copy)


def test_a_second_ratio_is_pushed_beside_the_first(hub, copy, capsys, tmp_path):
    for ratio in ("4", "2"):
        main(["data", "push", "cifar10_lt", REPO, "--data_dir", str(copy), "--imbalance_ratio", ratio])
    assert capsys.readouterr().out.count("/datasets/" + REPO) == 2
    files = hub.files(REPO, "dataset")
    shards = [name for name in files if name.endswith(".parquet")]
    assert sorted(shards) == [
        f"{r}/{split}-00000-of-00001.parquet" for r in ("r2", "r4") for split in ("test", "train")
    ]
    file = tmp_path / "train.parquet"
    file.write_bytes(files["r4/train-00000-of-00001.parquet"])
    train = Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "hf"))
    assert np.bincount(train["label"]).tolist() == COUNTS["r4"]
    assert train.features["label"].names[0] == "airplane" and train[0]["img"].size == (32, 32)
    header = DatasetCard(files["README.md"].decode()).data
    configurations = {each["config_name"]: each for each in header["configs"]}
    assert set(configurations) == {"r2", "r4"} and [n for n, c in configurations.items() if c.get("default")] == ["r4"]
    assert {info["config_name"]: info["splits"][0]["num_examples"] for info in header["dataset_info"]} == {
        "r4": 62,
        "r2": 83,
    }
    assert header.pretty_name == "CIFAR-10-LT (r4, r2)" and "## Construction" in files["README.md"].decode()
    assert files["class_counts.png"].startswith(b"\x89PNG")
    board = yaml.safe_load(files["eval.yaml"])
    assert board["name"] == "CIFAR-10-LT (r4, r2)" and board["evaluation_framework"] == "hf_ltsam"
    assert {task["config"] for task in board["tasks"]} == {"r2", "r4"}


def test_a_repository_of_the_first_release_keeps_its_draw(hub, copy):
    """It was pushed as the configuration `default`, with a card that names the source."""
    first, configs = {}, {"config_name": "default", "data_files": []}
    for split, rows in load_cifar_lt(str(copy), 4).items():
        rows.to_parquet(shard := io.BytesIO())
        first[f"data/{split}-00000-of-00001.parquet"] = shard.getvalue()
        configs["data_files"].append({"split": str(split), "path": f"data/{split}-*"})
    header = {
        "source_datasets": ["uoft-cs/cifar10"],
        "pretty_name": "CIFAR-10-LT, imbalance ratio 4",
        "configs": [configs],
    }
    readme = f"---\n{yaml.safe_dump(header)}---\n# CIFAR-10-LT\n".encode()
    hub.repos["dataset", REPO] = Repo("dataset", REPO)
    hub.repo(REPO, "dataset").commit("first", {**first, "README.md": readme})
    push(copy, TAILS[1])
    files = hub.files(REPO, "dataset")
    assert all(files[name] == content for name, content in first.items())
    header = DatasetCard(files["README.md"].decode()).data
    assert [each["config_name"] for each in header["configs"]] == ["default", "r2"]
    assert not any(each.get("default") for each in header["configs"]), "the name `default` says it"


def test_what_somebody_else_pushed_meanwhile_is_not_lost(hub, copy, clock, monkeypatch):
    push(copy, TAILS[0])
    written = module.write_configurations

    def slowly(*arguments):
        monkeypatch.setattr(module, "write_configurations", written)
        push(copy, TAILS[1])
        written(*arguments)

    monkeypatch.setattr(module, "write_configurations", slowly)
    with pytest.raises(HubError, match="the Hub answers 412, somebody else has written there"):
        push(copy, TAILS[2])
    assert clock.slept == []
    push(copy, TAILS[2])
    header = DatasetCard(hub.files(REPO, "dataset")["README.md"].decode()).data
    assert sorted(each["config_name"] for each in header["configs"]) == sorted(COUNTS)


def test_a_hub_that_is_down_for_a_moment_is_tried_again_beside_what_is_there(hub, copy, clock):
    push(copy, TAILS[0])
    hub.fail("/commit/", 503)
    push(copy, TAILS[1])
    header = DatasetCard(hub.files(REPO, "dataset")["README.md"].decode()).data
    assert sorted(each["config_name"] for each in header["configs"]) == ["r2", "r4"] and len(clock.slept) == 1


def test_a_repository_of_another_data_set_is_refused(hub, copy):
    push(copy, TAILS[0])
    before = dict(hub.files(REPO, "dataset"))
    with pytest.raises(ValueError, match=r"me/cifar10-lt has a README.md of another data set \(source_datasets: "):
        publish([Draw("cifar100_lt")], REPO, copy)
    assert hub.files(REPO, "dataset") == before


# As the documentation of `datasets` says, in a process that knows nothing of this package.
FRESH = """
import sys
from datasets import load_dataset
repo, folder = sys.argv[1:]
for source, name, streaming in ((repo, "r4", False), (repo, "r2", True), (folder, "r2", False), (folder, "step_r3", True), (folder, None, True)):
    rows = load_dataset(source, name, split="train", streaming=streaming)
    print(name, [row["label"] for row in rows].count(0), sum(1 for _ in rows), next(iter(rows))["img"].size)
assert "hf_ltsam" not in sys.modules
"""


@pytest.mark.slow
def test_load_dataset_takes_repository_and_folder_in_a_fresh_process(hub, copy, tmp_path):
    push(copy, *TAILS[:2])
    folder = tmp_path / "folder"
    words = ["data", "write", "cifar10_lt", str(folder), "--data_dir", str(copy), "--configurations", *COUNTS]
    main(words)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, REPO, str(folder)],
        capture_output=True,
        text=True,
        env={**hub.environment(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{name} 12 {sum(COUNTS[shown])} (32, 32)"
        for name, shown in (("r4", "r4"), ("r2", "r2"), ("r2", "r2"), ("step_r3", "step_r3"), (None, "r4"))
    ]
