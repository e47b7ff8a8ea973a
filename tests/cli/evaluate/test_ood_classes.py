"""Classes of a test set among those of the model: by name, in any order, and refused where that cannot be."""

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from hf_ltsam.cli.evaluate.classes import are_imagenets, imagenet_keys, labels_of, match_classes, model_labels

MODEL = ("cat", "dog", "owl")


def matched(set_names, model_names=MODEL, **settings):
    return match_classes(model_names, len(model_names), set_names, **settings)


def test_the_same_names_in_the_same_order():
    mapping = matched(("cat", "dog", "owl"))
    assert mapping.model_class == (0, 1, 2) and mapping.note == ""


def test_another_order_is_mapped_and_said():
    mapping = matched(("owl", "cat", "dog"))
    assert mapping.model_class == (2, 0, 1)
    assert "'owl' is class 0 of the set and 2 of the model" in mapping.note
    rows, labels = model_labels(torch.tensor([0, 1, 1, 2]), mapping)
    assert labels.tolist() == [2, 0, 0, 1] and rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("names", [("Cat", "DOG", "owl "), ("CAT", "dog", "Owl")])
def test_spellings(names):
    assert matched(names).model_class == (0, 1, 2)
    assert match_classes(("aquarium fish", "t-shirt"), 2, ("t_shirt", "aquarium_fish")).model_class == (1, 0)


def test_spellings_that_two_classes_share_are_told_apart():
    assert match_classes(("crane", "Crane"), 2, ("Crane", "crane")).model_class == (1, 0)
    with pytest.raises(ValueError, match="Two classes are called 'crane'"):
        match_classes(("crane", "crane"), 2, ("crane", "owl"))


def test_a_subset_of_the_models_classes():
    mapping = matched(("owl", "cat"))
    assert mapping.model_class == (2, 0)
    assert "2 of the model's 3 classes occur; predictions range over all of them" in mapping.note


def test_classes_that_the_model_does_not_know():
    with pytest.raises(ValueError) as error:
        matched(("owl", "emu", "cat", "yak"))
    message = str(error.value)
    assert "3 classes ('cat', 'dog', 'owl'), the set 4" in message
    assert "does not know 2: 'emu', 'yak'" in message and "--only_known_classes" in message


def test_their_images_can_be_left_out():
    mapping = matched(("owl", "emu", "cat", "yak"), only_known=True)
    assert "images of 2 classes that the model does not know are left out" in mapping.note
    rows, labels = model_labels(torch.tensor([3, 2, 0, 1, 0]), mapping)
    assert (rows.tolist(), labels.tolist()) == ([1, 2, 4], [0, 2, 2])
    with pytest.raises(ValueError, match="No image"):
        model_labels(torch.tensor([3, 1]), mapping)


@pytest.mark.parametrize("only_known", [False, True])
def test_no_name_in_common(only_known):
    with pytest.raises(
        ValueError, match=r"3 classes \('cat', 'dog', 'owl'\), the set 3 \('n01', 'n02', 'n03'\), and no name.*id2label"
    ):
        matched(("n01", "n02", "n03"), only_known=only_known)


def test_models_and_sets_without_names():
    assert match_classes(None, 3, ("a", "b", "c")).model_class == (0, 1, 2)
    assert "by number" in match_classes(None, 3, ("a", "b", "c")).note
    assert match_classes(MODEL, 3, None).model_class == (0, 1, 2)
    with pytest.raises(ValueError, match=r"3 classes without names.* the set 4.*id2label"):
        match_classes(None, 3, ("a", "b", "c", "d"))


def test_labels_outside_the_classes():
    with pytest.raises(ValueError, match="Label 7"):
        model_labels(torch.tensor([0, 7]), match_classes(MODEL, 3, None))


def test_wnids_and_names_of_imagenet_are_the_same_classes():
    keys = imagenet_keys()
    names, wnids = tuple(keys), tuple(keys.values())
    mapping = match_classes(tuple(reversed(wnids)), 1000, names, keys=keys)
    assert mapping.model_class == tuple(reversed(range(1000)))
    some = match_classes(("n01440764", "n01443537"), 2, names, only_known=True, keys=keys)
    assert [c for c in some.model_class if c >= 0] == [0, 1]
    assert are_imagenets(names, keys) and are_imagenets(wnids[::-1], keys)
    assert not are_imagenets(names[:-1], keys) and not are_imagenets(None, keys) and not are_imagenets(MODEL, keys)


def a_dataset(**columns):
    features = {name: ClassLabel(names=list(names)) if names else Value("int64") for name, names in columns.items()}
    return Dataset.from_dict({name: [0, 1] for name in columns}, Features(features))


def test_the_label_column():
    labels, names = labels_of(a_dataset(coarse=("pets", "birds"), fine=MODEL), MODEL, "x")
    assert names == MODEL and labels.tolist() == [0, 1]
    assert labels_of(a_dataset(label=None), MODEL, "x")[1] is None
    with pytest.raises(ValueError, match=r"x has several columns of classes \(a, b\)"):
        labels_of(a_dataset(a=MODEL, b=MODEL), MODEL, "x")
    with pytest.raises(ValueError, match="x has no column of labels among score"):
        labels_of(a_dataset(score=None), MODEL, "x")


def test_a_set_without_labels():
    dataset = Dataset.from_dict({"label": [-1, -1]}, Features({"label": ClassLabel(names=list(MODEL))}))
    with pytest.raises(ValueError, match="x is not labelled"):
        labels_of(dataset, MODEL, "x")
