"""metrics.json: round trip, all or nothing, and errors that name the file."""

import json
import math

import numpy as np
import pytest

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.losses import LOSSES, LogitAdjustment
from hf_ltsam.runs.folder import RECORD, RunFolder
from hf_ltsam.runs.identity import describe
from hf_ltsam.runs.record import RunRecord, installed_versions, shortcomings, split_results, split_revision, untested

STATISTICS = ClassStatistics(counts=(200, 50, 5))
LOGITS = np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 2.0, 0], [0, 0, 2.0]])


def a_record(**changes):
    facts = {
        "seed": 3,
        "method": {"name": "sam", "args": {"rho": 0.05}},
        "loss": describe(LOSSES, LogitAdjustment()),
        "class_statistics": STATISTICS.to_dict(),
        "results": {"test": split_results(LOGITS, [0, 0, 1, 2], STATISTICS)},
        "timing": {"train_seconds": 1.5},
        "versions": installed_versions(),
    }
    return RunRecord(**{**facts, **changes})


def test_round_trip(tmp_path):
    path = RunFolder(tmp_path / "run" / "seed-3").write_record(a_record())
    assert path == tmp_path / "run" / "seed-3" / RECORD
    assert path.name == "metrics.json" and RunFolder(path.parent).finished_record() == a_record()
    assert [p.name for p in path.parent.iterdir()] == [RECORD]


def test_what_stands_in_the_file(tmp_path):
    content = json.loads(RunFolder(tmp_path).write_record(a_record()).read_text())
    assert content["schema_version"] == 1 and content["seed"] == 3
    assert content["loss"] == {"name": "logit_adjustment", "args": {"tau": 1.0}}
    assert ClassStatistics.from_dict(content["class_statistics"]) == STATISTICS
    test = content["results"]["test"]
    assert test["overall"] == 0.75 and test["groups"] == {"many": 0.5, "medium": 1.0, "few": 1.0}
    assert test["per_class"] == [0.5, 1.0, 1.0] and test["samples"] == 4
    confidence = math.exp(2) / (math.exp(2) + 2)
    assert test["ece"] == pytest.approx(abs(0.75 - confidence)) and test["balanced"] == pytest.approx(5 / 6)
    assert content["versions"].keys() >= {"python", "torch", "transformers", "hf_ltsam"}


def test_a_resumed_run_has_a_time_where_its_checkpoint_had_one():
    assert a_record().train_seconds == 1.5 and a_record(resumed=True).train_seconds is None
    whole = {"train_seconds": 4.0, "seconds_before": 2.5}
    assert a_record(resumed=True, timing=whole).train_seconds == 4.0
    assert RunRecord.from_json(a_record(resumed=True).to_json()).resumed


def test_what_does_not_exist_is_null_in_strict_json(tmp_path):
    results = {"test": split_results(LOGITS[:2], [0, 0], STATISTICS)}
    text = RunFolder(tmp_path).write_record(a_record(results=results, timing={"eta": np.float32("inf")})).read_text()
    assert "NaN" not in text and "Infinity" not in text
    test = json.loads(text)["results"]["test"]
    assert test["per_class"] == [0.5, None, None] and test["groups"] == {"many": 0.5}
    assert RunFolder(tmp_path).finished_record().timing == {"eta": None}


def test_numbers_of_numpy_become_plain_ones(tmp_path):
    RunFolder(tmp_path).write_record(
        a_record(seed=np.int64(4), data={"sizes": np.array([1, 2]), "ratio": np.float32(0.5)})
    )
    assert RunFolder(tmp_path).finished_record().seed == 4 and RunFolder(tmp_path).finished_record().data == {
        "sizes": [1, 2],
        "ratio": 0.5,
    }


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.replace"])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch, broken):
    RunFolder(tmp_path).write_record(a_record(seed=1))

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(broken, crash)
    with pytest.raises(KeyboardInterrupt):
        RunFolder(tmp_path).write_record(a_record(seed=2))
    assert RunFolder(tmp_path).finished_record().seed == 1 and [p.name for p in tmp_path.iterdir()] == [RECORD]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    RunFolder(tmp_path).write_record(a_record(seed=1))
    with pytest.raises(TypeError):
        RunFolder(tmp_path).write_record(a_record(seed=2, data={"transform": object()}))
    assert RunFolder(tmp_path).finished_record().seed == 1 and [p.name for p in tmp_path.iterdir()] == [RECORD]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text[: len(text) // 2], "line"),
        (lambda text: "[]", "schema_version"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "9.*reads 1"),
        (lambda text: text.replace('"seed"', '"sead"'), r"missing: \['seed'\].*unknown: \['sead'\]"),
        (lambda text: "", "line 1"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    path = RunFolder(tmp_path).write_record(a_record())
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=rf"{RECORD} is damaged: .*{message}"):
        RunFolder(tmp_path).finished_record()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=RECORD):
        RunFolder(tmp_path).finished_record()


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("me/birds", ("me/birds", None)),
        ("me/birds@v1.0", ("me/birds", "v1.0")),
        ("me/birds@refs/pr/3", ("me/birds", "refs/pr/3")),
        ("me/birds@" + "a" * 5000, ("me/birds", "a" * 5000)),
        ("x" * 5000, ("x" * 5000, None)),
        ("cifar10", ("cifar10", None)),
        ("me@home/birds", ("me@home/birds", None)),
        ("./birds@v1", ("./birds@v1", None)),
        ("here/birds@2x", ("here/birds@2x", None)),  # a folder
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_revision_behind_a_name_on_the_hub(word, parts, tmp_path, monkeypatch):
    (tmp_path / "here" / "birds@2x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert split_revision(word) == parts


UNTESTED = {
    "all have a sample": ([0.5, 0.25], []),
    "one has none": ([0.5, None, 0.25], ["1 of the 3 classes has no test image: "]),
    "one alone has any": ([None, float("nan"), 1.0], ["2 of the 3 classes have no test image: "]),
}


@pytest.mark.parametrize(("per_class", "sentences"), UNTESTED.values(), ids=UNTESTED)
def test_classes_without_a_test_sample_are_told(per_class, sentences):
    result = {"per_class": per_class, "balanced": np.nanmean(np.array(per_class, float)), "samples": 10}
    record = RunRecord(0, {}, {}, {}, {"test": result})
    told = untested(record)
    assert len(told) == len(sentences) and all(told[k].startswith(sentence) for k, sentence in enumerate(sentences))


@pytest.mark.parametrize(
    ("per_class", "chance"),
    [([1.0], False), ([0.0], False), ([None, 1.0], False), ([0.5, 0.5], True), ([1.0, 0.9], False)],
)
def test_a_test_of_one_class_says_nothing_about_chance(per_class, chance):
    result = {"per_class": per_class, "balanced": np.nanmean(np.array(per_class, float)), "samples": 100}
    remarks = shortcomings(RunRecord(0, {}, {}, {}, {"test": result}))
    assert any("is at chance" in remark for remark in remarks) == chance
