"""Texts without a word in them."""

import warnings

import pytest
from datasets import Dataset

from hf_ltsam.data.texts import warn_of_empty


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        (("a",), ["x", " \n", None, "y"], "2 of 4 test texts are empty (column a; rows 1, 2, from 0)"),
        (("a", "b"), ["x", "", None, "y"], None),  # the other half of the pair has words
        (("a",), ["x", "z", "0", "y"], None),
        (("a",), [3, 0, 1, 2], None),  # as text, 0 is a word
        ((), ["", "", "", ""], None),
    ],
)
def test_empty_texts_are_counted_and_named(columns, rows, said):
    data = Dataset.from_dict({"a": rows, "b": ["words"] * 4})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_empty("test", data, columns, [0, 1, 1, 0])
    assert len(caught) == (said is not None) and all(str(w.message).startswith(said) for w in caught)


def test_a_class_of_empty_texts_cannot_be_learned():
    data = Dataset.from_dict({"a": ["x", " ", None, "y"]})
    with pytest.raises(ValueError, match=r"2 of 4 training texts are empty .* all of 1 classes"):
        warn_of_empty("training", data, ("a",), [0, 1, 1, 0])
    with pytest.warns(UserWarning, match="2 of 4 training texts are empty"):
        warn_of_empty("training", data, ("a",), [0, 1, 0, 1])
