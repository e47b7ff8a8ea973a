"""Long-tailed splits against the published counts and fingerprints (protocols.md), and against a plain loop."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from dataset_builders.long_tail import (
    draw,
    exponential_profile,
    fingerprint,
    hold_out_per_class,
    long_tailed,
    step_profile,
)

CIFAR10_AT_100 = "8a54f5b6fa9722952358bc99897aa969bc20f845d0b15034e5013337df1e4ec7"
CIFAR100_AT_100 = "f123ec136d44ab1b224fe55bb8a73ab03432d25a81975af68f26fb6777d5aca8"


def balanced_labels(num_classes: int, per_class: int) -> np.ndarray:
    """Balanced labels in a mixed order."""
    return np.random.RandomState(7).permutation(np.repeat(np.arange(num_classes), per_class))


def labelled(labels, names=None, **columns) -> Dataset:
    """A data set without images, `position` telling where a row came from."""
    labels = list(map(int, labels))
    names = names or [f"class {c}" for c in range(max(labels) + 1)]
    features = Features({"label": ClassLabel(names=names), "position": Value("int64")})
    return Dataset.from_dict({"label": labels, "position": list(range(len(labels))), **columns}, features=features)


@pytest.mark.parametrize(
    ("n_max", "num_classes", "totals"),
    [
        (5000, 10, {10: 20_431, 50: 13_996, 100: 12_406, 200: 11_203}),
        (500, 100, {10: 19_573, 50: 12_608, 100: 10_847, 200: 9_502}),
    ],
)
def test_exponential_counts_are_the_published_ones(n_max, num_classes, totals):
    assert {r: sum(exponential_profile(n_max, num_classes, r)) for r in totals} == totals


def test_exponential_counts_of_every_class_of_cifar10_at_100():
    assert exponential_profile(5000, 10, 100) == (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)


def test_step_profile_halves_the_classes():
    assert step_profile(500, 100, 100) == (500,) * 50 + (5,) * 50
    assert step_profile(10, 3, 4) == (10, 2, 2)  # an odd number of classes: the smaller half is large


@pytest.mark.parametrize("profile", [exponential_profile, step_profile])
def test_ratio_one_is_balanced(profile):
    assert profile(17, 6, 1) == (17,) * 6


@pytest.mark.parametrize("profile", [exponential_profile, step_profile])
@pytest.mark.parametrize("ratio", [0.99, 0, -3, float("nan"), float("inf")])
def test_ratio_below_one_is_refused(profile, ratio):
    with pytest.raises(ValueError, match=r"imbalance_ratio.* at least 1.*got"):
        profile(100, 10, ratio)


@pytest.mark.parametrize("num_classes", [0, 1])
def test_one_class_has_no_long_tail(num_classes):
    with pytest.raises(ValueError, match="at least 2 classes"):
        exponential_profile(100, num_classes, 10)


@pytest.mark.parametrize(
    ("num_classes", "per_class", "expected"), [(10, 5000, CIFAR10_AT_100), (100, 500, CIFAR100_AT_100)]
)
def test_draw_has_the_published_fingerprint(num_classes, per_class, expected):
    labels = balanced_labels(num_classes, per_class)
    drawn = draw(labels, exponential_profile(per_class, num_classes, 100), seed=0)
    assert fingerprint(labels, drawn) == expected


def test_draw_on_the_official_label_order(shared):
    labels = np.load(shared / "data" / "cifar10" / "official_train_labels.npy")
    drawn = draw(labels, exponential_profile(5000, 10, 100))
    assert fingerprint(labels, drawn) == CIFAR10_AT_100
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(shared / "data" / "cifar10" / "train_ir10.parquet", columns=["label", "source_index", "rank"])
    for c, indices in enumerate(drawn):
        of_class = (table["label"].to_numpy() == c) & (table["rank"].to_numpy() < len(indices))
        assert indices.tolist() == table["source_index"].to_numpy()[of_class].tolist()


def test_draw_is_the_published_loop():
    labels = balanced_labels(4, 30)
    before = np.random.get_state()
    np.random.seed(3)
    expected = []
    for c, keep in enumerate((30, 11, 4, 1)):
        indices = np.where(labels == c)[0]
        np.random.shuffle(indices)
        expected.append(indices[:keep].tolist())
    np.random.set_state(before)
    assert [i.tolist() for i in draw(labels, (30, 11, 4, 1), seed=3)] == expected


def test_draw_leaves_the_global_random_state_alone():
    np.random.seed(11)
    expected = np.random.rand()
    np.random.seed(11)
    draw(balanced_labels(3, 5), (5, 2, 1))
    assert np.random.rand() == expected


def test_draw_refuses_more_than_there_is():
    with pytest.raises(ValueError, match="Class 1 has 5 images, 6 were asked for"):
        draw(balanced_labels(3, 5), (5, 6, 1))


@pytest.mark.parametrize("ratio", [10, 50])
def test_smaller_ratio_contains_the_larger_one(ratio):
    labels = balanced_labels(10, 200)
    big = draw(labels, exponential_profile(200, 10, ratio))
    small = draw(labels, exponential_profile(200, 10, 2 * ratio))
    assert all(b[: len(s)].tolist() == s.tolist() for b, s in zip(big, small))


def test_long_tailed_rows_come_class_by_class_in_draw_order():
    labels = balanced_labels(5, 40)
    split = long_tailed(labelled(labels), 8, seed=2)
    expected = np.concatenate(draw(labels, exponential_profile(40, 5, 8), seed=2))
    assert split["position"][:] == expected.tolist()
    assert split["label"][:] == sorted(split["label"][:])
    assert split.features["label"].names == [f"class {c}" for c in range(5)]


def test_long_tailed_step_profile():
    split = long_tailed(labelled(balanced_labels(4, 40)), 8, profile="step")
    assert np.bincount(split["label"][:]).tolist() == [40, 40, 5, 5]


def test_long_tailed_of_a_selection_and_twice():
    full = labelled(balanced_labels(4, 50))
    part = full.select(range(199, -1, -2))
    split = long_tailed(part, 4)
    kept = set(part["position"][:])
    assert set(split["position"][:]) <= kept
    assert [labels == full[position]["label"] for labels, position in zip(split["label"], split["position"])].count(
        False
    ) == 0


def test_n_max_is_the_largest_every_class_can_supply():
    # wanted shares at R = 4 and 3 classes: 1, 1/2, 1/4; class 1 holds 30, so n_max is 61 (int(30.5) = 30)
    labels = [0] * 100 + [1] * 30 + [2] * 90
    split = long_tailed(labelled(labels), 4)
    assert np.bincount(split["label"][:]).tolist() == [61, 30, 15]


def test_a_largest_class_that_cannot_be_supplied_is_refused():
    labels = [0] * 100 + [1] * 30 + [2] * 90  # as above: 61 at most
    assert np.bincount(long_tailed(labelled(labels), 4, largest_class=40)["label"][:]).tolist() == [40, 20, 10]
    with pytest.raises(ValueError, match=r"largest_class=62: .* 1 to 61 images"):
        long_tailed(labelled(labels), 4, largest_class=62)


def test_no_image_is_decoded_and_no_transform_called():
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": b"not an image", "path": None}] * 20, "label": [0, 1] * 10}
    dataset = Dataset.from_dict(rows, features=features)

    def forbidden(batch):
        raise RuntimeError("the transform was called")

    split = long_tailed(dataset.with_transform(forbidden), 5)
    assert len(split) == 12
    assert split.format["type"] == "custom"  # the caller's transform is still there


def test_a_class_without_image_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"Class 8.*no image.*imbalance_ratio=30.*20"):
        long_tailed(labelled(balanced_labels(10, 20)), 30)
    with pytest.raises(ValueError, match="'ghost' has no image in the data set"):
        long_tailed(labelled([0, 0, 1], names=["a", "b", "ghost"]), 2)


def test_unlabelled_rows_are_refused():
    with pytest.raises(ValueError, match="-1"):
        long_tailed(labelled([0, 1, -1], names=["a", "b"]), 2)


def test_unknown_profile_names_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown profile 'exponentail'.*'exponential'.*step"):
        long_tailed(labelled([0, 1]), 2, profile="exponentail")


def test_label_column_must_be_a_class_label_and_unique():
    dataset = labelled(balanced_labels(3, 4))
    with pytest.raises(ValueError, match=r"'position' is not a ClassLabel.*class_encode_column"):
        long_tailed(dataset, 2, label_column="position")
    with pytest.raises(ValueError, match=r"no column 'lable'.*'label'"):
        long_tailed(dataset, 2, label_column="lable")
    with pytest.raises(ValueError, match=r"no ClassLabel column.*position"):
        long_tailed(dataset.remove_columns("label"), 2)
    names = ClassLabel(names=["x", "y", "z"])
    two = Dataset.from_dict(
        {"fine": [0, 1, 2], "coarse": [0, 1, 2]}, features=Features({"fine": names, "coarse": names})
    )
    with pytest.raises(ValueError, match=r"fine, coarse.*label_column"):
        long_tailed(two, 1)
    assert len(long_tailed(two, 1, label_column="fine")) == 3


@pytest.mark.parametrize("per_class", [1, 2, 5, 100])
def test_at_most_half_of_a_class_is_held_out(per_class, recwarn):
    sizes = [0, 1, 2, 3, 5, 6, 9, 10, 11, 30]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    splits = hold_out_per_class(labelled(labels), per_class)
    held, kept = (np.bincount(splits[name]["label"][:], minlength=len(sizes)) for name in ("validation", "train"))
    assert held.tolist() == [min(per_class, n // 2) for n in sizes] and (held + kept).tolist() == sizes
    fewer = [f"'class {c}' {min(per_class, n // 2)} of {n}" for c, n in enumerate(sizes) if 0 < n < 2 * per_class]
    (warning,) = recwarn
    assert str(warning.message).endswith(f"so small classes give fewer: {', '.join(fewer)}.")


def test_what_a_class_gives_is_the_beginning_of_its_published_draw():
    """Whatever the others are: a small class changes nothing of a large one."""
    labels = np.repeat([0, 1], [30, 6])
    with pytest.warns(UserWarning, match="'class 1' 3 of 6"):
        held = hold_out_per_class(labelled(labels), 5, seed=3)["validation"]["position"][:]
    assert held == np.concatenate([d[:n] for d, n in zip(draw(labels, (30, 6), seed=3), (5, 3))]).tolist()
