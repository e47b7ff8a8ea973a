"""`ltsam data`: which sets there are, what they look like, what may be published."""

import shlex
import shutil

import numpy as np
import pytest
import yaml
from cli.test_cli import run
from copies import ilsvrc, tiny_cifar10
from datasets import (
    ClassLabel,
    Dataset,
    DatasetInfo,
    Features,
    SplitDict,
    SplitInfo,
    get_dataset_config_names,
    load_dataset,
)
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from hub_server import TOKEN
from huggingface_hub import DatasetCardData
from PIL import Image

from dataset_builders import join_images, load_lists, load_long_tailed
from dataset_builders.catalogue import SETS, sets_of
from dataset_builders.publish import Draw, data_card, leaderboard
from dataset_builders.sets.cifar_lt import CIFAR10_NAMES
from dataset_builders.sources.published_set import ListedSet, Tail
from hf_ltsam import ClassStatistics
from hf_ltsam.cli.main import main
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.data_checks import check_data
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import load_splits
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
                "many 4 classes (more than 1,000) with 10,870",
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


def test_the_command_states_the_draw(capsys):
    _, out, _ = run(capsys, "data", "info", "cifar10_lt", "--imbalance_ratio", "7", "--profile", "step", "--seed", "1")
    draw = "--imbalance_ratio 7 --profile step --split_seed 1"
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
        (
            ("write", "cifar10_lt", "x", "--configurations", "r10", "--imbalance_ratio", "50"),
            "--imbalance_ratio and --configurations: a name says the whole draw",
        ),
        (("push", "cifar10_lt", "me/it", "--configurations", "r10", "--seed", "1"), "--seed and --configurations"),
        (
            ("info", "imagenet_lt", "--imbalance_ratio", "10"),
            "--imbalance_ratio is for cifar10_lt, cifar100_lt; imagenet_lt is",
        ),
        (("write", "places_lt", "x", "--configurations", "r10"), "--configurations is for cifar10_lt, cifar100_lt"),
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


def header(*configurations):
    """As it is after such draws were written."""
    part = Dataset.from_dict({"label": list(range(10))}, features=Features(label=ClassLabel(names=list(CIFAR10_NAMES))))
    splits = SplitDict()
    for split in ("train", "test"):
        splits.add(SplitInfo(split, num_examples=len(part)))
    data = DatasetCardData()
    files = [{"split": split, "path": f"{split}-*"} for split in ("train", "test")]
    MetadataConfigs({name: {"data_files": files} for name in configurations}).to_dataset_card_data(data)
    infos = {name: DatasetInfo(features=part.features, splits=splits) for name in configurations}
    DatasetInfosDict(infos).to_dataset_card_data(data)
    return data


def test_the_card_states_source_terms_construction_and_counts():
    text = str(data_card("cifar10_lt", header("r100"), "me/cifar10-lt"))
    for piece in ("license: unknown", "- uoft-cs/cifar10", "Krizhevsky 2009", "n_c = int(n_max (1/R)^(c / (C - 1)))", "| airplane | 5000 |",
                  "| truck | 50 |", "exponential, imbalance ratio 100, seed 0", FINGERPRINTS["cifar10_lt"],
                  'load_dataset("me/cifar10-lt", "r100", split=["train", "test"])', "| few | fewer than 200 | 3 | 272 |",
                  "class_counts.png", "@techreport{krizhevsky2009", "@inproceedings{cao2019", "The tail is artificial"):  # fmt: skip
        assert piece in text
    with pytest.raises(ValueError, match="may not be published"):
        Draw("places_lt")


def test_the_card_of_several_draws_has_them_side_by_side():
    text = str(data_card("cifar10_lt", header("r100", "step"), "me/cifar10-lt"))
    for piece in ("pretty_name: CIFAR-10-LT (r100, step)", "| airplane | 5000 | 5000 |", "| truck | 50 | 50 |", "| bird | 1796 | 5000 |",
                  "| r100 | exponential | 100 | 0 |", "| step | step | 100 | 0 |", f"- r100: `{FINGERPRINTS['cifar10_lt']}`"):  # fmt: skip
        assert piece in text


@pytest.mark.parametrize(
    ("tail", "name"),
    [
        (Tail(), "r100"),
        (Tail(10), "r10"),
        (Tail(12.5), "r12.5"),
        (Tail(profile="step"), "step"),
        (Tail(10, "step"), "step_r10"),
        (Tail(50, seed=3), "r50_seed3"),
        (Tail(200, "step", 1, 50), "step_r200_n50_seed1"),
    ],
)
def test_a_draw_and_the_name_of_its_configuration(tail, name):
    assert tail.configuration == name and Tail.named(name) == tail


