"""Which images stand for a class or group, and with which weight."""

import pytest
import torch

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.curvature import Chunks, choose_images, class_index, group_classes, groups_of, make_subset
from hf_ltsam.data.in_memory.images import InMemoryImages

LABELS = torch.tensor([0, 1, 0, 2, 0, 0, 1, 0, 1, 0])  # 6, 3, 1
STATISTICS = ClassStatistics.from_labels(LABELS, many_above=5, few_below=2)


def test_all_images_weigh_the_same():
    everything = make_subset("all", range(3), choose_images(LABELS, 3))
    assert sorted(everything.rows.tolist()) == list(range(10))
    torch.testing.assert_close(everything.weights, torch.full((10,), 0.1, dtype=torch.float64))


def test_a_class_keeps_its_share_however_few_images_stand_for_it():
    chosen = choose_images(LABELS, 3, max_samples=2)
    everything = make_subset("all", range(3), chosen)
    assert len(everything) == 5
    for c, share in enumerate((0.6, 0.3, 0.1)):
        assert float(everything.weights[LABELS[everything.rows] == c].sum()) == pytest.approx(share)
    assert "at most 2" in chosen.rule and "seed 0" in chosen.rule


def test_the_choice_is_fixed_and_follows_the_seed_alone():
    labels = torch.arange(300) % 3
    one, same, other = (choose_images(labels, 3, 20, seed).rows for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same)) and not torch.equal(one[0], other[0])
    without_class_2 = choose_images(labels[labels < 2], 2, 20, 1).rows  # other classes change nothing
    assert (labels[one[0]] == 0).all() and len(set(one[0].tolist())) == 20
    position = torch.cumsum((labels < 2).long(), 0) - 1
    assert torch.equal(position[one[0]], without_class_2[0])


def test_groups():
    assert groups_of(STATISTICS) == {"all": (0, 1, 2), "many": (0,), "medium": (1,), "few": (2,)}
    split = ClassStatistics.from_labels(LABELS, tail_threshold=3)
    assert group_classes("head", split) == (0,) and group_classes("tail", split) == (1, 2)


@pytest.mark.parametrize(
    "name, statistics, said",
    [
        ("mny", STATISTICS, "Did you mean 'many'"),
        ("tail", STATISTICS, "tail_threshold="),
        (
            "many",
            ClassStatistics.from_labels(LABELS, many_above=100, few_below=20),
            "No class belongs to the group 'many'",
        ),
    ],
)
def test_groups_that_are_not_there(name, statistics, said):
    with pytest.raises(ValueError, match=said):
        group_classes(name, statistics)


@pytest.mark.parametrize(
    "word, said",
    [
        ("3", "0 to 2"),
        ("-1", "0 to 2"),
        ("owll", "Did you mean 'owl'"),
        ("1.5", "Unknown class '1.5'"),
    ],
)
def test_classes_that_are_not_there(word, said):
    with pytest.raises(ValueError, match=said):
        class_index(word, ["cat", "dog", "owl"])


def test_classes_by_index_and_name():
    assert class_index("2", ["cat", "dog", "owl"]) == class_index("owl", ["cat", "dog", "owl"]) == 2
    assert class_index("0", ["1", "0"]) == 1  # a name comes first: the digits of a set in another order


@pytest.mark.parametrize("wrong", [0, -3, 2.5])
def test_max_samples_is_a_count(wrong):
    with pytest.raises(ValueError, match=r"max_samples=.*at least 1"):
        choose_images(LABELS, 3, wrong)


def test_chunks_can_be_passed_through_again_and_draw_nothing():
    data = InMemoryImages(
        torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), LABELS, [0.0], [1 / 255], augment=False
    )
    chunks, state = Chunks(data, torch.tensor([7, 2, 9, 4, 0]), 2), torch.get_rng_state()
    for _ in range(2):
        batches = list(chunks)
        assert [len(b) for b in batches] == [2, 2, 1] and len(chunks) == 3
        assert torch.cat([b.inputs["pixel_values"].flatten() for b in batches]).round().tolist() == [7, 2, 9, 4, 0]
        assert torch.cat([b.labels for b in batches]).tolist() == [0, 0, 0, 0, 0]
    assert torch.equal(torch.get_rng_state(), state)
