"""What is computed from the files before it is drawn, against numbers found by hand."""

from dataclasses import replace

import numpy as np
import pytest
from runs.report.made_runs import (
    GROUPS,
    history,
    metrics,
    predictions,
    sharpness,
    shifted,
    statistics,
    write,
    write_run,
)
from runs.report.made_runs import test_result as result_of

from hf_ltsam.runs.report.by_frequency import BINS, points_of
from hf_ltsam.runs.report.by_group import drawn_groups
from hf_ltsam.runs.report.calibration import bins_of, group_gaps
from hf_ltsam.runs.report.configurations import Configuration, configurations
from hf_ltsam.runs.report.confusion import by_frequency, confusion_shares, most_confused, top_confusions
from hf_ltsam.runs.report.cost import cost_of, pareto_front
from hf_ltsam.runs.report.drawing import within_percent
from hf_ltsam.runs.report.log_curves import curve, telemetry_keys
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.saved_parts import Curvature, shifted_sets
from hf_ltsam.runs.report.shift import error_map
from hf_ltsam.runs.report.shift import section as shift_section

SHARES = (0.5,) * 5


def runs_of(folder, *files):
    """One configuration whose seeds hold these files."""
    written = [write_run(folder / str(k), metrics(SHARES, seed=k), **own) for k, own in enumerate(files)]
    return Configuration("title", tuple(map(read_run, written)))


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 0.5), (2, 0.6), (3, 0.55), (4, 0.7)], [0, 1, 3]),
        ([(3, 0.9), (1, 0.9), (2, 0.9)], [1]),  # as accurate and cheaper
        ([(1, 0.5), (1, 0.6)], [1]),
        ([(2, 0.1)], [0]),
    ],
)
def test_the_pareto_front(points, front):
    assert pareto_front(points) == front


def test_cost_is_what_the_runs_took(tmp_path):
    timed = [metrics(SHARES, seed=k, seconds=s, hardware=h) for k, (s, h) in enumerate([(60.0, "gpu"), (80.0, "cpu")])]
    untimed = metrics(SHARES, seed=3)
    untimed["timing"] = {}
    runs = [read_run(write_run(tmp_path / str(k), own)) for k, own in enumerate([*timed, untimed])]
    cost = cost_of(4, Configuration("title", tuple(runs)))
    assert (cost.position, cost.seconds, cost.hardware) == (4, [60.0, 80.0], ("gpu", "cpu"))
    assert cost_of(0, Configuration("title", (runs[-1],))) is None


def test_many_classes_are_averaged_in_bins_of_equal_size(tmp_path):
    C = 4 * BINS
    counts, shares = list(range(10, 10 + C)), [c / C for c in range(C)]  # the rarest class comes first
    own = metrics(shares, class_statistics=statistics(counts), results={"test": result_of(shares, {"many": range(C)})})
    points = points_of(Configuration("title", (read_run(write_run(tmp_path / "run", own)),)))
    assert points.names[:2] == ["1 to 4", "5 to 8"] and len(points.names) == BINS
    assert points.counts[0] == np.mean(counts[-4:]) and points.mean[0] == pytest.approx(np.mean(shares[-4:]))
    assert points.mean[-1] == pytest.approx(np.mean(shares[:4])) and np.isnan(points.deviation).all()


def test_a_curve_has_the_moments_that_all_seeds_logged(tmp_path):
    own = runs_of(tmp_path, {"trainer_state": history([0.1, 0.2, 0.3])}, {"trainer_state": history([0.3, 0.6])}, {})
    few = curve(own, "eval_few")
    assert few.x.tolist() == [1, 2] and few.mean.tolist() == pytest.approx([0.2, 0.4])
    assert few.deviation.tolist() == pytest.approx([np.sqrt(0.02), np.sqrt(0.08)])
    assert curve(own, "eval_nothing") is None


def test_a_log_without_epochs_goes_by_steps(tmp_path):
    logged = {"log_history": [{"step": 5, "eval_few": 0.1}, {"step": 10, "eval_few": 0.2}, {"eval_few": 0.9}]}
    assert curve(runs_of(tmp_path, {"trainer_state": logged}), "eval_few").x.tolist() == [5, 10]


