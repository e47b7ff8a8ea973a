"""Tables of people's own on the command line: found without options, held out, trained and tested on, names everywhere."""

import csv
import gzip
import json

import numpy as np
import pytest
from cli.picture_folders import CLASSES, draw_images
from cli.train.test_train_script import refused, words
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from text_models import save_encoder

from hf_ltsam.cli.evaluate.command import main as evaluate
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import load_splits, without_unreadable
from hf_ltsam.data.decoding import encoded_images
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.runs.folder import RunFolder


def load(place, *more):
    return load_splits(parse(["--dataset", str(place), "--use_cpu", "true", *more]).data)


@pytest.fixture
def table(tmp_path):
    """`labels.csv` of 12 cats, 6 dogs and 3 owls in images/, whose classes are in a column of the user's own name."""
    draw_images(tmp_path / "images", (12, 6, 3), 12)
    rows = [(f"images/{name}/{n}.png", name) for name, size in zip(CLASSES, (12, 6, 3)) for n in range(size)]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "species"), *rows])
    return tmp_path / "labels.csv"


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_table_of_paths(table, tmp_path, folder):
    splits = load(table.parent if folder else table, "--held_out_per_class", "2")
    assert splits.class_names == list(CLASSES) and splits.label_column == "species" and not splits.text_columns
    assert np.bincount(splits.train_labels).tolist() == [10, 4, 2]
    assert np.bincount(splits.test_labels).tolist() == [2, 2, 1]  # of three owls one, not two


@pytest.mark.parametrize("kind", ["class folders", "paths", "texts", "parquet"])
def test_half_of_a_rare_class_is_left_to_train_on(table, tmp_path, kind):
    place = {"class folders": tmp_path / "images", "paths": table}.get(kind, tmp_path / f"{kind}.csv")
    if kind == "parquet":
        place = tmp_path / "data"
        place.mkdir()
    rows = [{"text": f"a {n}", "species": name} for name, size in zip(CLASSES, (12, 6, 3)) for n in range(size)]
    if kind == "texts":
        Dataset.from_list(rows).to_csv(place)
    elif kind == "parquet":
        Dataset.from_list(rows).to_parquet(place / "train.parquet")
    with pytest.warns(UserWarning, match=r"held_out_per_class=5: at most half .*: 'dog' 3 of 6, 'owl' 1 of 3\.$"):
        splits = load(place, "--held_out_per_class", "5")
    assert np.bincount(splits.train_labels).tolist() == [7, 3, 2]
    assert np.bincount(splits.test_labels).tolist() == [5, 3, 1]


def test_trained_and_evaluated(table, tmp_path, capsys):
    out = tmp_path / "run"
    train.main(words(table, out, "--held_out_per_class", "1", "--max_steps", "1"))
    record = RunFolder(out).finished_record()
    assert record.data["task"] == "image" and record.samples == "images"
    evaluate(["--model", str(out), "--sets", str(table), "--output_dir", str(tmp_path / "e"), "--use_cpu"])
    result = json.loads((tmp_path / "e" / "ood_results.json").read_text())["sets"][str(table)]["result"]
    assert result["samples"] == 21 and len(result["per_class"]) == 3


def test_the_column_of_paths_may_be_named_whatever_it_is_called(images):
    """`file_name`, which becomes `image`, too."""
    (images / "train" / "metadata.csv").write_text("file_name,label\ncat/0.png,cat\nowl/1.png,owl\n")
    (images / "test" / "metadata.csv").write_text("file_name,label\ncat/3.png,cat\nowl/0.png,owl\n")
    arguments = parse(["--dataset", str(images), "--use_cpu", "true", "--image_column", "file_name"]).data
    assert len(encoded_images(load_splits(arguments).train, arguments.image_column)) == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl.gz", "parquet"])
def test_texts_of_every_kind_are_found_out(tmp_path, kind):
    rows = [{"review": f"a {n}", "title": "b", "class": name} for name in ("good", "bad") for n in range(4)]
    place = tmp_path / f"reviews.{kind}"
    if kind == "csv":
        with place.open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])
    elif kind == "parquet":
        Dataset.from_list(rows).to_parquet(place)
    else:
        place.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    splits = load(place, "--held_out_per_class", "1")
    assert splits.task == "text" and splits.text_columns == ("review",) and splits.class_names == ["bad", "good"]
    assert load(place, "--held_out_per_class", "1", "--text_column", "title").text_columns == ("title",)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_to_predict_are_told_from_classes(tmp_path, capsys, kind):
    rows = [{"text": f"a {n}", "label": n / 7 + 0.0015} for n in range(60)]
    place = tmp_path / "data"
    place.mkdir()
    for split in ("train", "test"):
        getattr(Dataset.from_list(rows), f"to_{kind}")(place / f"{split}.{kind}")
    message = refused(capsys, *words(place, tmp_path / "run", "--text_column", "text"))
    assert "regression, which `ltsam train` does not do" in message and "--label_column" in message
    assert "LTSamTrainer with 'model' as its loss" in message and "training set has not" not in message


