"""Two lists of class names: which contradict each other, and where names are read from."""

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from torch.utils.data import ConcatDataset, Subset

from hf_ltsam.data.class_names import (
    check_parquet_names,
    compare_names,
    contradiction,
    names_alike,
    names_of_dataset,
    names_of_model,
)
from hf_ltsam.data.keyed_randomness import KeyedRandomness

PETS = ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("second", "differs"),
    [
        (("cat", "dog", "owl"), None),
        (("Cat", "DOG", "owl "), None),
        (("cat", "dog"), None),
        (("cat", "dog", "owl", "emu"), None),
        (("cat", "dog", "barn owl"), None),  # another word for it
        (("emu", "yak", "gnu"), None),
        (("dog", "cat", "owl"), 0),
        (("cat", "owl"), 1),
        (("cat", "dog", "emu", "owl"), 3),
        (("cat", "DOG", "Dog", "owl"), 3),  # two spellings that are two classes
    ],
)
def test_a_name_at_two_places_is_a_contradiction(second, differs):
    assert contradiction(PETS, second) == differs


def test_numbers_in_the_order_of_words():
    numbers, folders = tuple(map(str, range(12))), tuple(sorted(map(str, range(12))))
    assert contradiction(numbers, folders) == 2  # "10" comes before "2" among folders


def test_the_first_difference_is_named_with_the_way_out():
    with pytest.raises(ValueError, match=r"class 1 is 'dog' in A and 'owl' in B\..*Mend it\."):
        compare_names(PETS, ("cat", "owl", "dog"), ("A", "B"), "Mend it.")
    with pytest.raises(ValueError, match=r"class 3 is no class in A and 'dog' in B"):
        compare_names(PETS, ("cat", "x", "owl", "dog"), ("A", "B"), "Mend it.")


def test_lists_without_a_common_name_are_mentioned():
    message = compare_names(PETS, ("emu", "yak", "gnu"), ("A", "B"), "")
    assert "'cat', 'dog', 'owl'" in message and "'emu'" in message and "by number" in message
    assert compare_names(PETS, ("0", "1", "2"), ("A", "B"), "") is None
    assert compare_names(PETS, ("cat", "yak", "gnu"), ("A", "B"), "") is None


@pytest.mark.parametrize(
    ("id2label", "names"),
    [
        ({0: "LABEL_0", 1: "LABEL_1"}, None),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
        ({1: "dog", 0: "cat"}, ("cat", "dog")),
        ({"1": "dog", "0": "cat"}, ("cat", "dog")),
        ({}, None),
        (None, None),
    ],
)
def test_names_of_a_model(id2label, names):
    assert names_of_model(id2label) == names


def labelled(names, column="label"):
    return Dataset.from_dict({column: [0, 1]}, features=Features({column: ClassLabel(names=list(names))}))


class Folder(torch.utils.data.Dataset):
    def __init__(self, classes, target_transform=None):
        self.classes, self.target_transform = classes, target_transform


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (labelled(PETS), PETS),
        (labelled(PETS, "species"), PETS),
        (Subset(labelled(PETS), [0]), PETS),
        (KeyedRandomness(labelled(PETS), 0), PETS),
        (ConcatDataset([labelled(PETS), Subset(labelled(PETS[:2]), [0])]), PETS),
        (Folder(list(PETS)), PETS),
        (Folder(list(PETS), lambda y: y), None),
        (Folder(3), None),
        (Dataset.from_dict({"label": [0, 1]}, features=Features({"label": Value("int64")})), None),
        (None, None),
        ([{"labels": 0}], None),
    ],
)
def test_names_of_a_data_set(dataset, names):
    assert names_of_dataset(dataset) == names


def test_parts_that_contradict_each_other():
    with pytest.raises(ValueError, match=r"class 0 is 'cat' in part 0 of the ConcatDataset and 'dog' in part 1"):
        names_of_dataset(ConcatDataset([labelled(PETS), labelled(("dog", "cat"))]))


def test_parquet_files_encoded_apart(tmp_path):
    files = [tmp_path / f"{name}.parquet" for name in "abc"]
    for file, names in zip(files, (PETS, PETS[:2], ("dog", "cat"))):
        labelled(names).to_parquet(file)
    check_parquet_names(files[:2])
    with pytest.raises(
        ValueError, match=r"class 0 of the column 'label' is 'cat' in .*a\.parquet and 'dog' in .*c\.parquet"
    ):
        check_parquet_names(files)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("owl", " owl", "cat"), ["'owl' and ' owl'"]),
        (
            ("Great Tit", "great_tit", "GREAT-TIT ", "Owl", "owl"),
            ["'Great Tit' and 'great_tit' and 'GREAT-TIT '", "'Owl' and 'owl'"],
        ),
        (("owl", "owls", "0", "00"), []),
        ((), []),
    ],
)
def test_names_that_differ_in_how_they_are_written_alone(names, named):
    warning = names_alike(names)
    assert (warning is None) == (not named) and all(words in (warning or "") for words in named)
