"""One table of data sets: what is in it is known to every loader and command."""

from dataclasses import replace

import pytest
from cli.test_cli import run
from copies import ilsvrc
from datasets import DatasetDict

from dataset_builders import load_long_tailed, load_shifted, long_tail_statistics
from dataset_builders.catalogue import SETS, evaluation_sets, long_tailed_sets, sets_of
from dataset_builders.folders import load_image_folder
from dataset_builders.publish import Draw
from dataset_builders.sets.imagenet_c import ARCHIVE_OF
from dataset_builders.sets.imagenet_lt import IMAGENET_LT
from dataset_builders.sets.imagenetv2 import IMAGENETV2
from dataset_builders.sources.published_set import DrawnSet, ListedSet, ShiftedSet, Tail
from hf_ltsam.cli.evaluate.sets import Places, find_sets, known_names
from hf_ltsam.cli.train.data_checks import check_data
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import builders, load_splits
from hf_ltsam.runs.card.citations import bibtex


def check_known(capsys, tmp_path, name):
    """By loaders, `ltsam data`, `--builder` and `--sets`: each says something else than that there is no such set."""
    published = SETS[name]
    assert published.title in run(capsys, "data", "list")[1]
    status, out, err = run(capsys, "data", "info", name)
    assert status == 0, err
    assert published.terms in out and published.construction in out and published.source in out
    assert name in run(capsys, "data", "info", "nothing")[2]

    folder = tmp_path / "copy"
    folder.mkdir()
    (test_set,) = find_sets([name], Places({name: folder}))
    assert test_set.source == str(folder)
    assert name in known_names() and (f"{name}_c" in known_names()) != published.stored_corruptions
    refused(load_shifted, name, folder, corruption="fog", severity=1)
    if name not in long_tailed_sets():
        assert name not in builders()
        return
    refused(load_long_tailed, name, folder)
    check_data(DataArguments(dataset=str(folder), builder=name))
    refused(load_splits, DataArguments(dataset=str(folder), builder=name, many_above=1, few_below=1))
    statistics = long_tail_statistics(name)
    assert f"{statistics.total:,} of {statistics.num_classes:,} classes" in out and "fingerprint" in out


def refused(function, *values, **options):
    """An empty folder is no copy of anything; the set itself is known."""
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        function(*values, **options)
    assert "There is no data set" not in str(error.value) and "does not exist" not in str(error.value)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_known_everywhere(capsys, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no list is fetched
    check_known(capsys, tmp_path, name)


def digits_loader(source, imbalance_ratio, profile, seed, largest_class):
    splits = load_image_folder(source)
    return DatasetDict(train=splits["train"], test=splits["test"])


MADE_UP = {
    "mine_lt": DrawnSet(
        title="Mine-LT", what="made up", source="nowhere", terms="Do what you like.", construction="A test makes it.",
        citations=("cao2019",), original="mine", repository="me/mine", loader=digits_loader, class_names=("a", "b", "c"),
        per_class=100, may_be_published=True,
    ),
    "my_list": replace(IMAGENET_LT, title="My list"),
    "my_shift": replace(IMAGENETV2, title="My shift"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE_UP)
def test_a_new_set_is_one_line(capsys, tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setitem(SETS, name, MADE_UP[name])
    check_known(capsys, tmp_path, name)


def test_a_new_drawn_set_is_found_under_the_name_of_its_original_and_can_be_published(monkeypatch):
    monkeypatch.setitem(SETS, "mine_lt", MADE_UP["mine_lt"])
    (test_set,) = find_sets(["mine"], Places())
    assert test_set.source == "me/mine" and "mine_c" in known_names()
    assert Draw("mine_lt", Tail(imbalance_ratio=4)).statistics.counts == (100, 50, 25)
    with pytest.raises(ValueError, match=r"Can be published: cifar10_lt, cifar100_lt.*mine_lt\."):
        Draw("imagenet_lt")


def test_the_variants_of_a_new_set_are_test_sets(monkeypatch, tmp_path):
    monkeypatch.setitem(SETS, "my_shift", MADE_UP["my_shift"])
    for variant in ("threshold-0.7", "top-images"):
        assert evaluation_sets()[f"my_shift:{variant}"] == ("my_shift", variant)
    (test_set,) = find_sets(["my_shift:top-images"], Places({"my_shift": tmp_path}))
    with pytest.raises(FileNotFoundError, match="holds none of imagenetv2-top-images-format-val"):
        test_set.load()


def test_a_listed_set_by_its_name_in_every_command(tmp_path, monkeypatch):
    """The same images through the loader, the training's splits and the evaluation."""
    copy = ilsvrc(tmp_path)
    monkeypatch.setitem(SETS, "my_list", MADE_UP["my_list"])
    arguments = DataArguments(dataset=str(copy), builder="my_list", lists=str(copy / "lists"), own_lists=True)
    assert load_splits(arguments).train_labels.tolist() == [0] * 4 + [1] * 2 + [2]
    test = load_shifted("my_list", copy, lists=copy / "lists", own_lists=True, cache_dir=tmp_path)
    assert test["label"] == [0, 1, 2]


def test_kinds_of_sets():
    assert {"cifar10_lt", "cifar100_lt"} <= set(sets_of(DrawnSet))
    assert {"imagenet_lt", "inaturalist2018", "places_lt"} <= set(sets_of(ListedSet))
    assert {"imagenet_sketch", "imagenetv2", "imagenet_c"} <= set(sets_of(ShiftedSet))
    assert [name for name, published in SETS.items() if published.stored_corruptions] == ["imagenet_c"]
    assert set(long_tailed_sets()) == {*sets_of(DrawnSet), *sets_of(ListedSet)}


def test_the_corruptions_of_imagenet_c_are_ours():
    from dataset_builders.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS

    assert set(ARCHIVE_OF) == {*CORRUPTIONS, *EXTRA_CORRUPTIONS}


def test_their_papers_can_be_cited():
    for published in SETS.values():
        bibtex(published.citations)
    assert bibtex(SETS["cifar10_lt"].citations).count("@") == 2


def test_a_drawn_set_by_its_name_for_training(tmp_path):
    """`--builder cifar10_lt` is what `--builder cifar_lt` reads from CIFAR-10's files, and refuses those of CIFAR-100."""
    from cli.test_data_command import tiny_cifar10

    folder = tiny_cifar10(tmp_path, per_class=100)
    settings = {"dataset": str(folder), "imbalance_ratio": 4, "largest_class": 8}
    named, plain = (load_splits(DataArguments(builder=b, **settings)) for b in ("cifar10_lt", "cifar_lt"))
    assert named.train_labels.tolist() == plain.train_labels.tolist() and int(named.train_labels.bincount()[0]) == 8
    assert len(load_splits(DataArguments(builder="cifar10_lt", dataset=str(folder))).train) == 1000
    with pytest.raises(ValueError, match=r"has 10 classes, CIFAR-100-LT has 100"):
        load_splits(DataArguments(builder="cifar100_lt", **settings))
    (test_set,) = find_sets(["cifar10_lt"], Places({"cifar10_lt": folder}))
    assert len(test_set.load()) == 1000