def test_a_class_without_a_training_sample(tmp_path):
    """It is left out where nobody has it, and named where the test has."""
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    (tmp_path / "data").mkdir()
    for split, names in {"train": ["cat", "owl"] * 3, "test": ["cat", "emu", "owl", "emu"]}.items():
        rows = {"image": [image] * len(names), "label": names}
        Dataset.from_dict(rows, features=Features({"image": ImageColumn(), "label": Value("string")})).to_parquet(
            tmp_path / "data" / f"{split}.parquet"
        )
    with pytest.raises(ValueError, match=r"1 classes that the training set has not \('emu'; 2 of 4 rows\)"):
        load(tmp_path / "data")
    with pytest.warns(UserWarning, match="2 test samples of classes without training samples are left out: 'emu'"):
        splits = load(tmp_path / "data", "--only_known_classes", "true")
    assert splits.class_names == ["cat", "owl"] and splits.test_labels.tolist() == [0, 1]


def test_folders_of_classes_without_a_training_image(images, capsys, tmp_path):
    draw_images(images / "test" / "emu", (1, 1, 1), 12)
    (images / "test" / "emu" / "cat" / "0.png").rename(images / "test" / "emu" / "0.png")
    message = refused(capsys, *words(images, tmp_path / "run"))
    assert "classes with no training images: emu" in message and "--only_known_classes true leaves them out" in message
    assert load(images, "--only_known_classes", "true").class_names == list(CLASSES)


def test_a_class_whose_images_are_all_broken_is_named(images):
    for file in (images / "train" / "owl").iterdir():
        file.write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="3 of 21 training images are left out"),
        pytest.raises(ValueError, match="No training image of 'owl' can be read"),
    ):
        without_unreadable(load(images), DataArguments(), False)


REFUSED = [
    (
        [],
        "has no held-out images or texts, so nothing could be measured: there is 'train' alone. --held_out_per_class K",
    ),
    (["--held_out_per_class", "-1"], "--held_out_per_class -1: it cannot be negative."),
    (["--held_out_per_class", "1", "--label_column", "specie"], "no column 'specie'. Did you mean 'species'"),
    (["--held_out_per_class", "1", "--test_split", "dev"], "but the data set has the split 'dev' to test on"),
    (["--held_out_per_class", "1", "--image_column", "pth"], "The data set has no column 'pth'. Did you mean 'path'"),
    (
        ["--held_out_per_class", "1", "--model", "BERT"],
        "(bert) is no model of images, and the data are images: name another",
    ),
    (
        ["--held_out_per_class", "1", "--text_column", "species"],
        "has no texts in the column 'species'. It has no texts at all: leave --text_column out for images.",
    ),
]


@pytest.mark.parametrize(("more", "said"), REFUSED)
def test_what_is_refused(table, tmp_path, capsys, more, said):
    save_encoder(tmp_path / "bert")
    more = [str(tmp_path / "bert") if word == "BERT" else word for word in more]
    assert said in refused(capsys, *words(table, tmp_path / "run", *more))


def test_deep_images_of_several_channels(tmp_path, capsys):
    """16-bit stacks, their channels chosen; `ltsam evaluate` reads them as the training did."""
    for split in ("train", "test"):
        for place, name in enumerate(CLASSES):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            pages = [Image.fromarray(np.full((8, 8), 1000 * place + page, np.uint16)) for page in range(4)]
            pages[0].save(tmp_path / "data" / split / name / "0.tif", save_all=True, append_images=pages[1:])
    more = ["--rgb_channels", "3", "2", "1", "--pixel_range", "0", "4095", "--max_steps", "1"]
    train.main(words(tmp_path / "data", tmp_path / "run", *more))
    seen = Preprocessing.beside(tmp_path / "run").values
    assert seen.channels == (3, 2, 1) and seen.value_range == (0, 4095)
    evaluate(["--model", str(tmp_path / "run"), "--sets", str(tmp_path / "data"), "--use_cpu"])
    result = RunFolder(tmp_path / "run").evaluation["sets"][str(tmp_path / "data")]["result"]
    assert result["overall"] == RunFolder(tmp_path / "run").finished_record().results["test"]["overall"]
    message = refused(capsys, *words(tmp_path / "data", tmp_path / "b", "--rgb_channels", "0", "1", "7"))
    assert "it has the channels 0 to 3, and --rgb_channels asks for 7" in message
    message = refused(capsys, *words(tmp_path / "data", tmp_path / "c", "--rgb_channels", "0", "1"))
    assert "one channel, or three for red, green and blue" in message