def test_any_name_of_telemetry_is_found_the_known_ones_first(tmp_path):
    names = ("sam_zeta", "sam_eps_norm", "sam_alpha", "sam_step_share")
    own = runs_of(tmp_path, {"trainer_state": history([0.1], {name: [1.0] for name in names})})
    assert telemetry_keys([own]) == ["sam_eps_norm", "sam_step_share", "sam_alpha", "sam_zeta"]


def test_shares_of_a_confusion_matrix(tmp_path):
    told = {"schema_version": 1, "class_names": ["a", "b", "c"]}
    first = {**told, "test": {"labels": [0, 0, 1, 1], "predicted": [0, 1, 1, 1], "confidence": [1] * 4}}
    second = {**told, "test": {"labels": [0, 0, 1, 1], "predicted": [1, 1, 0, -1], "confidence": [1] * 4}}
    shares = confusion_shares(runs_of(tmp_path, {"predictions": first}, {"predictions": second}))
    np.testing.assert_allclose(shares, [[0.25, 0.75, 0], [0.25, 0.5, 0], [np.nan] * 3])  # one prediction was none
    assert top_confusions(shares, 5) == [(0, 1), (1, 0)]


def test_the_most_confused_classes():
    shares = np.zeros((30, 30))
    np.fill_diagonal(shares, 1.0)
    pairs = [(20 + k, 2 * k) for k in range(8)]
    for k, pair in enumerate(pairs):
        shares[pair] = 0.9 - 0.1 * k
    assert most_confused(shares) == [c for pair in pairs[:5] for c in pair]
    assert most_confused(shares[:8, :8]) == list(range(8))


def test_classes_stand_by_frequency(tmp_path):
    own = metrics(SHARES, class_statistics=statistics((3, 40, 5, 40, 9)))
    assert by_frequency([0, 1, 2, 3], Configuration("t", (read_run(write_run(tmp_path / "r", own)),))) == [1, 3, 2, 0]


def test_calibration_of_a_group_is_that_of_its_images(tmp_path):
    labels = np.repeat(range(5), 10)
    right = np.repeat([True, True, True, False, False], 10)
    own = runs_of(tmp_path, {"predictions": predictions(right, labels)})
    assert group_gaps(own.runs[0]) == pytest.approx({"many": 0.1, "medium": 0.1, "few": 0.9})
    assert bins_of(own).error == pytest.approx(0.3)  # 60 % right with a confidence of 0.9


def test_one_configuration_shows_severities(tmp_path):
    errors = [{"fog": {1: 0.2, 5: 0.6}, "snow": {1: 0.4, 5: 0.8}}, {"fog": {1: 0.4, 5: 0.8}, "snow": {1: 0.4, 5: 0.8}}]
    own = runs_of(tmp_path, *({"ood_results": shifted(table)} for table in errors))
    rows, columns, shown = error_map([own], "images_c")
    assert rows == ["fog", "snow", "mean"] and columns == ["severity 1", "severity 5"]
    np.testing.assert_allclose(shown, [[0.3, 0.7], [0.4, 0.8], [0.35, 0.75]])


def test_several_configurations_show_means_over_severities(tmp_path):
    tables = [{"fog": {1: 0.2, 5: 0.6}}, {"fog": {1: 0.1, 5: 0.1}, "snow": {1: 0.4, 5: 0.8}}]
    own = [runs_of(tmp_path / str(k), {"ood_results": shifted(table)}) for k, table in enumerate(tables)]
    rows, columns, shown = error_map(own, "images_c")
    assert rows == ["fog", "snow", "mean"] and columns == ["title", "title"]
    np.testing.assert_allclose(shown, [[0.4, 0.1], [np.nan, 0.6], [0.4, 0.35]])


def test_mce_is_shown_with_what_it_is_relative_to(tmp_path):
    values = shifted({"fog": {1: 0.2}})
    values["sets"]["images_c"]["summary"] |= {"mce": 75.0, "relative_to": "AlexNet"}
    values["sets"]["unfinished"] = {"cells": {}}  # killed before its summary
    own = runs_of(tmp_path, {"ood_results": values})
    (tmp_path / "report").mkdir()
    means = shift_section([own], tmp_path / "report").tables[-1]
    assert means.rows[0][4] == "75.0 (relative to AlexNet)"


