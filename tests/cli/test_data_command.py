"""`ltsam data`: which sets there are, what they look like, what may be published."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
import yaml
from cli.test_cli import run
from copies import ilsvrc
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from hub_server import TOKEN, HubServer
from PIL import Image
from time_limits import PATIENCE

from dataset_builders.catalogue import SETS, sets_of
from dataset_builders.publish import Draw, data_card, leaderboard
from dataset_builders.sets.cifar_lt import CIFAR10_NAMES
from dataset_builders.sources.published_set import ListedSet
from hf_ltsam import ClassStatistics
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import check_data, load_splits
from hf_ltsam.runs.card.metadata import METRICS
from hf_ltsam.runs.class_frequencies import text_curve


def test_list_names_every_set(capsys):
    status, out, _ = run(capsys, "data", "list")
    assert status == 0
    for name in (
        "cifar10_lt",
        "cifar100_lt",
        "imagenet_lt",
        "inaturalist2018",
        "places_lt",
        "imagenet_sketch",
        "imagenetv2",
        "imagenet_c",
    ):
        assert any(line.split()[:1] == [name] for line in out.splitlines())


FINGERPRINTS = {
    "cifar10_lt": "8a54f5b6fa9722952358bc99897aa969bc20f845d0b15034e5013337df1e4ec7",
    "cifar100_lt": "f123ec136d44ab1b224fe55bb8a73ab03432d25a81975af68f26fb6777d5aca8",
    "imagenet_lt": "efdbdad4f050237c310b2f354cf95a8b1d7c8d57a63c4ea4bb6bf2bcb012f37f",
}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "cifar10_lt",
            [
                "12,406 of 10 classes, 5,000 down to 50",
                "imbalance ratio 100",
                "many 4 classes (more than 1000) with 10,870",
            ],
        ),
        ("cifar100_lt", ["10,847 of 100 classes, 500 down to 5", "few 30 classes (fewer than 20) with 305 images"]),
        (
            "imagenet_lt",
            ["115,846 of 1,000 classes, 1,280 down to 5", "imbalance ratio 256", "many 385", "medium 479", "few 136"],
        ),
        (
            "inaturalist2018",
            ["437,513 of 8,142 classes", "imbalance ratio 500", "many 842", "medium 4,076", "few 3,224"],
        ),
        ("places_lt", ["62,500 of 365 classes", "imbalance ratio 996", "many 131", "medium 163", "few 71"]),
    ],
)
def test_info(capsys, tmp_path, name, lines):
    figure = tmp_path / "figures" / "curve.png"
    status, out, err = run(capsys, "data", "info", name, "--figure", str(figure))
    assert status == 0, err
    flat = " ".join(out.split())
    assert all(line in flat for line in lines) and FINGERPRINTS.get(name, "fingerprint") in out
    assert SETS[name].terms in out and "█" in out
    with Image.open(figure) as picture:
        assert picture.width > 500 and len(set(picture.convert("L").tobytes())) > 3


def test_info_of_another_draw_of_own_lists_and_of_a_test_set(capsys, tmp_path):
    _, out, _ = run(
        capsys, "data", "info", "cifar100_lt", "--imbalance_ratio", "10", "--profile", "step", "--seed", "1"
    )
    assert "27,500 of 100 classes, 500 down to 50" in out and FINGERPRINTS["cifar100_lt"] not in out
    lists = ilsvrc(tmp_path) / "lists"
    _, out, _ = run(capsys, "data", "info", "imagenet_lt", "--lists", str(lists))
    assert "7 of 3 classes, 4 down to 1" in out
    status, out, _ = run(capsys, "data", "info", "imagenet_c")
    assert status == 0 and "corruption/severity/wnid" in out and "fingerprint" not in out


@pytest.mark.parametrize("name", SETS)
def test_info_ends_with_commands_that_use_the_set(capsys, name):
    _, out, _ = run(capsys, "data", "info", name)
    is_training_set = "training images" in out
    assert ("images per class, most frequent first" in out) == is_training_set
    words = shlex.split(next(line for line in out.splitlines() if " ltsam " in line).partition(" ltsam ")[2])
    if is_training_set:
        arguments = parse(words[1:]).data
        check_data(arguments)
        assert arguments.builder == name
        assert run(capsys, *shlex.split(out.splitlines()[-1].partition(" ltsam ")[2]))[0] == 0, "recipes"
    else:
        assert words == ["evaluate", "--model", "RUN", "--sets", name, "--data_dir", f"{name}=FOLDER"]


def test_the_command_states_the_draw_and_its_groups(capsys):
    _, out, _ = run(capsys, "data", "info", "cifar10_lt", "--imbalance_ratio", "7", "--profile", "step", "--seed", "1")
    draw = "--imbalance_ratio 7 --profile step --split_seed 1 --many_above 1000 --few_below 200"
    assert f"ltsam train --builder cifar10_lt --dataset uoft-cs/cifar10 {draw}\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "imagnet_lt"), "There is no data set 'imagnet_lt'. Did you mean 'imagenet_lt'"),
        (
            ("info", "cifar10_lt", "--lists", "x"),
            f"--lists is for {', '.join(sets_of(ListedSet))}; cifar10_lt has no list",
        ),
        (("info", "imagenetv2", "--figure", "x.png"), "imagenetv2 is a test set and has no training images"),
        (("push", "imagenet_lt", "me/it"), "ImageNet-LT may not be published: ImageNet's terms of access"),
        (("push", "inaturalist2018", "me/it"), "iNaturalist 2018 may not be published: The organisers' terms"),
        (("push", "imagenet_c", "me/it"), "Can be published: cifar10_lt, cifar100_lt"),
        (("info", "cifar10_lt", "--imbalance_ratio", "0.5"), "imbalance_ratio"),
    ],
)
def test_refusals(capsys, words, message):
    status, _, err = run(capsys, "data", *words)
    assert status == 2 and message in err and "Traceback" not in err


def test_the_curve_falls_and_is_logarithmic():
    counts = tuple(int(1000 * 10 ** (-3 * c / 29)) for c in range(30))
    lines = text_curve(ClassStatistics(tuple(reversed(counts))), width=30, height=4).splitlines()
    heights = [sum(" ▁▂▃▄▅▆▇█".index(line[c]) for line in lines) for c in range(30)]
    assert heights == sorted(heights, reverse=True) and heights[0] == 32
    assert heights[10] == pytest.approx(32 * np.log(counts[10] + 1) / np.log(1001), abs=1)
    assert lines[0].endswith(" 1,000") and lines[-1].endswith(" 1")
    assert max(map(len, text_curve(ClassStatistics((5,) * 2000)).splitlines())) < 80


def tiny_cifar10(folder, per_class=12):
    """CIFAR-10's Parquet files with few images."""
    labels = [c for c in range(10) for _ in range(per_class)]
    images = [Image.new("RGB", (32, 32), (c * 20, k, 0)) for c in range(10) for k in range(per_class)]
    features = Features(img=ImageFeature(), label=ClassLabel(names=list(CIFAR10_NAMES)))
    for split in ("train", "test"):
        Dataset.from_dict({"img": images, "label": labels}, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def test_the_card_states_source_terms_construction_and_counts():
    part = Dataset.from_dict({"label": list(range(10))}, features=Features(label=ClassLabel(names=list(CIFAR10_NAMES))))
    text = str(data_card(Draw("cifar10_lt"), DatasetDict(train=part, test=part), "me/cifar10-lt"))
    for piece in ("license: unknown", "- uoft-cs/cifar10", "Krizhevsky 2009", "n_c = int(n_max (1/R)^(c / (C - 1)))", "| airplane | 5000 |",
                  "| truck | 50 |", "exponential, R = 100, seed 0", FINGERPRINTS["cifar10_lt"],
                  'load_dataset("me/cifar10-lt", split=["train", "test"])', "| few | fewer than 200 | 3 | 272 |", "class_counts.png",
                  "@techreport{krizhevsky2009", "@inproceedings{cao2019", "The tail is artificial"):  # fmt: skip
        assert piece in text
    with pytest.raises(ValueError, match="may not be published"):
        Draw("places_lt")


@pytest.mark.slow
def test_push_writes_shards_and_card(tmp_path):
    """The real client against a server that speaks the Hub's few endpoints."""
    folder = tiny_cifar10(tmp_path / "cifar")
    with HubServer() as hub:
        words = ["data", "push", "cifar10_lt", "me/cifar10-lt", "--data_dir", str(folder), "--imbalance_ratio", "4"]
        code = "import sys; from hf_ltsam.cli.main import main; main(sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            env=hub.environment(tmp_path),
            timeout=PATIENCE,
        )
        files = hub.files("me/cifar10-lt", "dataset") if done.returncode == 0 else {}
    assert done.returncode == 0, done.stderr
    assert "/datasets/me/cifar10-lt" in done.stdout
    shards = [name for name in files if name.endswith(".parquet")]
    assert sorted(name.split("-")[0] for name in shards) == ["data/test", "data/train"]
    for name in shards:
        (tmp_path / name.rpartition("/")[2]).write_bytes(files[name])
    train = Dataset.from_parquet(str(next(tmp_path.glob("train-*.parquet"))), cache_dir=str(tmp_path / "hf"))
    assert np.bincount(train["label"]).tolist() == [12, 10, 8, 7, 6, 5, 4, 4, 3, 3]
    assert train.features["label"].names[0] == "airplane" and train[0]["img"].size == (32, 32)
    card = files["README.md"].decode()
    assert (
        "dataset_info" in card and "pretty_name: CIFAR-10-LT, imbalance ratio 4" in card and "## Construction" in card
    )
    assert files["class_counts.png"].startswith(b"\x89PNG")
    board = yaml.safe_load(files["eval.yaml"])
    assert board["name"] == "CIFAR-10-LT, imbalance ratio 4" and board["evaluation_framework"] == "hf_ltsam"
    assert [task["id"] for task in board["tasks"]] == [
        "accuracy",
        "balanced_accuracy",
        "accuracy_many",
    ]  # 5,000 down to 1,250
    assert all(task["config"] == "default" and task["split"] == "test" for task in board["tasks"])


