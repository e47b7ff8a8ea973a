"""Label columns of the command line's data sets, and class names that meet there."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from cli.train.test_train_script import refused, words
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from training.own_losses import text_classifier
from transformers import AutoConfig, ViTConfig, ViTForImageClassification

from dataset_builders.folders import load_image_folder
from hf_ltsam.cli.evaluate.classes import labels_of, match_classes
from hf_ltsam.cli.evaluate.sets import Places, find_sets
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.data import TrainingData, _digests, warn_of_copies
from hf_ltsam.cli.train.model import build_model, build_text_model
from hf_ltsam.cli.train.saved_run import SavedRun
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import Splits, load_splits
from hf_ltsam.cli.train.train import build_trainer
from hf_ltsam.losses import CrossEntropy
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.training.refusals.problem import check_problem_type

PIXELS = np.zeros((8, 8, 3), dtype=np.uint8)
NUMBERS, WORDS, NAMES = Value("int64"), Value("string"), ClassLabel(names=list(CLASSES))


def parquet(folder, column="label", **splits):
    """`parquet(folder, train=(values, feature))`: a file for each split."""
    folder.mkdir()
    for split, (values, feature) in splits.items():
        rows = {"image": [PIXELS] * len(values), column: values, **({"b": values} if column == "a" else {})}
        features = {name: feature if name != "image" else ImageColumn() for name in rows}
        Dataset.from_dict(rows, features=Features(features)).to_parquet(folder / f"{split}-00000.parquet")
    return folder


def tiny_vit(id2label):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return ViTConfig(**sizes, image_size=8, patch_size=8, id2label=id2label)


def load(folder, *more):
    return load_splits(parse(["--dataset", str(folder), "--use_cpu", "true", *more]).data)


AS_BYTES = [pyarrow.binary(), pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})]


@pytest.mark.parametrize("kind", AS_BYTES, ids=str)
def test_images_that_other_programs_encoded(tmp_path, kind):
    """pandas and pyarrow write what `datasets` writes, without its word that it is images."""
    encoded = io.BytesIO()
    Image.fromarray(PIXELS).save(encoded, "PNG")
    image = encoded.getvalue() if pyarrow.types.is_binary(kind) else {"bytes": encoded.getvalue(), "path": None}
    for split in ("train", "test"):
        rows = pyarrow.table({"image": pyarrow.array([image] * 3, kind), "label": ["cat", "dog", "owl"]})
        pyarrow.parquet.write_table(rows, tmp_path / f"{split}.parquet")
    splits = load(tmp_path)
    assert splits.train[0]["image"].size == (8, 8) and splits.class_names == ["cat", "dog", "owl"]
    (found,) = find_sets([str(tmp_path)], Places())
    assert found.load()[0]["image"].size == (8, 8)


@pytest.mark.filterwarnings("ignore:3 of 6 classes have no training sample and are left out")
@pytest.mark.parametrize(
    "column, more", [("label", []), ("labels", []), ("kind", []), ("kind", ["--label_column", "kind"])]
)
@pytest.mark.parametrize(
    ("feature", "values", "names"),
    [
        (NUMBERS, [0, 1, 2, 0], ["0", "1", "2"]),
        (WORDS, ["cat", "dog", "owl", "cat"], [*CLASSES]),
        (NAMES, [0, 1, 2, 0], [*CLASSES]),
        (NUMBERS, [7, 19, 104, 7], ["7", "19", "104"]),
        (ClassLabel(names=["ant", "cat", "bee", "dog", "owl", "yak"]), [1, 3, 4, 1], [*CLASSES]),
    ],
)
def test_numbers_and_words_are_classes(tmp_path, column, more, feature, values, names):
    folder = parquet(tmp_path / "data", column, train=(values, feature), test=(values[::-1], feature))
    splits = load(folder, *more)
    assert splits.class_names == names and splits.label_column == column
    assert splits.train_labels.tolist() == [0, 1, 2, 0] and splits.test_labels.tolist() == [0, 2, 1, 0]
    assert splits.train.features[column].names == splits.test.features[column].names == names


@pytest.mark.parametrize(
    ("column", "train", "test", "more", "said"),
    [
        (
            "a",
            ([0, 1], NUMBERS),
            ([0, 1], NUMBERS),
            [],
            ["no column of classes among image, a, b", "--label_column"],
        ),
        (
            "label",
            ([0, 1], NUMBERS),
            ([0, 2], NUMBERS),
            [],
            ["classes that the training set has not ('2'; 1 of 2 rows)"],
        ),
        (
            "label",
            (["cat", "dog"], WORDS),
            (["cat", "emu"], WORDS),
            [],
            [
                "the training set has not ('emu'; 1 of 2 rows): its classes are 'cat', 'dog'",
                "--only_known_classes true leaves",
            ],
        ),
        (
            "label",
            ([0.5, 1], Value("float32")),
            ([0, 1], Value("float32")),
            [],
            ["classes are names or whole numbers"],
        ),
        ("label", (["cat", None, "dog"], WORDS), (["cat"], WORDS), [], ["1 missing labels, the first in row 1:"]),
        ("label", ([0, 1], NUMBERS), ([0, 1], NUMBERS), ["--label_column", "lable"], ["no column 'lable'", "'label'"]),
    ],
)
def test_what_is_no_column_of_classes(tmp_path, capsys, column, train, test, more, said):
    folder = parquet(tmp_path / "data", column, train=train, test=test)
    message = refused(capsys, *words(folder, tmp_path / "run", *more))
    assert all(part in message for part in said)


def test_files_encoded_apart_are_refused(tmp_path, capsys):
    other = ClassLabel(names=["dog", "cat", "owl"])
    folder = parquet(tmp_path / "data", train=([0, 1, 2], NAMES), test=([0, 1, 2], other))
    message = refused(capsys, *words(folder, tmp_path / "run"))
    assert "class 0 of the column 'label' is 'cat' in" in message and "'dog' in" in message and "train-00000" in message
    (test_set,) = find_sets([str(folder)], Places())
    assert labels_of(test_set.load(), CLASSES, "set")[1] == ("dog", "cat", "owl")  # the test file alone, by name
    parts = parquet(tmp_path / "parts", **{"test-a": ([0], NAMES), "test-b": ([0], other)})
    (test_set,) = find_sets([str(parts)], Places())
    with pytest.raises(ValueError, match=r"class 0 of the column 'label' is 'cat' in .*test-a"):
        test_set.load()


@pytest.mark.parametrize(
    ("feature", "values", "model", "labels"),
    [
        (NUMBERS, [2, 0], CLASSES, [2, 0]),
        (WORDS, ["owl", "cat"], CLASSES, [2, 0]),
        (ClassLabel(names=["owl", "cat"]), [0, 1], CLASSES, [2, 0]),
        (ClassLabel(names=["0", "1", "10", "2"]), [2, 3], tuple(map(str, range(11))), [10, 2]),
    ],
)
def test_labels_of_an_evaluated_set(tmp_path, feature, values, model, labels):
    (test_set,) = find_sets([str(parquet(tmp_path / "data", test=(values, feature)))], Places())
    found, names = labels_of(test_set.load(), model, "set")
    assert match_classes(model, len(model), names)(found).tolist() == labels


def test_a_test_folder_without_a_training_folder(tmp_path):
    draw_images(tmp_path / "shifted" / "Test", (2, 3, 1), 8)
    (whole,), (part,) = (
        find_sets([str(folder)], Places()) for folder in (tmp_path / "shifted", tmp_path / "shifted/Test")
    )
    assert whole.load()["label"][:] == part.load()["label"][:] == [0, 0, 1, 1, 1, 2]
    draw_images(tmp_path / "alone" / "train", (2, 3, 1), 8)
    with pytest.raises(ValueError, match="no held-out images"):
        find_sets([str(tmp_path / "alone")], Places())[0].load()


def copied(root, place):
    shutil.copy(root / "train" / "dog" / "1.png", root / "test" / place)


COPIES = {  # what is done to the data, and how many test samples are copies then
    "none": (lambda root: None, 0),
    "a copy": (lambda root: copied(root, "dog/new.png"), 1),
    "of another class": (lambda root: copied(root, "cat/new.png"), 1),
    "packed otherwise": (lambda root: Image.open(root / "train/dog/1.png").save(root / "test/dog/x.bmp"), 1),
    "twice": (lambda root: [copied(root, "dog/new.png"), copied(root, "dog/newer.png")], 2),
}


@pytest.mark.parametrize("case", COPIES)
def test_test_images_that_are_training_images_are_told(tmp_path, recwarn, case):
    change, count = COPIES[case]
    root = tmp_path / "images"
    draw_images(root / "train", (3, 2, 2), 12)
    draw_images(root / "test", (2, 2, 2), 12, seed=1)
    change(root)
    run = parse([*words(root, tmp_path / "run"), "--disable_tqdm", "true"])
    build_trainer(run, load_splits(run.data))
    told = [str(w.message) for w in recwarn if "copies of training images" in str(w.message)]
    assert len(told) == bool(count) and all(f"{count} of {6 + count} test images" in text for text in told)
    assert all(str(root / "test") in text for text in told)


@pytest.mark.parametrize("columns, count", [(("text",), 2), (("text", "other"), 1)])
def test_test_texts_that_are_training_texts_are_told(recwarn, columns, count):
    train = Dataset.from_dict({"text": ["a", "b"], "other": ["x", "y"], "label": [0, 1]})
    test = Dataset.from_dict({"text": ["b", "a", "c"], "other": ["y", "y", "x"], "label": [0, 1, 1]})
    labels = torch.tensor([0, 1])
    splits = Splits(train, test, labels, torch.tensor([0, 1, 1]), "label", ["a", "b"], text_columns=columns)
    warn_of_copies(TrainingData(None, None, None, None), splits)
    (told,) = [str(w.message) for w in recwarn]
    assert told.startswith(f"{count} of 3 test texts are copies of training texts (the first is 'b')")


def test_what_is_blank_is_no_copy(recwarn):
    """Empty texts are told of as such, and images of one colour tell nothing."""
    rows = Dataset.from_dict({"text": ["a", "", None], "label": [0, 1, 1]})
    labels = torch.tensor([0, 1, 1])
    splits = Splits(rows.select([1, 2]), rows, labels[1:], labels, "label", ["a", "b"], text_columns=("text",))
    warn_of_copies(TrainingData(None, None, None, None), splits)
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    images[2, 0, 0, 0] = 9
    assert [digest is None for digest in _digests(images)] == [True, True, False] and not list(recwarn)


def test_every_corrupt_image_is_named(tmp_path, capsys):
    draw_images(tmp_path / "small" / "train", (3, 2, 2), 12)
    draw_images(tmp_path / "small" / "test", (2, 2, 2), 12)
    broken = [tmp_path / "small" / place for place in ("train/cat/0.png", "train/owl/1.png", "test/dog/1.png")]
    for file in broken:
        file.write_bytes(b"no image")
    message = refused(capsys, *words(tmp_path / "small", tmp_path / "run"))
    assert all(str(file) in message for file in broken) and "Unreadable images in all: 3." in message


def test_rows_of_an_earlier_classifier_go_with_their_names(tmp_path):
    """A run whose classes came in another order is a start by name, not by number."""
    earlier = ViTForImageClassification(tiny_vit({0: "owl", 1: "Cat", 2: "emu"}))
    earlier.save_pretrained(tmp_path / "earlier")
    arguments = parse(["--dataset", "x", "--model", str(tmp_path / "earlier")]).model
    with pytest.warns(UserWarning, match=r"numbers classes otherwise .*class 0 is 'owl' .* and 'cat'"):
        model = build_model(arguments, CLASSES)
    assert model.config.id2label == dict(enumerate(CLASSES))
    rows = torch.tensor([1, 2, 0])  # cat, the row that is left over, owl
    assert torch.equal(model.classifier.weight, earlier.classifier.weight[rows])
    assert torch.equal(model.classifier.bias, earlier.classifier.bias[rows])


def stored_images(problem):
    config = tiny_vit(dict(enumerate("abcd")))
    config.problem_type = problem
    return ViTForImageClassification(config)


@pytest.mark.parametrize("options", [[], ["--pretrained", "false"], ["--head", "cosine"]], ids=str)
@pytest.mark.parametrize("stored", ["multi_label_classification", "regression", None])
@pytest.mark.parametrize(
    ("make", "build"),
    [(stored_images, build_model), (lambda problem: text_classifier(problem, 4), build_text_model)],
    ids=["images", "texts"],
)
def test_the_problem_is_that_of_the_task_whatever_the_model_was_made_for(make, build, stored, options, tmp_path):
    """Or pipelines would take a sigmoid of its logits, and the training would be refused."""
    make(stored).save_pretrained(tmp_path / "stored")
    model = build(parse(["--dataset", "x", "--model", str(tmp_path / "stored"), *options]).model, CLASSES)
    check_problem_type(CrossEntropy(), model)
    model.save_pretrained(tmp_path / "saved")
    saved = AutoConfig.from_pretrained(tmp_path / "saved")
    inner = saved.base_config if "--head" in options else saved
    assert inner.problem_type == "single_label_classification"


def test_a_run_and_data_that_number_classes_otherwise(tmp_path, monkeypatch):
    folder = parquet(tmp_path / "data", train=([0, 1, 2, 0], NAMES), test=([0, 1], NAMES))
    splits = load(folder)
    saved = SavedRun(RunFolder(tmp_path / "run"), None, None, splits, None)
    model = ViTForImageClassification(tiny_vit({0: "dog", 1: "cat", 2: "owl"}))
    monkeypatch.setattr("hf_ltsam.cli.train.saved_run.load_run", lambda *_, **__: model)
    with pytest.raises(
        ValueError, match=r"class 0 is 'dog' in the model in .*run and 'cat' in the data set.*--dataset PATH"
    ):
        saved.model()


def test_the_seed_of_a_split_draws_the_held_out_images_of_folders_too(tmp_path):
    draw_images(tmp_path / "images", (9, 8, 7), 12)

    def names(images):
        return [Path(image["path"]).name for image in images.cast_column("image", ImageColumn(decode=False))["image"]]

    def held_out(seed):
        arguments = DataArguments(dataset=str(tmp_path / "images"), held_out_per_class=3, split_seed=seed)
        return names(load_splits(arguments).test)

    assert held_out(1) == held_out(1) != held_out(0)
    published = load_image_folder(tmp_path / "images", 3)["validation"]  # seed 0
    assert held_out(0) == names(published)
