"""CE, mCE and mean error: by hand, AlexNet against itself, and refusals."""

import json

import numpy as np
import pytest

from hf_ltsam.metrics.corruption import (
    ALEXNET,
    ALEXNET_ERRORS,
    BENCHMARK,
    Baseline,
    corruption_errors,
    corruption_summary,
    error_table,
    mean_corruption_error,
    mean_error,
    mean_errors,
)

SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET_TABLE = {name: dict.fromkeys(SEVERITIES, error) for name, error in ALEXNET_ERRORS.items()}


def made_up(slope=0.01):
    """Row k has the errors 0.1 + slope k + 0.05 s, s = 0 .. 4, whose mean is 0.2 + slope k."""
    return {name: {s + 1: 0.1 + slope * k + 0.05 * s for s in range(5)} for k, name in enumerate(BENCHMARK)}


def test_alexnets_errors_are_the_published_ones(shared):
    published = json.loads((shared / "lists" / "alexnet_imagenet_c_errors.json").read_text())["errors"]
    assert published == ALEXNET_ERRORS
    assert list(published) == list(BENCHMARK)


def test_alexnet_against_itself_gives_100():
    assert corruption_errors(ALEXNET_TABLE, ALEXNET) == pytest.approx(dict.fromkeys(BENCHMARK, 100))
    assert mean_corruption_error(ALEXNET_TABLE, ALEXNET) == pytest.approx(100)
    # its severities differ, as long as their mean is that of the list
    uneven = {c: {s: e + 0.02 * (s - 3) for s, e in row.items()} for c, row in ALEXNET_TABLE.items()}
    assert mean_corruption_error(uneven, ALEXNET) == pytest.approx(100)


def test_a_table_by_hand():
    table = made_up()
    assert mean_error(table) == pytest.approx(0.2 + 0.01 * 7)
    assert mean_errors(table)["fog"] == pytest.approx(0.29)
    ce = corruption_errors(table, ALEXNET)
    assert ce["gaussian_noise"] == pytest.approx(100 * 0.2 / 0.886428)  # 22.5625
    assert ce["jpeg_compression"] == pytest.approx(100 * 0.34 / 0.6065)  # 56.0594
    by_hand = sum(100 * (0.2 + 0.01 * k) / error for k, error in enumerate(ALEXNET_ERRORS.values())) / 15
    assert mean_corruption_error(table, ALEXNET) == pytest.approx(by_hand)


def test_mce_is_no_ratio_of_means():
    """It is the mean of ratios; the ratio of means is a common mistake."""
    table = made_up(0.04)
    assert mean_corruption_error(table, ALEXNET) != pytest.approx(
        100 * mean_error(table) / np.mean(list(ALEXNET_ERRORS.values()))
    )


def test_a_named_baseline():
    """Errors summed over severities before the division, so a baseline that is perfect at one of them is fine."""
    baseline = Baseline.from_table("ResNet-32, CE", {"fog": {1: 0.0, 3: 0.5}, "snow": {1: 0.2, 3: 0.4}})
    table = {"fog": {1: 0.1, 3: 0.3}, "snow": {1: 0.3, 3: 0.6}, "frost": {1: 0.3, 3: 0.6}}
    assert corruption_errors(table, baseline) == pytest.approx({"fog": 80, "snow": 150})
    summary = corruption_summary(table, baseline)
    assert summary["relative_to"] == "ResNet-32, CE"
    assert summary["mce"] is None  # of 2 of 15
    assert summary["ce"] == pytest.approx({"fog": 80, "snow": 150}) and summary["severities"] == [1, 3]
    assert summary["mean_error"] == pytest.approx((0.2 + 0.45 + 0.45) / 3)


def test_without_a_baseline_there_is_no_ce():
    summary = corruption_summary(made_up())
    assert summary["relative_to"] is None and "ce" not in summary and "mce" not in summary
    assert summary["mean_error"] == pytest.approx(0.27)


def test_extra_corruptions_do_not_enter_the_means():
    table = {**made_up(), "spatter": dict.fromkeys(SEVERITIES, 1.0)}
    assert mean_error(table) == pytest.approx(0.27)
    summary = corruption_summary(table, ALEXNET)
    assert summary["errors"]["spatter"] == 1 and "spatter" not in summary["ce"]
    assert summary["mce"] == mean_corruption_error(made_up(), ALEXNET)
    assert mean_error({"spatter": {1: 0.5}}) == 0.5
    baseline = Baseline.from_table("mine", {**table, "spatter": dict.fromkeys(SEVERITIES, 0.5)})
    assert mean_corruption_error(table, baseline) == pytest.approx(100)
    assert corruption_errors(table, baseline)["spatter"] == 200


@pytest.mark.parametrize(
    "table, message",
    [
        ({}, "at least one"),
        ({"fog": {}}, "at least one"),
        ({"fog": {1: 0.1, 2: 0.2}, "snow": {1: 0.1}}, "fog has 1, 2, snow has 1"),
        ({"fog": {1: 12.5}}, r"fog at severity 1 .*\[0, 1\], got 12.5"),
        ({"fog": {1: float("nan")}}, "got nan"),
    ],
)
def test_invalid_tables_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        mean_error(table)


def test_other_severities_than_the_baselines():
    with pytest.raises(ValueError, match=r"AlexNet.*1, 2, 3, 4, 5.*has 1, 3"):
        corruption_errors({"fog": {1: 0.1, 3: 0.2}}, ALEXNET)


def test_mce_of_fewer_than_15():
    table = made_up()
    del table["fog"], table["snow"]
    with pytest.raises(ValueError, match="15 corruptions; missing: snow, fog"):
        mean_corruption_error(table, ALEXNET)


def test_a_baseline_without_errors():
    with pytest.raises(ValueError, match="no error under fog"):
        corruption_errors({"fog": {1: 0.1}}, Baseline("perfect", {"fog": 0.0}, (1,)))


def test_a_table_from_predictions():
    table = error_table([0, 1, 1, 0], [0, 0, 1, 1], ["snow", "fog", "fog", "shot_noise"], [1, 2, 2, 1])
    assert table == {"shot_noise": {1: 1.0}, "snow": {1: 0.0}, "fog": {2: 0.5}}
    assert list(table) == ["shot_noise", "snow", "fog"]  # the usual order
    with pytest.raises(ValueError, match="same length"):
        error_table([0], [0], ["fog"], [1, 2])


def test_the_metric_for_evaluate(tmp_path):
    from hf_ltsam.metrics.evaluate_metrics import MeanCorruptionError

    metric = MeanCorruptionError(dict.fromkeys(BENCHMARK, 0.5), severities=(1,), cache_dir=str(tmp_path))
    for corruption in BENCHMARK:
        metric.add_batch(
            predictions=[0, 1, 1, 1], references=[0, 0, 0, 0], corruption=[corruption] * 4, severity=[1] * 4
        )
    result = metric.compute()
    assert result["mce"] == pytest.approx(150) and result["mean_error"] == 0.75