def test_a_failing_push_is_told_in_words(capsys, monkeypatch):
    class Splits:
        def push_to_hub(self, *_, **__):
            raise OSError(f"Client error for https://cdn.example/x?Signature=abc with {TOKEN}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("dataset_builders.publish.DrawnSet.load", lambda *_, **__: Splits())
    status, _, err = run(capsys, "data", "push", "cifar10_lt", "me/x")
    assert status == 2 and "me/x was not uploaded: Client error for https://cdn.example/x with (secret)" in err


def test_the_leaderboard_has_the_tasks_that_a_model_reports():
    """What `ltsam push --benchmark` writes into .eval_results must be tasks of eval.yaml."""
    board = yaml.safe_load(leaderboard(Draw("cifar100_lt")))
    assert [task["id"] for task in board["tasks"]] == [
        METRICS[name][0] for name in ("overall", "balanced", "many", "medium", "few")
    ]
    assert "many above 100, medium 20 to 100, few below 20" in board["description"]


# ---- the training script ----


def test_the_training_script_reaches_a_set_by_name(tmp_path):
    copy = ilsvrc(tmp_path)
    (copy / "lists" / "ImageNet_LT_val.txt").write_text("train/n01440764/missing.JPEG 0\n")  # not a split of the run
    arguments = DataArguments(dataset=str(copy), builder="imagenet_lt", lists=str(copy / "lists"), own_lists=True)
    check_data(arguments)
    splits = load_splits(arguments)
    assert splits.train_labels.tolist() == [0] * 4 + [1] * 2 + [2] and splits.test_labels.tolist() == [0, 1, 2]
    assert splits.class_names == ["tench", "goldfish", "great white shark"]


def test_options_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--imbalance_ratio: the long tail of places_lt is that of its published list"):
        check_data(DataArguments(dataset=str(tmp_path), builder="places_lt", imbalance_ratio=100))
    with pytest.raises(ValueError, match=r"--lists and --own_lists are for --builder imagenet_lt.*, not image_folder"):
        check_data(DataArguments(dataset=str(tmp_path), builder="image_folder", lists="x"))