TESTED = {  # the errors of the runs of A, B, C -> errors by configuration, mean errors, what is told
    "alike": ([[{"fog": {1: 0.2}}, {"fog": {1: 0.4}}], [{"fog": {1: 0.1}}]], ["30.0 10.0"], ["30.0", "10.0"], []),
    "another corruption in one of two seeds": (
        [[{"fog": {1: 0.2}}, {"fog": {1: 0.4}, "snow": {1: 0.9}}], [{"fog": {1: 0.1}}]],
        ["30.0 10.0"], ["30.0", "10.0"], ["images_c, A: the corruptions or severities of its runs differ"],
    ),
    "another severity in one of two seeds": (
        [[{"fog": {1: 0.2}}], [{"fog": {1: 0.4, 5: 0.9}}, {"fog": {1: 0.2}}]],
        ["20.0 30.0"], ["20.0", "30.0"], ["images_c, B: the corruptions or severities of its runs differ"],
    ),
    "another severity in an unrelated configuration": (
        [[{"fog": {1: 0.2, 3: 0.4}}] * 2, [{"fog": {1: 0.1, 3: 0.3}}], [{"fog": {5: 0.9}}]],
        ["30.0 20.0 90.0"], ["30.0", "20.0", "90.0"], ["so mean errors do not compare: A and B against C."],
    ),
    "more severities in the other configuration": (
        [[{"fog": {1: 0.2, 5: 0.9}}, {"fog": {1: 0.4, 5: 0.9}}], [{"fog": {1: 0.1}}]],
        ["60.0 10.0"], ["60.0", "10.0"], ["so mean errors do not compare: A against B."],
    ),
    "another corruption in the other configuration": (
        [[{"fog": {1: 0.2}}] * 2, [{"fog": {1: 0.1}, "snow": {1: 0.5}}]],
        ["20.0 10.0", "- 50.0"], ["20.0", "30.0"], ["so mean errors do not compare: A against B."],
    ),
    "nothing in common between configurations": (
        [[{"fog": {1: 0.2}}], [{"snow": {5: 0.1}}], [{"fog": {1: 0.3}, "snow": {1: 0.1}}]],
        ["20.0 - 30.0", "- 10.0 10.0"], ["20.0", "10.0", "20.0"], ["so mean errors do not compare: A against B against C."],
    ),
    "nothing in common between seeds": (
        [[{"fog": {1: 0.2}}, {"fog": {5: 0.4}}], [{"fog": {1: 0.1}}], [{"fog": {1: 0.3}}]],
        ["10.0 30.0"], ["10.0", "30.0"], ["images_c, A: its runs were tested, but share no corruption and severity"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tables", "errors", "means", "told"), TESTED.values(), ids=TESTED)
def test_errors_are_means_over_what_all_runs_of_a_configuration_share(tmp_path, tables, errors, means, told):
    made = shift_section(titled(tmp_path, tables), tmp_path)
    assert not made.missing and len(made.notes) == len(told)
    assert all(part in note for part, note in zip(told, made.notes))
    by_corruption, summary = (table.rows for table in made.tables[-2:])
    assert [" ".join(row[1:]) for row in by_corruption[:-1]] == errors
    assert by_corruption[-1][1:] == [row[3].partition(" ")[0] for row in summary] == means
    assert [row[-1].partition(" ")[0] for row in summary] == [f"{100 - float(error):.1f}" for error in means]  # few


def titled(folder, tables):
    """Configurations A, B, ...: the errors of their runs."""
    made = [
        runs_of(folder / title, *({"ood_results": with_groups(shifted(table))} for table in of_runs))
        for title, of_runs in zip("ABC", tables)
    ]
    return [replace(configuration, title=title) for title, configuration in zip("ABC", made)]


def test_seeds_that_share_nothing_are_told_alone(tmp_path):
    made = shift_section(titled(tmp_path, [[{"fog": {1: 0.2}}, {"fog": {5: 0.4}}]]), tmp_path)
    assert [table.caption.partition(" ")[0] for table in made.tables] == ["Accuracy"] and not made.figures
    assert [("--severities" in note, note.startswith("images_c, A: ")) for note in made.notes] == [(True, True)]
    assert not made.missing  # no training is proposed


def test_the_largest_error_is_that_of_a_corruption(tmp_path):
    """The mean over configurations of their means may be above all of them."""
    tables = [[{"fog": {1: 0.9}}], [{"snow": {1: 0.8}}], [{"fog": {1: 0.1}, "snow": {1: 0.1}}]]
    figure = shift_section(titled(tmp_path, tables), tmp_path).figures[0]
    assert "The largest error is under fog." in figure.svg + figure.caption


def with_groups(values):
    """Those of a model that knows the rare classes as well as the others."""
    of_set = values["sets"]["images_c"]
    for row in of_set["cells"].values():
        for result in row.values():
            result["groups"] = {"few": result["overall"]}
    of_set["summary"]["groups"] = {"few": 1 - of_set["summary"]["mean_error"]}
    return values


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels_sha256": "b", "samples": 60}, "on other images (50 and 60)"),
        ({"identity": {"source": "x", "content_sha256": "b", "test_time": "none"}}, "have changed in between"),
        ({"identity": {"source": "y", "content_sha256": "b", "test_time": "none"}}, None),  # the same at another place
        ({"identity": {"source": "x", "content_sha256": "a", "test_time": "flip"}}, "(--test_time none and flip)"),
        ({}, None),
        ({"identity": {}}, None),  # older results do not say how
        ({"identity": {"source": "x", "content_sha256": "b"}}, "have changed in between"),
        ({"identity": {}, "labels_sha256": "b", "samples": 60}, "on other images (50 and 60)"),
        (None, None),  # without an identity
    ],
)
def test_runs_that_were_tested_in_other_ways_are_told(tmp_path, change, told):
    result = {"overall": 0.5, "groups": {}, "samples": 50, "labels_sha256": "a"}
    result["identity"] = {"source": "x", "content_sha256": "a", "test_time": "none"}
    tables = [shifted({"fog": {1: 0.2}}), shifted({"fog": {1: 0.2}})]
    other = (
        {key: value for key, value in result.items() if key != "identity"} if change is None else {**result, **change}
    )
    for values, of_run in zip(tables, (result, other)):
        values["sets"]["sketch"]["result"] = of_run
    (tmp_path / "report").mkdir()
    own = runs_of(tmp_path, *({"ood_results": values} for values in tables))
    notes = shift_section([own], tmp_path / "report").notes
    assert [told in note and note.startswith("sketch: ") for note in notes] == ([True] if told else [])


OF_BOTH = {"fog": {1: 0.2, 5: 0.6}}
WITH_MCE = {  # errors and reference of each seed -> the mCE that is shown
    "of one model": ([(OF_BOTH, "AlexNet"), (OF_BOTH, "AlexNet")], "75.0 ± 0.0 (relative to AlexNet)"),
    "of two models": ([(OF_BOTH, "AlexNet"), (OF_BOTH, "mine")], "- (relative to AlexNet, mine)"),
    "of one seed": ([(OF_BOTH, "AlexNet"), (OF_BOTH, None)], "-"),
    "over more in one seed": ([(OF_BOTH, "AlexNet"), ({"fog": {1: 0.2}}, "AlexNet")], "-"),
}


@pytest.mark.parametrize(("seeds", "mce"), WITH_MCE.values(), ids=WITH_MCE)
@pytest.mark.parametrize("others", [[], [{"fog": {3: 0.2}}]], ids=["alone", "beside another configuration"])
def test_an_mce_is_of_all_runs_and_relative_to_one_model(tmp_path, seeds, mce, others):
    tables = [shifted(errors) for errors, _ in seeds]
    for values, (_, model) in zip(tables, seeds):
        values["sets"]["images_c"]["summary"] |= {"mce": model and 75.0, "relative_to": model}
    own = [runs_of(tmp_path / "own", *({"ood_results": values} for values in tables))]
    own += [runs_of(tmp_path / "other", {"ood_results": shifted(errors)}) for errors in others]
    assert shift_section(own, tmp_path).tables[-1].rows[0][4] == mce


FOUR = {("fog", 1), ("fog", 5), ("snow", 1), ("snow", 5)}
PARTS = {  # cells -> the mean error over corruptions, and mCE with its model
    "all of them": (FOUR, 0.5, (75.0, "AlexNet")),
    "and others": (FOUR | {("frost", 1)}, 0.5, (75.0, "AlexNet")),
    "an uneven grid": (FOUR - {("snow", 5)}, 0.35, (None, "")),  # of 0.4 and 0.3; of cells 0.367
    "one severity": ({("fog", 1), ("snow", 1)}, 0.25, (None, "")),
    "one corruption": ({("fog", 1), ("fog", 5)}, 0.4, (None, "")),
}


@pytest.mark.parametrize(("cells", "error", "mce"), PARTS.values(), ids=PARTS)
def test_some_corruptions_and_severities_of_a_set(cells, error, mce):
    values = with_groups(shifted({"fog": {1: 0.2, 5: 0.6}, "snow": {1: 0.3, 5: 0.9}}))
    values["sets"]["images_c"]["summary"] |= {"mce": 75.0, "relative_to": "AlexNet"}
    some = shifted_sets(values)["images_c"].only(cells)
    assert some.accuracy == pytest.approx({"overall": 1 - error, "few": 1 - error})
    assert {(c, s) for c, row in some.errors.items() for s in row} == set(some.results) == cells & FOUR
    assert (None if some.mce != some.mce else some.mce, some.relative_to) == mce


def test_what_was_not_measured_is_told_once(tmp_path):
    values = shifted({"fog": {1: 0.2}})
    values["sets"]["sketch"]["result"]["note"] = "images of 4 classes are left out"
    own = runs_of(tmp_path, {"ood_results": values}, {"ood_results": values})
    (tmp_path / "report").mkdir()
    assert shift_section([own], tmp_path / "report").notes == ["sketch, title: images of 4 classes are left out."]


def test_subsets_are_in_order_and_in_words():
    curvature = Curvature.from_json(sharpness((2, 30, 12), ("class 0", "few", "class 1", "all", "many")))
    assert list(curvature.spectra) == ["all", "many", "few", "class 1", "class 0"]
    assert curvature.labels["class 1"] == "class 1 (30 images)" and curvature.labels["all"] == "all classes"
    assert [point.step for point in curvature.evolution["few"]] == [10, 20]


def test_configurations_stay_in_the_order_of_the_command_line(tmp_path):
    made = [("b", "sam", 0), ("a", "sgd", 0), ("c", "sam", 1)]
    runs = [read_run(write_run(tmp_path / name, metrics(SHARES, seed, method=method))) for name, method, seed in made]
    assert [c.title for c in configurations(runs)] == ["CE + SAM", "CE + SGD"]


def test_an_unfinished_log_is_no_damage(tmp_path):
    write(tmp_path / "run" / "recipe.yaml", "method: sam\n")
    run = read_run(tmp_path / "run")
    assert run.damaged == () and run.history == () and run.seed == "?"


@pytest.mark.parametrize(
    ("mean", "deviation", "bars"), [(50.0, 10.0, (10, 10)), (98.0, 5.0, (5, 2)), (1.0, 4.0, (1, 4))]
)
def test_error_bars_end_at_0_and_100(mean, deviation, bars):
    assert within_percent(mean, deviation).flatten().tolist() == list(bars)
    assert within_percent(np.array([mean] * 2), np.array([deviation] * 2)).T.tolist() == [list(bars)] * 2


def test_a_group_of_the_same_classes_is_drawn_once(tmp_path):
    def drawn(threshold, tail):
        groups = {**GROUPS, "head": tuple(c for c in range(5) if c not in tail), "tail": tail}
        record = metrics(SHARES, class_statistics=statistics(tail_threshold=threshold))
        record["results"] = {"test": result_of(SHARES, groups)}
        return drawn_groups(configurations([read_run(write_run(tmp_path / str(threshold), record))]))

    assert drawn(20, (2, 3, 4)) == ["balanced", "many", "medium", "few", "tail"]  # the head are the many
    assert drawn(9, (3, 4)) == ["balanced", "many", "medium", "few", "head"]
    assert drawn(4, (4,)) == ["balanced", "many", "medium", "few", "head", "tail"]
