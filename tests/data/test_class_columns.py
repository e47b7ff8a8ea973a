"""Columns of numbers and words as classes, numbered by a list of names."""

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from hf_ltsam.data.class_columns import class_names_in, with_classes

PETS = ["cat", "dog", "owl"]


def column(values, feature):
    rows = {"image": [{"bytes": b"broken", "path": None}] * len(values), "label": values}
    return Dataset.from_dict(rows, features=Features({"image": Image(), "label": feature}))


def with_path(labels):
    images = [{"bytes": None, "path": f"here/{k}.png"} for k in range(len(labels))]
    features = Features({"label": Value("int64"), "image": Image()})
    return Dataset.from_dict({"label": labels, "image": images}, features=features)


def with_text(labels, text):
    return Dataset.from_dict({"label": labels, "empty": ["", ""], "text": ["first", text]})


@pytest.mark.parametrize(
    ("dataset", "names", "labels"),
    [
        (column([2, 0, 1], ClassLabel(names=PETS)), PETS, [2, 0, 1]),
        (column([2, 0, 1], Value("int64")), ["0", "1", "2"], [2, 0, 1]),
        (column([2, 0, 1], Value("uint8")), ["0", "1", "2"], [2, 0, 1]),
        (column(["owl", "cat", "dog"], Value("string")), PETS, [2, 0, 1]),
        (column(["owl", "cat", "dog"], Value("large_string")), PETS, [2, 0, 1]),
        (column([355868, 1, 20], Value("int64")), ["1", "20", "355868"], [2, 0, 1]),
        (column(["10", "2", "1"], Value("string")), ["1", "2", "10"], [2, 1, 0]),
        (column(["007", "10", "2"], Value("string")), ["007", "10", "2"], [0, 1, 2]),
        (column(["1.5", "1", "0.5"] * 2, Value("string")), ["0.5", "1", "1.5"], [2, 1, 0] * 2),  # stars
        (column([1.0, 0.0, 3.0], Value("float64")), ["0", "1", "3"], [1, 0, 2]),
        (column([True, False, True], Value("bool")), ["False", "True"], [1, 0, 1]),
    ],
)
def test_what_a_column_of_labels_may_hold(dataset, names, labels):
    assert list(class_names_in(dataset, "label")) == names
    classes = with_classes(dataset, "label", names)  # images are not decoded
    assert classes.features["label"].names == names
    assert classes["label"][:] == labels and set(classes.column_names) == {"image", "label"}


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (column([0, 1, -1], ClassLabel(names=["owl", "cat"])), [2, 0, -1]),
        (column(["Owl", "cat"], Value("string")), [2, 0]),
        (column([-1, -1], Value("int64")), [-1, -1]),
    ],
)
def test_classes_are_looked_up_by_name(dataset, labels):
    assert with_classes(dataset, "label", PETS)["label"][:] == labels


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (column([0, -1], Value("int64")), r"label -1, which stands for no class"),
        (
            column([1, None, None], ClassLabel(names=["a", "b"])),
            r"'label' has 2 missing labels, the first in row 1: fill",
        ),
        (with_path([1, None]), r"'label' has 1 missing labels, the first of here/1\.png: fill"),
        (with_text(["a", None], "It is"), r"'label' has 1 missing labels, the first of 'It is': fill"),
        (
            with_text(["a", None], "word " * 30),
            r"'label' has 1 missing labels, the first of '(word ){10}\w* ?\.\.\.': fill",
        ),
        (column([0.5, 1.0], Value("float32")), r"'label' has values of Value\('float32'\).*regression"),
        (column([f"{k}.5" for k in range(12)], Value("string")), r"12 different ones in 12 rows .*'0\.5'.*regression"),
        (column([f"{k % 40}.5" for k in range(120)], Value("string")), r"real numbers, 40 different .*LTSamTrainer"),
        (column([None, 1], Value("int64")), r"'label' has 1 missing labels, the first in row 0"),
        (column([*range(101)], Value("int64")), r"101 different values in 101 rows .* no classes: .*label_column"),
        (column([[1], [0]], List(Value("int64"))), r"'label' has values of List"),
    ],
)
def test_what_it_may_not_hold(dataset, message):
    with pytest.raises(ValueError, match=message):
        class_names_in(dataset, "label")


def test_classes_that_the_training_set_has_not():
    with pytest.raises(ValueError, match=r"1 classes that the training set has not \('emu'\)"):
        with_classes(column(["emu", "cat"], Value("string")), "label", PETS)
