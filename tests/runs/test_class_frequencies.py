"""Groups of classes in words."""

from hf_ltsam import ClassStatistics
from hf_ltsam.runs.class_frequencies import describe_groups, group_criterion, group_ranges


def test_groups_by_number_of_images():
    statistics = ClassStatistics((5000, 1200, 150, 90), many_above=1000, few_below=200)
    assert group_ranges(statistics) == {"many": "more than 1,000", "medium": "200 to 1,000", "few": "fewer than 200"}
    assert group_criterion(statistics) == "training images per class"
    assert describe_groups(statistics) == (
        "Groups by training images of a class: many above 1,000, medium 200 to 1,000, few below 200."
    )


def test_groups_by_rank():
    statistics = ClassStatistics((5, 90, 40, 40, 7), group_sizes=(2, 2, 1))
    assert group_ranges(statistics) == {"many": "1 to 2", "medium": "3 to 4", "few": "5"}
    assert group_ranges(ClassStatistics((9, 3), group_sizes=(1, 0, 1)))["medium"] == "none"
    assert group_criterion(statistics) == "rank of the class by frequency"
    assert describe_groups(statistics, sizes=True) == (
        "Groups by rank of a class in order of frequency: many 1 to 2 (2 classes), medium 3 to 4 (2), few 5 (1)."
    )


def test_a_medium_without_counts_is_said_to_be_none():
    statistics = ClassStatistics((2, 1))
    assert group_ranges(statistics) == {"many": "more than 1", "medium": "none", "few": "fewer than 2"}
    assert "many above 1 (1 class), medium none (0), few below 2 (1)" in describe_groups(statistics, sizes=True)