@pytest.mark.parametrize(
    "name", ["", "default", "r", "rx", "100", "r0100", "r100_", "step_r100", "exponential", "r10_r20", "../r10", "R10"]
)
def test_other_names_are_no_draw(name):
    with pytest.raises(ValueError, match=r"names no draw: r10, r100, step"):
        Tail.named(name)


def load(folder, name, **how):
    return load_dataset(str(folder), name, cache_dir=str(folder.parent / "cache"), **how)


COUNTS = {
    "r2": [12, 11, 10, 9, 8, 8, 7, 6, 6, 6],
    "r4": [12, 10, 8, 7, 6, 5, 4, 4, 3, 3],
    "step_r3": [12] * 5 + [4] * 5,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three draws, in two commands."""
    place = tmp_path_factory.mktemp("written")
    folder, copy = place / "cifar10-lt", tiny_cifar10(place / "copy")
    main(["data", "write", "cifar10_lt", str(folder), "--data_dir", str(copy), "--imbalance_ratio", "4"])
    main(["data", "write", "cifar10_lt", str(folder), "--data_dir", str(copy), "--configurations", "r2", "step_r3"])
    return folder


def test_write_makes_a_folder_with_configurations_for_load_dataset(written):
    assert sorted(get_dataset_config_names(str(written))) == sorted(COUNTS)
    for name, counts in COUNTS.items():
        splits = load(written, name)
        assert np.bincount(splits["train"]["label"]).tolist() == counts and len(splits["test"]) == 120
        assert splits["train"].features["label"].names == list(CIFAR10_NAMES) and splits["train"][0]["img"].size == (
            32,
            32,
        )
        stream = load(written, name, streaming=True, split="train")
        assert np.bincount([row["label"] for row in stream]).tolist() == counts
    assert np.bincount(load(written, None, split="train")["label"]).tolist() == COUNTS["r4"], (
        "the first one stays the default"
    )


def test_a_written_folder_has_a_card_and_a_leaderboard(written):
    card = (written / "README.md").read_text()
    assert "pretty_name: CIFAR-10-LT (r4, r2, step_r3)" in card and 'load_dataset("path/to/cifar10-lt", "r4"' in card
    assert "| r2 | exponential | 2 | 0 | 88 |" not in card and str(written) not in card
    assert "| r4 | exponential | 4 | 0 | 62 | 5,000 and 1,250 | 120 |" in card
    assert (written / "class_counts.png").read_bytes().startswith(b"\x89PNG")
    tasks = yaml.safe_load((written / "eval.yaml").read_text())["tasks"]
    assert {"id": "accuracy", "config": "r4", "split": "test"} in tasks
    assert {"id": "step_r3_balanced_accuracy", "config": "step_r3", "split": "test"} in tasks
    assert len({task["id"] for task in tasks}) == len(tasks)


def test_a_draw_that_is_written_again_is_replaced_and_the_others_stay(written, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(written, folder)
    before = {name: (folder / name / "train-00000-of-00001.parquet").read_bytes() for name in COUNTS}
    main(
        [
            "data",
            "write",
            "cifar10_lt",
            str(folder),
            "--data_dir",
            str(tiny_cifar10(tmp_path / "copy", 8)),
            "--imbalance_ratio",
            "2",
        ]
    )
    after = {name: (folder / name / "train-00000-of-00001.parquet").read_bytes() for name in COUNTS}
    assert [name for name in COUNTS if before[name] != after[name]] == ["r2"]
    assert len(load(folder, "r2", split="test")) == 80 and len(load(folder, "r4", split="test")) == 120
    assert not list(folder.rglob("*.part"))


def test_the_training_script_takes_a_configuration_by_name(written):
    for name, counts in {**COUNTS, None: COUNTS["r4"]}.items():
        splits = load_splits(DataArguments(dataset=str(written), dataset_config_name=name))
        assert np.bincount(splits.train_labels).tolist() == counts
    with pytest.raises(ValueError, match=r"dataset_config_name='r3': .* has no such configuration\..*r2"):
        load_splits(DataArguments(dataset=str(written), dataset_config_name="r3"))
    with pytest.raises(
        ValueError, match=r"--dataset_config_name r2: images of --builder cifar10_lt have no configurations"
    ):
        check_data(DataArguments(dataset=str(written), dataset_config_name="r2", builder="cifar10_lt"))


def test_a_folder_of_something_else_is_left_alone(capsys, written, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    for words in (
        ("cifar10_lt", "--data_dir", str(tiny_cifar10(tmp_path / "copy"))),
        ("imagenet_lt", "--lists", str(ilsvrc(tmp_path) / "lists")),
    ):
        status, _, err = run(capsys, "data", "write", words[0], str(tmp_path), *words[1:])
        assert (
            status == 2
            and "has a README.md of another data set" in err
            and "Mine." in (tmp_path / "README.md").read_text()
        )
    status, _, err = run(capsys, "data", "write", "cifar100_lt", str(written))
    assert status == 2 and "source_datasets: ['uoft-cs/cifar10'], here ['uoft-cs/cifar100']" in err


def test_lists_that_are_not_there_are_named(capsys, tmp_path):
    lists = ilsvrc(tmp_path) / "lists"
    (lists / "ImageNet_LT_train.txt").unlink()
    with pytest.warns(UserWarning, match=r"imagenet_lt is written without train \(ImageNet_LT_train\.txt\).*lists"):
        status, out, _ = run(capsys, "data", "write", "imagenet_lt", str(tmp_path / "written"), "--lists", str(lists))
    assert status == 0 and "with imagenet_lt." in out


def test_a_draw_counts_once(monkeypatch):
    draw = Draw("cifar10_lt", Tail(imbalance_ratio=10))
    assert draw.statistics is draw.statistics and draw.fingerprint is draw.fingerprint
    assert draw == Draw("cifar10_lt", Tail(imbalance_ratio=10))


def test_lists_are_written_as_paths_and_labels_that_join_a_copy(capsys, tmp_path):
    copy = ilsvrc(tmp_path)
    folder = tmp_path / "lists-only"
    status, out, err = run(capsys, "data", "write", "imagenet_lt", str(folder), "--lists", str(copy / "lists"))
    assert status == 0, err
    assert "Written:" in out and "with imagenet_lt." in out
    rows = load(folder, "imagenet_lt")
    assert rows["train"].column_names == ["path", "label"] and rows["train"]["label"] == [0] * 4 + [1] * 2 + [2]
    listed = (copy / "lists" / "ImageNet_LT_train.txt").read_text().split("\n")
    assert [f"{row['path']} {row['label']}" for row in rows["train"]] == [line for line in listed if line]
    assert [row["path"] for row in load(folder, "imagenet_lt", split="test", streaming=True)] == list(
        rows["test"]["path"]
    )
    whole = load_long_tailed("imagenet_lt", copy, lists=copy / "lists", own_lists=True)
    joined = join_images(rows, "imagenet_lt", copy)
    for split in ("train", "test"):
        assert [image.tobytes() for image in joined[split]["image"]] == [
            image.tobytes() for image in whole[split]["image"]
        ]
    chosen = join_images(rows["train"].select([6, 0]), "imagenet_lt", copy)
    assert chosen.column_names == ["image", "path", "label"] and chosen["label"] == [2, 0]
    assert chosen[0]["image"].tobytes() == whole["train"][6]["image"].tobytes()
    assert (
        "join_images(rows" in (folder / "README.md").read_text()
        and "n01440764" not in (folder / "README.md").read_text()
    )


def test_what_cannot_be_joined_is_said(tmp_path):
    copy = ilsvrc(tmp_path)
    rows = load_lists("imagenet_lt", lists=copy / "lists", own_lists=True, splits=["train"])["train"]
    lost = next(copy.rglob(rows[0]["path"].rpartition("/")[2]))
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of the 7 images that the list names"):
        join_images(rows, "imagenet_lt", copy)
    with pytest.raises(ValueError, match="columns path and label, this has label"):
        join_images(rows.remove_columns("path"), "imagenet_lt", copy)
    with pytest.raises(ValueError, match="There is no data set 'cifar10_lt'"):
        join_images(rows, "cifar10_lt", copy)


def test_a_failing_push_is_told_in_words(capsys, monkeypatch):
    def failing(*_, **__):
        raise OSError(f"Client error for https://cdn.example/x?Signature=abc with {TOKEN}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("dataset_builders.publish.HfApi.repo_info", failing)
    status, _, err = run(capsys, "data", "push", "cifar10_lt", "me/x")
    assert status == 2 and "me/x was not uploaded: Client error for https://cdn.example/x with (secret)" in err


def test_the_leaderboard_has_the_tasks_that_a_model_reports():
    """What `ltsam push --benchmark` writes into .eval_results must be tasks of eval.yaml."""
    board = yaml.safe_load(leaderboard([Draw("cifar100_lt")]))
    plain = [METRICS[name][0] for name in ("overall", "balanced", "many", "medium", "few")]
    assert [task["id"] for task in board["tasks"]] == [*plain, *(f"r100_{name}" for name in plain)]
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
